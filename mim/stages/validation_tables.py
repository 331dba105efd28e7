"""What a run made of its own validation films when it was evaluated, where the films themselves are not at hand."""

from pathlib import Path

from mim.config import FinetuneConfig
from mim.errors import MimError
from mim.evaluation import Detections, Lesions, Predictions, Searched
from mim.evaluation.label_predictions import LabelPredictions
from mim.stages.label_kinds import LabelKind
from mim.stages.measured_detector import read_detector
from mim.stages.measured_labels import read_labels
from mim.stages.measured_run import FinishedRun, read_measured
from mim.stages.tested_films import TestedFilms


def validation_scores(run: Path) -> Predictions:
    """Scores of the validation films, or studies, of a run.

    Raises:
        MimError: there are none of these weights.
    """
    finished = FinishedRun.read(run)
    found = read_measured(finished)
    if found is None:
        raise nothing_to_choose_on(finished, "predictions.csv and metrics.json")
    return found.predictions.of("val")


def validation_labels(run: Path, kind: LabelKind) -> LabelPredictions:
    """Scores of the validation films of a run of several classes, grades or labels.

    Raises:
        MimError: there are none of these weights.
    """
    assert kind != "two"
    finished = FinishedRun.read(run)
    found = read_labels(finished)
    if found is None:
        raise nothing_to_choose_on(finished, "predictions.csv and metrics.json")
    return found.predictions.of("val")


def followed_by_validation(run: Path, detections: Detections, lesions: Lesions) -> tuple[Detections, Lesions]:
    """Puts what a run found on its validation films, and what is there, after other tables.

    Raises:
        MimError: there is nothing of these weights.
    """
    finished = FinishedRun.read(run)
    found = read_detector(finished)
    if found is None:
        raise nothing_to_choose_on(finished, "detections.csv, lesions.csv and metrics.json")
    own = Searched(found.detections, found.lesions).of("val")
    return detections.followed_by(own.detections), lesions.followed_by(own.lesions)


def require_own_films(known: TestedFilms, run: Path, finetuned: FinetuneConfig) -> None:
    """Refuses to measure where only the films themselves could say from which probability on a pixel is drawn.

    Raises:
        MimError: they are not at hand.
    """
    if not known.own_at_hand:
        raise MimError(
            f"{run}: its own films ({finetuned.data.path}) are not here, and the threshold of task={finetuned.task} is "
            "chosen on the pixels of its validation films; say with data_path where they are now"
        )


def nothing_to_choose_on(run: FinishedRun, tables: str) -> MimError:
    """The error where neither validation films nor what was made of them is there."""
    return MimError(
        f"{run.path}: its own films ({run.settings.data.path}) are not here, and neither is what evaluate.py made of "
        f"them ({tables} of these weights), so no threshold can be chosen: evaluate the run where its films are and "
        "bring its folder along, or say with data_path where they are now"
    )
