"""Evaluation of a run on more than two classes, on grades, or on several labels: predictions, figures and a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mim.config import EvaluateConfig, TrainingConfig
from mim.data import LabelledFilm, Splits, save_near_copies
from mim.data.annotations import Annotations
from mim.data.loader import FilmDataset, evaluation_loader
from mim.evaluation import Settings
from mim.evaluation.class_metrics import measure_labels
from mim.evaluation.external import facts_of_external
from mim.evaluation.label_card import facts_of_labels
from mim.evaluation.label_errors import find_label_errors
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_report import ErrorFilm, write_label_report
from mim.evaluation.label_section import labels_section, left_out_section
from mim.evaluation.model_card import write_model_card
from mim.stages.classifier import load_classifier
from mim.stages.common import logger, write_lines, writing
from mim.stages.evaluate import (
    count_lesions,
    describe_leakage,
    make_header,
    open_finished,
    own_labelled,
)
from mim.stages.external import Opened, films_to_measure
from mim.stages.finetune import make_dataset
from mim.stages.label_kinds import known_counts, label_kind, label_words
from mim.stages.mask_safety import mask_safety
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import FILE as NEAR_COPIES
from mim.stages.near_copies import look_for_copies
from mim.stages.validation_tables import validation_labels
from mim.stages.write_evaluation import output_of
from mim.tasks import MaskedClassifier
from mim.training import make_fabric

OF_TWO_CLASSES = (
    "AUROC behind other masks",
    "operating points at several specificities",
    "calibration slope and temperature",
    "the decision curve",
    "figures by group",
    "missingness",
    "the shape of masks",
    "explanations",
    "reconstructions",
)


def evaluate_labels(config: EvaluateConfig) -> Path:
    """Measures a run on its test films; writes report.html, model_card.md, metrics.json and predictions.csv.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    kind = label_kind(finetuned, description.classes)
    assert kind != "two"
    known = films_to_measure(Opened(config, run, finetuned, description), own_labelled, "labels or splits")
    films, splits, chosen = known.films, known.splits, known.chosen
    dataset = make_dataset(finetuned, films, chosen, description.encoder.image_size, training=False)
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
    if not known.own_at_hand:
        predictions = predictions.followed_by(validation_labels(run, kind))
    settings = Settings(config.bootstrap, config.confidence, config.specificity, config.seed)
    metrics = measure_labels(predictions, settings)
    annotations = known.annotations
    hidden = mask_safety(
        config,
        finetuned,
        visible[len(splits.val) :],
        [film.index for film in splits.test],
        [film.patient_id for film in splits.test],
        annotations,
        description.encoder.image_size,
    )
    sections = [
        *([] if hidden is None else [hidden]),
        labels_section(metrics, predictions),
        left_out_section(OF_TWO_CLASSES),
    ]
    met = look_for_copies(finetuned, splits)
    target = finetuned.data.target if isinstance(finetuned.data.target, str) else ", ".join(finetuned.data.target or ())
    named = f"{target}: {label_words(kind, description.classes)}" if kind != "several" else target
    header = make_header(run, finetuned, description, films, chosen, splits, met, named, known.external)
    header = replace(
        header,
        trained_on={name: count for name, count in header.trained_on.items() if name != "positives"},
        lesions=count_lesions(annotations, splits),
    )
    leakage = describe_leakage(description, splits, known.external)
    warnings = [*leakage, *describe_unscored(predictions), *met.warnings]
    about = count_by_split(splits)
    shown = None if finetuned.masker.kind == "none" else visible
    errors = [
        (group, [draw_film(error.row, dataset, chosen, shown, annotations) for error in group.errors])
        for group in find_label_errors(predictions, metrics, config.worst)
    ]
    said = [*warnings, *(line for section in sections for line in section.first_lines)]
    output = output_of(config, run, header)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        predictions.save(output / "predictions.csv")
        save_near_copies(output / NEAR_COPIES, met.copies)
        facts = facts_of_run(finetuned, description, met) | facts_of_labels(metrics, header, about, said)
        write_model_card(output, facts | facts_of_external(known.external, met.counts), said)
        report = write_label_report(output, sections, settings, header, about, errors, warnings)
    for warning in said:
        logger.warning("%s", warning)
    counted = f"test: {metrics.films} films of {metrics.patients} patients, {label_words(kind, description.classes)}"
    write_lines(counted, *(line for section in sections for line in section.summary), f"report: {report}")
    return output


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
        if not films:
            continue  # of a run whose own films are not at hand
        patients = len({film.patient_id for film in films})
        if splits.labels:
            known = [known_counts([film.labels for film in films], place) for place in range(len(splits.labels))]
            parts = [f"{name} {own} of {of} known" for name, (own, of) in zip(splits.labels, known, strict=True)]
        else:
            labels = [film.label for film in films]
            parts = [f"{labels.count(place)} of {name}" for place, name in enumerate(splits.classes)]
        rows.append((f"{title} films", f"{len(films)} of {patients} patients: {', '.join(parts)}"))
    return rows


def draw_film(
    row: int,
    dataset: FilmDataset,
    chosen: Sequence[LabelledFilm],
    visible: NDArray[np.bool_] | None,
    annotations: Annotations | None,
) -> ErrorFilm:
    """A film of the report, with what the network saw of it and the lesions that are known."""
    image = dataset[0, row]["image"][0].numpy()
    height, width = image.shape
    lesions = () if annotations is None else annotations.of(chosen[row].index)
    return ErrorFilm(
        image_id=chosen[row].image_id,
        patient_id=chosen[row].patient_id,
        image=image,
        visible=None if visible is None else visible[row],
        boxes=[
            (x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (lesion.box for lesion in lesions)
        ],
    )
