"""Evaluation: predictions, figures and a report from a run of fine-tuning."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from mim import __version__
from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.data import LabelledFilm, PreparedDataset, Splits, count_copies, split_hash
from mim.data.annotations import Annotations
from mim.data.loader import FilmDataset, evaluation_loader
from mim.errors import MimError
from mim.evaluation import (
    Case,
    Figure,
    Header,
    Metrics,
    Predictions,
    Reconstruction,
    admit,
    choose_worst,
    evaluate_predictions,
    write_report,
)
from mim.evaluation.external import ExternalTest
from mim.evaluation.model_card import facts_of_evaluation
from mim.stages.blocks import BLOCKS
from mim.stages.classifier import TaskDescription, load_classifier
from mim.stages.common import content_hash, logger
from mim.stages.evaluation_context import EvaluationContext, Scored
from mim.stages.explain import explain_worst
from mim.stages.external import Opened, films_to_measure
from mim.stages.finetune import known_lesions, labelled_films, make_dataset
from mim.stages.finished_run import load_init, read_finished
from mim.stages.groups import with_film_groups
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import CopiesMet, look_for_copies
from mim.stages.pretrain_films import make_dataset as make_pretraining_dataset
from mim.stages.pretrain_pictures import PICTURED_FILMS, reconstruct
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import validation_scores
from mim.stages.write_evaluation import output_of, write_evaluation
from mim.tasks import MaskedClassifier
from mim.training import make_fabric


def evaluate(config: EvaluateConfig) -> Path:
    """Measures a run on its test films and writes report.html, model_card.md, metrics.json and the tables behind them.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    known = films_to_measure(Opened(config, run, finetuned, description), own_labelled, "labels or splits")
    context, every_film, unscored = measure(config, run, finetuned, description, known)
    splits, metrics = context.splits, context.metrics
    sections = [section for block in BLOCKS if (section := block(context)) is not None]
    met = look_for_copies(finetuned, splits)
    header = replace(
        make_header(run, finetuned, description, known.films, context.chosen, splits, met, external=known.external),
        lesions=count_lesions(known.annotations, splits),
    )
    gaps = [line for section in sections for line in section.first_lines]
    warnings = [*describe_leakage(description, splits, known.external), *unscored, *met.warnings, *gaps]
    reconstructions, why_none = rebuild(finetuned, known.films, splits)
    cases = worst_cases(context, explain_worst(context, sections))

    def write(output: Path) -> Path:
        every_film.save(output / "predictions.csv")
        metrics.save(output / "metrics.json", header, warnings, sections)
        return write_report(
            output,
            metrics,
            context.predictions,
            cases,
            reconstructions,
            header,
            warnings,
            sections=sections,
            why_no_reconstructions=why_none,
        )

    facts = facts_of_evaluation(metrics, header, warnings, sections) | facts_of_run(finetuned, description, met)
    lines = [*summarise(metrics, config.confidence), *(line for section in sections for line in section.summary)]
    said = [*warnings, *metrics.warnings]
    return write_evaluation(output_of(config, run, header), header, met, facts, said, write, lines)


def measure(
    config: EvaluateConfig, run: Path, finetuned: FinetuneConfig, description: TaskDescription, known: TestedFilms
) -> tuple[EvaluationContext, Predictions, tuple[str, ...]]:
    """Scores films and computes the figures.

    Returns:
        What the blocks of the report are made from; the table of all films; and a sentence for each thing that has no
        score and is left out of the former.
    """
    splits, size = known.splits, description.encoder.image_size
    groups = known.groups_for(config, finetuned)
    dataset = make_dataset(finetuned, known.films, known.chosen, size, training=False)
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(load_classifier(run, finetuned, description))
    scored = score_films(task, dataset, fabric, config.batch_size)
    every_film = with_film_groups(to_predictions(splits, scored), groups, known.chosen)
    if not known.own_at_hand:
        every_film = every_film.followed_by(validation_scores(run))
    admitted = admit(every_film)
    if len(admitted.predictions) < len(every_film):
        splits, scored = leave_out_unscored(splits, scored)
        dataset = make_dataset(finetuned, known.films, (*splits.val, *splits.test), size, training=False)
    metrics = evaluate_predictions(
        admitted.predictions,
        bootstrap=config.bootstrap,
        confidence=config.confidence,
        specificity=config.specificity,
        seed=config.seed,
    )
    context = EvaluationContext(
        config,
        run,
        finetuned,
        description,
        known.films,
        splits,
        known.annotations,
        dataset,
        task,
        fabric,
        scored,
        admitted.predictions,
        metrics,
        external=known.external is not None,
    )
    return context, every_film, admitted.warnings


def own_labelled(finetuned: FinetuneConfig) -> TestedFilms:
    """Opens the labelled films of a run, as its training did."""
    films, splits = labelled_films(finetuned)
    return TestedFilms(films, splits, split_hash(splits), known_lesions(finetuned.data, films))


def open_finished(config: EvaluateConfig) -> tuple[Path, FinetuneConfig, TaskDescription]:
    """Reads the settings and the description of a finished run.

    Raises:
        MimError: it is no run, no run of fine-tuning, or not finished.
    """
    if not config.run:
        raise MimError("which run? give the folder of a run of finetune.py: evaluate.py runs/<name>")
    run = Path(config.run)
    finetuned, description = read_finished(run)
    if config.data_path is not None:
        moved = finetuned.data.model_copy(update={"path": config.data_path})
        finetuned = finetuned.model_copy(update={"data": moved})
    return run, finetuned, description


@torch.inference_mode()
def score_films(task: MaskedClassifier, dataset: FilmDataset, fabric: Fabric, batch_size: int) -> Scored:
    """Runs the classifier over films, in order."""
    scores, visible = [], []
    loader = evaluation_loader(dataset, batch_size=batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None):
        out = task({"image": fabric.to_device(batch["image"])})
        scores.append(out["logits"].double().softmax(dim=1)[:, 1].cpu())
        visible.append(out["visible"].cpu())
    return Scored(torch.cat(scores).numpy(), torch.cat(visible).numpy())


def to_predictions(splits: Splits, scored: Scored) -> Predictions:
    """Joins scores to who and what was scored: the validation films, then the test films."""
    chosen = (*splits.val, *splits.test)
    return Predictions(
        image_id=[film.image_id for film in chosen],
        patient_id=[film.patient_id for film in chosen],
        split=["val"] * len(splits.val) + ["test"] * len(splits.test),
        label=np.array([film.label for film in chosen]),
        score=scored.score,
        keep_rate=scored.visible.mean(axis=(1, 2)),
    )


def leave_out_unscored(splits: Splits, scored: Scored) -> tuple[Splits, Scored]:
    """Leaves out validation and test films whose score is not a number, so that rows go on belonging together."""
    known = np.isfinite(scored.score)
    val = tuple(film for film, keep in zip(splits.val, known[: len(splits.val)], strict=True) if keep)
    test = tuple(film for film, keep in zip(splits.test, known[len(splits.val) :], strict=True) if keep)
    return replace(splits, val=val, test=test), Scored(scored.score[known], scored.visible[known])


def make_header(
    run: Path,
    finetuned: FinetuneConfig,
    description: TaskDescription,
    films: PreparedDataset,
    chosen: tuple[LabelledFilm, ...],
    splits: Splits,
    met: CopiesMet,
    target: str | None = None,
    external: ExternalTest | None = None,
) -> Header:
    """What the figures belong to, in hashes; the target is the label column's classes where it is not given.

    Of an external test set the hash of the data is that of the test films alone.
    """
    start = "the pretrained encoder" if finetuned.init and finetuned.init_weights else "fresh weights"
    chosen_encoder = finetuned.encoder
    if chosen_encoder and (chosen_encoder.pretrained or chosen_encoder.weights) and start == "fresh weights":
        start = "published weights"
    return Header(
        target=target or f"{finetuned.data.target}: {description.classes[1]} against {description.classes[0]}",
        data=content_hash(films, [film.index for film in (chosen if external is None else splits.test)])[:16],
        split=description.split_hash[:16],
        checkpoint=hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()[:16],
        version=__version__,
        seed=finetuned.seed,
        image_size=description.encoder.image_size,
        trained_on=count_trained_on(splits),
        near_copies=met.counts,
        external=external,
        more={
            "Backbone": f"{description.encoder.name}, hidden cells: {description.encoder.hidden}",
            "Started from": start,
            "Input masker": finetuned.masker.kind,
        },
    )


def count_trained_on(splits: Splits) -> dict[str, int]:
    """Films, patients and positive films of the training; nothing where its films are not at hand."""
    if not splits.train:
        return {}
    return {
        "films": len(splits.train),
        "patients": len({film.patient_id for film in splits.train}),
        "positives": sum(film.label for film in splits.train),
    }


def count_lesions(annotations: Annotations | None, splits: Splits) -> dict[str, int]:
    """Lesions that readers marked on the validation and test films; nothing where none are known."""
    if annotations is None:
        return {}
    return {
        name: sum(len(annotations.of(film.index)) for film in films)
        for name, films in (("val", splits.val), ("test", splits.test))
        if films or name == "test"
    }


def describe_leakage(description: TaskDescription, splits: Splits, external: ExternalTest | None = None) -> list[str]:
    """What a reader must know about films met before; of an external test set, about all of it."""
    said = [] if external is None else external.first_lines
    met = description.met_in_pretraining if external is None else 0  # of the run's own test films
    if met:
        said.append(
            f"{met} of {len(splits.test)} test films, or other films of their patients, were met in pretraining "
            "(without labels): the test is not of patients never met."
        )
    if copies := count_copies(splits):
        said.append(
            f"{copies} of {len(splits.val) + len(splits.test)} validation and test films have the same pixels as a "
            "film that was trained on: the figures are too good."
        )
    return said


def rebuild(finetuned: FinetuneConfig, films: PreparedDataset, splits: Splits) -> tuple[list[Reconstruction], str]:
    """Reconstructs some test films by the pretraining run's decoder; else says why not."""
    try:
        loaded = load_init(finetuned)
    except MimError as error:
        logger.warning("no reconstructions: %s", error)
        return [], "None are shown: the pretraining run that this model started from is no longer at hand."
    if loaded is None:
        return [], "None are shown: this model did not start from a pretraining run."
    pretrained, task = loaded
    if not task.draws:
        return [], "None are shown: pixels were not among the targets of the pretraining run."
    indices = [film.index for film in splits.test[:PICTURED_FILMS]]
    dataset = make_pretraining_dataset(pretrained, task, films, indices, training=False)
    batch: dict[str, Tensor] = default_collate([dataset[0, place] for place in range(len(dataset))])
    return reconstruct(task, batch), ""


def worst_cases(context: EvaluationContext, explained: Mapping[int, tuple[NDArray[np.float64], str]]) -> list[Case]:
    """The most confident errors of each kind, with the mask and, where known, lesions and explanation by row."""
    annotations, predictions = context.annotations, context.predictions
    missed, alarmed = choose_worst(predictions, context.metrics.threshold.value, context.config.worst)
    cases = []
    for row in (*missed, *alarmed):
        image = context.dataset[0, row]["image"][0].numpy()
        height, width = image.shape
        lesions = () if annotations is None else annotations.of(context.chosen[row].index)
        scores, meaning = explained.get(row, (None, ""))
        cases.append(
            Case(
                image_id=predictions.image_id[row],
                patient_id=predictions.patient_id[row],
                label=int(predictions.label[row]),
                score=float(predictions.score[row]),
                image=image,
                visible=None if context.finetuned.masker.kind == "none" else context.scored.visible[row],
                boxes=[
                    (x1 * width, y1 * height, x2 * width, y2 * height)
                    for x1, y1, x2, y2 in (lesion.box for lesion in lesions)
                ],
                explanation=scores,
                explained_by=meaning,
            )
        )
    return cases


def summarise(metrics: Metrics, confidence: float) -> list[str]:
    """The figures a reader wants first, a line each."""
    level = f"{confidence * 100:g} % interval"

    def say(title: str, figure: Figure) -> str:
        if figure.value is None:
            return f"{title}: none ({figure.reason})"
        if figure.low is None or figure.high is None or not math.isfinite(figure.low):
            return f"{title} {figure.value:.3f} ({figure.reason})"
        return f"{title} {figure.value:.3f} ({level} {figure.low:.3f} to {figure.high:.3f})"

    test = metrics.test
    lines = [
        f"test: {test.films} films of {test.patients} patients, {test.positives} positive",
        say("test AUC", test.figures["auroc"]),
        say("test AUPRC", test.figures["auprc"]),
    ]
    if metrics.threshold.value is not None:
        lines.append(
            say(f"at the threshold chosen on validation ({metrics.threshold.value:.3f}): sensitivity",
                test.figures["sensitivity"])
        )  # fmt: skip
        lines.append(say("specificity", test.figures["specificity"]))
    lines.append(say("share of cells seen", test.figures["keep_rate"]))
    return lines
