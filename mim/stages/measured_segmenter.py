"""What a segmenter was measured to draw: read where it is still of the run, else measured now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import SegmentedClasses, Threshold
from mim.stages.measured_run import FinishedRun, Measure, Tables, read_or_measure, read_tables
from mim.stages.own_tables import gives_dice


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
    """Reads the masks' overlaps that evaluate.py wrote into a run; None as with `read_tables`."""

    def read(content: Mapping[str, Any], paths: Sequence[Path]) -> Tables[MeasuredSegmenter]:
        classes, blocks = run.description.classes, content["blocks"]
        several = len(classes) > 1
        block = blocks["segmentation_classes" if several else "segmentation"]
        chosen = [own["figures"]["threshold"] for own in block["classes"]] if several else [block["threshold"]]
        own = SegmentedClasses.load(paths[0], classes)
        found = MeasuredSegmenter(
            run,
            own,
            tuple(Threshold(threshold["value"], threshold["reason"]) for threshold in chosen),
            float(block["tolerance"]),
            str(block["empty_truth"]),
            content["header"],
        )
        return Tables(found, own.patient_id, own.split, gives_dice(block["mean"] if several else block, own))

    return read_tables(run, ("segmentation.csv",), read)
