"""Evaluation of a run on more than two classes, on grades, or on several labels: predictions, figures and a report."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.data import Splits
from mim.data.loader import FilmDataset, evaluation_loader
from mim.evaluation import Header, Section, Settings
from mim.evaluation.class_metrics import LabelMetrics, measure_labels
from mim.evaluation.label_calibration import label_calibration_section
from mim.evaluation.label_card import facts_of_labels
from mim.evaluation.label_decisions import label_points_section, label_usefulness_section
from mim.evaluation.label_errors import ErrorGroup, find_label_errors
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_report import ErrorFilm, reconstruction_section, write_label_report
from mim.evaluation.label_section import labels_section, left_out_section
from mim.evaluation.label_strata import label_strata_sections
from mim.stages.classifier import TaskDescription, load_classifier
from mim.stages.evaluate import (
    count_lesions,
    describe_leakage,
    make_header,
    open_finished,
    own_labelled,
    rebuild,
)
from mim.stages.external import Opened, films_to_measure
from mim.stages.finetune import make_dataset
from mim.stages.groups import with_label_groups
from mim.stages.label_kinds import known_counts, label_kind, label_words
from mim.stages.mask_safety import mask_safety
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import CopiesMet, look_for_copies
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import validation_labels
from mim.stages.write_evaluation import output_of, write_evaluation
from mim.tasks import MaskedClassifier
from mim.training import make_fabric

OF_TWO_CLASSES = (
    "AUROC behind other masks",
    "missingness",
    "the shape of masks",
    "explanations",
)


@dataclass(frozen=True, eq=False)
class LabelRun:
    """A finished run with its films and scores; rows count the validation films, then the test films.

    Attributes:
        config: settings of evaluate.py.
        run: folder of the run.
        finetuned: settings of the run.
        description: what the run remembers.
        known: the films by split, and what is known of them.
        dataset: the rows as the network meets them, without augmentation.
        predictions: the table of the rows; where the run's own films are not at hand, that of its validation films
            stands behind them.
        visible: (N, gh, gw) what was seen of them.
    """

    config: EvaluateConfig
    run: Path
    finetuned: FinetuneConfig
    description: TaskDescription
    known: TestedFilms
    dataset: FilmDataset
    predictions: LabelPredictions
    visible: NDArray[np.bool_]

    @property
    def settings(self) -> Settings:
        """How thresholds and intervals are made."""
        return Settings(self.config.bootstrap, self.config.confidence, self.config.specificity, self.config.seed)


@dataclass(frozen=True)
class Said:
    """What stands around the figures.

    Attributes:
        header: what they belong to.
        about: how many films there are in each split, title and text.
        met: near copies of test films.
        warnings: what a reader is told first, but for what the sections say first.
    """

    header: Header
    about: list[tuple[str, str]]
    met: CopiesMet
    warnings: list[str]


def evaluate_labels(config: EvaluateConfig) -> Path:
    """Measures a run on its test films; writes report.html, model_card.md, metrics.json and predictions.csv.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    scored = score_run(config)
    metrics = measure_labels(scored.predictions, scored.settings)
    sections = make_sections(scored, metrics)
    around = describe_run(scored)
    errors = draw_errors(scored, metrics)
    said = [*around.warnings, *(line for section in sections for line in section.first_lines)]
    facts = facts_of_run(scored.finetuned, scored.description, around.met)
    facts |= facts_of_labels(metrics, around.header, around.about, said, sections)

    def write(output: Path) -> Path:
        scored.predictions.save(output / "predictions.csv")
        return write_label_report(
            output, sections, scored.settings, around.header, around.about, errors, around.warnings
        )

    kind = label_words(scored.predictions.kind, scored.predictions.names)
    counted = f"test: {metrics.films} films of {metrics.patients} patients, {kind}"
    lines = [counted, *(line for section in sections for line in section.summary)]
    output = output_of(config, scored.run, around.header)
    return write_evaluation(output, around.header, around.met, facts, said, write, lines)


def score_run(config: EvaluateConfig) -> LabelRun:
    """Reads a finished run and scores its validation and test films.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    kind = label_kind(finetuned, description.classes)
    assert kind != "two"
    known = films_to_measure(Opened(config, run, finetuned, description), own_labelled, "labels or splits")
    splits, chosen = known.splits, known.chosen
    groups = known.groups_for(config, finetuned)
    dataset = make_dataset(finetuned, known.films, chosen, description.encoder.image_size, training=False)
    score, visible = score_labels(load_classifier(run, finetuned, description), dataset, config)
    predictions = LabelPredictions(
        names=description.classes,
        kind=kind,
        image_id=[film.image_id for film in chosen],
        patient_id=[film.patient_id for film in chosen],
        split=["val"] * len(splits.val) + ["test"] * len(splits.test),
        label=np.array([film.labels if kind == "several" else film.label for film in chosen]),
        score=score,
        keep_rate=visible.mean(axis=(1, 2)),
    )
    predictions = with_label_groups(predictions, groups, chosen)
    if not known.own_at_hand:
        predictions = predictions.followed_by(validation_labels(run, kind))
    return LabelRun(config, run, finetuned, description, known, dataset, predictions, visible)


def make_sections(scored: LabelRun, metrics: LabelMetrics) -> list[Section]:
    """Makes the blocks of the report, in their order: what a mask hides of lesions stands first."""
    known, settings, predictions = scored.known, scored.settings, scored.predictions
    splits = known.splits
    hidden = mask_safety(
        scored.config,
        scored.finetuned,
        scored.visible[len(splits.val) :],
        [film.index for film in splits.test],
        [film.patient_id for film in splits.test],
        known.annotations,
        scored.description.encoder.image_size,
    )
    return [
        *([] if hidden is None else [hidden]),
        labels_section(metrics, predictions),
        label_points_section(predictions, settings),
        label_calibration_section(predictions, settings),
        label_usefulness_section(predictions, metrics),
        *label_strata_sections(predictions, metrics, settings),
        reconstruction_section(*rebuild(scored.finetuned, known.films, splits)),
        left_out_section(OF_TWO_CLASSES),
    ]


def describe_run(scored: LabelRun) -> Said:
    """Says what was evaluated, and what a reader must know first."""
    data, known, classes = scored.finetuned.data, scored.known, scored.description.classes
    splits = known.splits
    met = look_for_copies(scored.finetuned, splits)
    target = data.target if isinstance(data.target, str) else ", ".join(data.target or ())
    kind = scored.predictions.kind
    named = f"{target}: {label_words(kind, classes)}" if kind != "several" else target
    header = make_header(
        scored.run,
        scored.finetuned,
        scored.description,
        known.films,
        known.chosen,
        splits,
        met,
        named,
        known.external,
    )
    header = replace(
        header,
        trained_on={name: count for name, count in header.trained_on.items() if name != "positives"},
        lesions=count_lesions(known.annotations, splits),
    )
    leakage = describe_leakage(scored.description, splits, known.external)
    warnings = [*leakage, *describe_unscored(scored.predictions), *met.warnings]
    return Said(header, count_by_split(splits), met, warnings)


@torch.inference_mode()
def score_labels(
    task: MaskedClassifier, dataset: FilmDataset, config: EvaluateConfig
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Runs the classifier over films, in order.

    Returns:
        (N, K) probabilities, rows of NaN where one is no number, and (N, gh, gw) what was seen.
    """
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(task)
    scores, visible = [], []
    loader = evaluation_loader(dataset, batch_size=config.batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None):
        out = task({"image": fabric.to_device(batch["image"])})
        scores.append(task.probabilities(out["logits"].double()).cpu())
        visible.append(out["visible"].cpu())
    found = torch.cat(scores).numpy()
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found.clip(0, 1), torch.cat(visible).numpy()


def describe_unscored(predictions: LabelPredictions) -> list[str]:
    """Says how many films have no score."""
    lines = []
    for name, title in (("val", "validation"), ("test", "test")):
        films = predictions.of(name)
        missing = np.flatnonzero(~films.is_scored)
        if len(missing):
            lines.append(
                f"{len(missing)} of {len(films)} {title} films have no score (the first is "
                f"{films.image_id[int(missing[0])]}) and are left out of the figures; look for a diverged training."
            )
    return lines


def count_by_split(splits: Splits) -> list[tuple[str, str]]:
    """How many films there are in each split, and of what, for the head of the report."""
    rows = []
    for title, films in (("Training", splits.train), ("Validation", splits.val), ("Test", splits.test)):
        patients = len({film.patient_id for film in films})
        if splits.labels:
            known = [known_counts([film.labels for film in films], place) for place in range(len(splits.labels))]
            parts = [f"{name} {own} of {of} known" for name, (own, of) in zip(splits.labels, known, strict=True)]
        else:
            labels = [film.label for film in films]
            parts = [f"{labels.count(place)} of {name}" for place, name in enumerate(splits.classes)]
        rows.append((f"{title} films", f"{len(films)} of {patients} patients: {', '.join(parts)}"))
    return rows


def draw_errors(scored: LabelRun, metrics: LabelMetrics) -> list[tuple[ErrorGroup, list[ErrorFilm]]]:
    """The worst errors of each kind, with what the network saw of each film and the lesions that are known."""
    return [
        (group, [draw_film(scored, error.row) for error in group.errors])
        for group in find_label_errors(scored.predictions, metrics, scored.config.worst)
    ]


def draw_film(scored: LabelRun, row: int) -> ErrorFilm:
    """A film of the report, with what the network saw of it and the lesions that are known."""
    image, film = scored.dataset[0, row]["image"][0].numpy(), scored.known.chosen[row]
    height, width = image.shape
    annotations = scored.known.annotations
    lesions = () if annotations is None else annotations.of(film.index)
    return ErrorFilm(
        image_id=film.image_id,
        patient_id=film.patient_id,
        image=image,
        visible=None if scored.finetuned.masker.kind == "none" else scored.visible[row],
        boxes=[
            (x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (lesion.box for lesion in lesions)
        ],
    )
