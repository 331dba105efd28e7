"""What a detector was measured to find: read where it is still of the run, else measured now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mim.config import EvaluateConfig
from mim.evaluation import Detections, Lesions
from mim.stages.measured_run import FinishedRun, Measure, Tables, read_or_measure, read_tables
from mim.stages.own_tables import gives_average_precision


@dataclass(frozen=True, eq=False)
class MeasuredDetector:
    """A run and what it found on its validation and test films.

    Attributes:
        run: the run.
        detections: what was found.
        lesions: what is there.
        header: what the figures belong to, as `metrics.json` has it.
    """

    run: FinishedRun
    detections: Detections
    lesions: Lesions
    header: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every box has a score."""
        return not bool(np.isnan(self.detections.score).any())


def measured_detector(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredDetector:
    """Reads what a run found, or has it searched where there is nothing of these weights and this split.

    Args:
        run: which.
        config: how it would be evaluated; `run`, `second_run` and `output` are not read.
        measure: evaluates one run.

    Raises:
        MimError: it cannot be evaluated, in one line.
    """
    return read_or_measure(run, config, measure, read_detector)


def read_detector(run: FinishedRun) -> MeasuredDetector | None:
    """Reads the boxes that evaluate.py wrote into a run; None as with `read_tables`."""

    def read(content: Mapping[str, Any], paths: Sequence[Path]) -> Tables[MeasuredDetector]:
        own, lesions = Detections.load(paths[0]), Lesions.load(paths[1])
        found = MeasuredDetector(run, own, lesions, content["header"])
        return Tables(found, own.patient_id, own.split, gives_average_precision(content, own, lesions))

    return read_tables(run, ("detections.csv", "lesions.csv"), read)
