"""What a run of more than two classes, of grades or of several labels said: read where it is still of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation.label_predictions import LabelPredictions
from mim.stages.measured_run import FinishedRun, Measure, Tables, read_or_measure, read_tables
from mim.stages.own_tables import gives_brier_scores


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
    """Reads the scores that evaluate.py wrote into a run; None as with `read_tables`."""
    kind = run.labels
    if kind == "two":
        return None

    def read(content: Mapping[str, Any], paths: Sequence[Path]) -> Tables[MeasuredLabels]:
        own = LabelPredictions.load(paths[0], kind)
        if own.names != tuple(run.description.classes):
            raise MimError(f"{paths[0]} is of other classes than the run")
        found = MeasuredLabels(run, own, content["header"])
        return Tables(found, own.patient_id, own.split, gives_brier_scores(content, own))

    return read_tables(run, ("predictions.csv",), read)
