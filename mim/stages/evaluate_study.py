"""Evaluation of a run on studies: predictions, how much each film counted, figures and a report."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.data import PreparedDataset
from mim.data.loader import evaluation_loader
from mim.data.studies import ABSENT, Study, StudySplits
from mim.data.study_loader import StudyDataset
from mim.evaluation import (
    Case,
    Metrics,
    Predictions,
    Section,
    Settings,
    admit,
    choose_worst,
    evaluate_predictions,
    write_report,
)
from mim.evaluation.calibration_section import calibration_section
from mim.evaluation.decision_curve import decision_section
from mim.evaluation.model_card import facts_of_evaluation
from mim.evaluation.operating_points import operating_points_section
from mim.evaluation.strata_section import strata_section
from mim.files import write_atomically
from mim.stages.evaluate import describe_leakage, make_header, open_finished, rebuild, summarise
from mim.stages.external import Opened, films_to_measure
from mim.stages.finetune import known_lesions
from mim.stages.groups import with_study_groups
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import look_for_copies
from mim.stages.study import labelled_studies, load_study_classifier, make_study_dataset
from mim.stages.study_mask import studies_mask
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import validation_scores
from mim.stages.write_evaluation import output_of, write_evaluation
from mim.tasks import MaskedStudyClassifier
from mim.training import make_fabric

WEIGHT_COLUMNS = ("study_id", "patient_id", "split", "position", "image_id", "present", "weight", "share")
NOTE = "Each row of this evaluation is a study of several films: where the report says film, read study."


@dataclass(frozen=True)
class ScoredStudies:
    """What the classifier made of some studies, in their order.

    Attributes:
        score: probability of the second class, (N,).
        keep_rate: (N,) share of the cells that was looked at.
        weights: for each study the weights of its films, 0 for an absent one.
        visible: for each study (F, gh, gw) bool, what was visible of the films that are there; None where nothing
            hides cells.
    """

    score: NDArray[np.float64]
    keep_rate: NDArray[np.float64]
    weights: list[NDArray[np.float64]]
    visible: list[NDArray[np.bool_]] | None = None


def evaluate_studies(config: EvaluateConfig) -> Path:
    """Measures a run on its test studies; writes report.html, metrics.json, predictions.csv and film_weights.csv.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    found = films_to_measure(Opened(config, run, finetuned, description), own_studies, "labels, studies or splits")
    studies, external = found.studies, found.external
    assert studies is not None
    chosen = (*studies.val, *studies.test)
    groups = found.groups_for(config, finetuned)
    dataset = make_study_dataset(finetuned, found.films, chosen, description.encoder.image_size, training=False)
    scored = score_studies(load_study_classifier(run, finetuned, description), dataset, config)
    every_study = with_study_groups(study_predictions(studies, scored), groups, chosen)
    if not found.own_at_hand:
        every_study = every_study.followed_by(validation_scores(run))
    admitted = admit(every_study)
    predictions = admitted.predictions
    metrics = evaluate_predictions(
        predictions,
        bootstrap=config.bootstrap,
        confidence=config.confidence,
        specificity=config.specificity,
        seed=config.seed,
    )
    hidden = studies_mask(config, finetuned, found, scored.visible, description.encoder.image_size)
    sections = [*([] if hidden is None else [hidden]), *study_sections(predictions, metrics.settings)]
    met = look_for_copies(finetuned, found.splits)
    header = make_header(run, finetuned, description, found.films, found.chosen, found.splits, met, external=external)
    weighing = finetuned.study.masker if finetuned.study.keep is None else f"sequence, best {finetuned.study.keep}"
    header = replace(
        header,
        more={**header.more, "Weights of films": weighing},
        trained_on=count_studies_trained_on(studies),
    )
    gaps = [line for section in sections for line in section.first_lines]
    leakage = describe_leakage(description, found.splits, external)
    warnings = [NOTE, *leakage, *admitted.warnings, *met.warnings, *gaps]
    reconstructions, why_none = rebuild(finetuned, found.films, found.splits)
    cases = worst_studies(config, chosen, dataset, scored, predictions, metrics)

    def write(output: Path) -> Path:
        every_study.save(output / "predictions.csv")
        write_atomically(output / "film_weights.csv", weights_table(found.films, chosen, every_study, scored))
        metrics.save(output / "metrics.json", header, warnings, sections)
        return write_report(
            output,
            metrics,
            predictions,
            cases,
            reconstructions,
            header,
            warnings,
            sections=sections,
            why_no_reconstructions=why_none,
        )

    facts = facts_of_evaluation(metrics, header, warnings, sections) | facts_of_run(finetuned, description, met)
    output = output_of(config, run, header)
    figures = [line.replace(" films of ", " studies of ", 1) for line in summarise(metrics, config.confidence)]
    summaries = (line for section in sections for line in section.summary)
    lines = [*figures, *summaries, f"weights of films: {output / 'film_weights.csv'}"]
    said = [*warnings, *metrics.warnings]
    return write_evaluation(output, header, met, facts, said, write, lines, unsaid=1)  # NOTE is of the report


def own_studies(finetuned: FinetuneConfig) -> TestedFilms:
    """Opens the studies of a run, as its training did."""
    found = labelled_studies(finetuned)
    lesions = known_lesions(finetuned.data, found.films)
    return TestedFilms(found.films, found.splits, found.hash(), lesions, found.studies)


def count_studies_trained_on(studies: StudySplits) -> dict[str, int]:
    """Studies, patients and positive studies of the training; nothing where they are not at hand."""
    if not studies.train:
        return {}
    return {
        "films": len(studies.train),
        "patients": len({study.patient_id for study in studies.train}),
        "positives": sum(study.label for study in studies.train),
    }


def study_sections(predictions: Predictions, settings: Settings) -> list[Section]:
    """The blocks of the report that need the table of predictions alone."""
    groups = strata_section(predictions, settings)
    return [
        operating_points_section(predictions, settings),
        calibration_section(predictions, settings),
        decision_section(predictions, settings),
        *([] if groups is None else [groups]),
    ]


@torch.inference_mode()
def score_studies(task: MaskedStudyClassifier, dataset: StudyDataset, config: EvaluateConfig) -> ScoredStudies:
    """Runs the classifier over studies, in order."""
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(task)
    scores, kept, weights = [], [], []
    visible: list[NDArray[np.bool_]] = []
    loader = evaluation_loader(dataset, batch_size=config.batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None):
        out = task({name: fabric.to_device(batch[name]) for name in ("image", "present")})
        scores.append(out["logits"].double().softmax(dim=1)[:, 1].cpu())
        kept.append(out["keep_rate"].double().cpu())
        for index, own in zip(batch["index"], out["weight"].double().cpu(), strict=True):
            weights.append(own[: len(dataset.studies[int(index)].films)].numpy())
        if "visible" in out:
            counts = batch["present"].sum(dim=1).tolist()
            visible += [own.numpy() for own in out["visible"].cpu().split(counts)]
    return ScoredStudies(torch.cat(scores).numpy(), torch.cat(kept).clamp(0, 1).numpy(), weights, visible or None)


def study_names(studies: Sequence[Study]) -> list[str]:
    """A name for each study: its hashed id, with the patient's where two patients have the same."""
    counts = Counter(study.study_id for study in studies)
    return [
        study.study_id if counts[study.study_id] == 1 else f"{study.patient_id}-{study.study_id}" for study in studies
    ]


def study_predictions(studies: StudySplits, scored: ScoredStudies) -> Predictions:
    """Joins scores to who and what was scored: the validation studies, then the test studies."""
    chosen = (*studies.val, *studies.test)
    return Predictions(
        image_id=study_names(chosen),
        patient_id=[study.patient_id for study in chosen],
        split=["val"] * len(studies.val) + ["test"] * len(studies.test),
        label=np.array([study.label for study in chosen]),
        score=scored.score,
        keep_rate=scored.keep_rate,
    )


def weights_table(
    films: PreparedDataset, chosen: Sequence[Study], predictions: Predictions, scored: ScoredStudies
) -> str:
    """film_weights.csv: a row a film, in the order of its study; `share` is its part of the study's weights."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(WEIGHT_COLUMNS)
    for row, (study, weights) in enumerate(zip(chosen, scored.weights, strict=True)):
        named = (predictions.image_id[row], study.patient_id, predictions.split[row])
        for position, (film, weight) in enumerate(zip(study.films, weights, strict=True), 1):
            image = "" if film == ABSENT else films.rows[film].image_id
            figures = (f"{weight:.6g}", f"{weight / weights.sum():.6g}")
            writer.writerow((*named, position, image, int(film != ABSENT), *figures))
    return text.getvalue()


def worst_studies(
    config: EvaluateConfig,
    chosen: Sequence[Study],
    dataset: StudyDataset,
    scored: ScoredStudies,
    predictions: Predictions,
    metrics: Metrics,
) -> list[Case]:
    """The most confident errors of each kind, each by the film that counted most; `predictions` are those scored."""
    missed, alarmed = choose_worst(predictions, metrics.threshold.value, config.worst)
    scored_rows = np.flatnonzero(np.isfinite(scored.score))  # the rows of `predictions`
    cases = []
    for place in (*missed, *alarmed):
        row = int(scored_rows[place])
        first = int(scored.weights[row].argmax())
        cases.append(
            Case(
                image_id=f"{predictions.image_id[place]}, film {first + 1} of {len(chosen[row].films)}",
                patient_id=predictions.patient_id[place],
                label=int(predictions.label[place]),
                score=float(predictions.score[place]),
                image=dataset[0, row]["image"][first, 0].numpy(),
                visible=None if scored.visible is None else scored.visible[row][_place(chosen[row], first)],
                boxes=[],
            )
        )
    return cases


def _place(study: Study, position: int) -> int:
    """Place of a film among those of its study that are there."""
    return sum(film != ABSENT for film in study.films[:position])
