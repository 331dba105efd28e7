"""What a detector was measured to find: read where it is still of the run, else measured now."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import Detections, Lesions
from mim.stages.common import logger
from mim.stages.measured_run import FinishedRun, Measure, is_of_run, read_or_measure
from mim.stages.own_tables import gives_average_precision

TABLES = ("metrics.json", "detections.csv", "lesions.csv")


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
    """Reads what evaluate.py wrote into a run; None where it did not, or where that is of other weights or films."""
    paths = [run.path / name for name in TABLES]
    if not all(path.is_file() for path in paths):
        return None
    try:
        content = json.loads(paths[0].read_text(encoding="utf-8"))
        header = content["header"]
        detections, lesions = Detections.load(paths[1]), Lesions.load(paths[2])
        of_run = is_of_run(run, header, detections.patient_id, detections.split)
        of_figures = gives_average_precision(content, detections, lesions)
    except (MimError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its evaluation cannot be read (%s) and is made again", run.path, error)
        return None
    if not of_run:
        logger.warning("%s: its evaluation is of other weights or of another split and is made again", run.path)
        return None
    if not of_figures:
        logger.warning("%s: its metrics.json is not of its tables; all are made again", run.path)
        return None
    return MeasuredDetector(run, detections, lesions, header)
