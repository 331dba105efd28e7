"""What a segmenter was measured to draw: read where it is still of the run, else measured now."""

import json
from dataclasses import dataclass
from typing import Any

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import SegmentedClasses, Threshold
from mim.stages.common import logger
from mim.stages.measured_run import FinishedRun, Measure, is_of_run, read_or_measure

TABLES = ("metrics.json", "segmentation.csv")


@dataclass(frozen=True, eq=False)
class MeasuredSegmenter:
    """A run and how well it drew the masks of its validation and test films.

    Attributes:
        run: the run.
        images: what was measured, by class.
        thresholds: the probability from which a pixel was drawn, a class each.
        tolerance: how far apart borders may lie, in pixels of the film.
        empty_truth: the rule for films without a lesion.
        header: what the figures belong to, as `metrics.json` has it.
    """

    run: FinishedRun
    images: SegmentedClasses
    thresholds: tuple[Threshold, ...]
    tolerance: float
    empty_truth: str
    header: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every film could be measured."""
        wanted = {(row.image_id, row.split) for row in self.run.rows if row.split in ("val", "test")}
        return wanted <= set(zip(self.images.image_id, self.images.split, strict=True))


def measured_segmenter(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredSegmenter:
    """Reads what a run drew, or has it measured where there is nothing of these weights and this split.

    Args:
        run: which.
        config: how it would be evaluated; `run`, `second_run` and `output` are not read.
        measure: evaluates one run.

    Raises:
        MimError: it cannot be evaluated, or was measured with other settings than these, in one line.
    """
    found = read_or_measure(run, config, measure, read_segmenter)
    asked = config.segmentation
    for name, was, wanted in (
        ("tolerance", found.tolerance, asked.tolerance),
        ("empty_truth", found.empty_truth, asked.empty_truth),
    ):
        if was != wanted:
            raise MimError(
                f"{run.path}: was measured with segmentation.{name}={was}, and segmentation.{name} is {wanted}: give "
                f"segmentation.{name}={was}, or evaluate it again first"
            )
    return found


def read_segmenter(run: FinishedRun) -> MeasuredSegmenter | None:
    """Reads what evaluate.py wrote into a run; None where it did not, or where that is of other weights or films."""
    paths = [run.path / name for name in TABLES]
    if not all(path.is_file() for path in paths):
        return None
    try:
        content = json.loads(paths[0].read_text(encoding="utf-8"))
        header, blocks, classes = content["header"], content["blocks"], run.description.classes
        several = len(classes) > 1
        block = blocks["segmentation_classes" if several else "segmentation"]
        chosen = [own["figures"]["threshold"] for own in block["classes"]] if several else [block["threshold"]]
        images = SegmentedClasses.load(paths[1], classes)
        of_run = is_of_run(run, header, images.patient_id, images.split)
        found = MeasuredSegmenter(
            run,
            images,
            tuple(Threshold(own["value"], own["reason"]) for own in chosen),
            float(block["tolerance"]),
            str(block["empty_truth"]),
            header,
        )
    except (MimError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its evaluation cannot be read (%s) and is made again", run.path, error)
        return None
    if not of_run:
        logger.warning("%s: its evaluation is of other weights or of another split and is made again", run.path)
        return None
    return found
