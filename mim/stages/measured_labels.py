"""What a run of more than two classes, of grades or of several labels said: read where it is still of the run."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation.label_predictions import LabelPredictions
from mim.stages.common import logger
from mim.stages.measured_run import FinishedRun, Measure, is_of_run, read_or_measure

TABLES = ("metrics.json", "predictions.csv")


@dataclass(frozen=True, eq=False)
class MeasuredLabels:
    """A run and what it says of its validation and test films.

    Attributes:
        run: the run.
        predictions: its scores.
        header: what the figures belong to, as `metrics.json` has it.
    """

    run: FinishedRun
    predictions: LabelPredictions
    header: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every film has scores."""
        return bool(self.predictions.is_scored.all())


def measured_labels(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredLabels:
    """Reads the predictions of a run, or makes them where there are none of these weights and this split.

    Args:
        run: which.
        config: how it would be evaluated; `run`, `second_run` and `output` are not read.
        measure: evaluates one run.

    Raises:
        MimError: it cannot be evaluated, in one line.
    """
    return read_or_measure(run, config, measure, read_labels)


def read_labels(run: FinishedRun) -> MeasuredLabels | None:
    """Reads what evaluate.py wrote into a run; None where it did not, or where that is of other weights or films."""
    paths = [run.path / name for name in TABLES]
    kind = run.labels
    if kind == "two" or not all(path.is_file() for path in paths):
        return None
    try:
        content = json.loads(paths[0].read_text(encoding="utf-8"))
        header = content["header"]
        predictions = LabelPredictions.load(paths[1], kind)
        of_run = is_of_run(run, header, predictions.patient_id, predictions.split)
        of_figures = gives_figures(content, predictions)
    except (MimError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its evaluation cannot be read (%s) and is made again", run.path, error)
        return None
    if not of_run or predictions.names != tuple(run.description.classes):
        logger.warning("%s: its evaluation is of other weights or of another split and is made again", run.path)
        return None
    if not of_figures:
        logger.warning("%s: its metrics.json is not of its predictions.csv; both are made again", run.path)
        return None
    return MeasuredLabels(run, predictions, header)


def gives_figures(content: Mapping[str, Any], predictions: LabelPredictions) -> bool:
    """Whether scores give the numbers of test films and the Brier score that are written of each question.

    Args:
        content: of metrics.json.
        predictions: what stands beside it.

    Raises:
        KeyError: `content` lacks a part.
    """
    told = {question["name"]: question["test"] for question in content["blocks"]["labels"]["questions"]}
    for place, name in enumerate(predictions.questions):
        own = predictions.question(place).of("test")
        if (len(own), int(own.label.sum())) != (told[name]["films"], told[name]["positives"]):
            return False
        written = told[name]["brier"]["value"]
        found = float(((own.score - own.label) ** 2).mean()) if len(own) else None
        if (written is None) != (found is None):
            return False
        if written is not None and not math.isclose(written, found or 0.0, rel_tol=1e-9, abs_tol=1e-9):
            return False
    return True
