"""What a sweep measures of each kind of run: the figure that is drawn, and those that stand in its tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mim.config import EvaluateConfig, FinetuneConfig
from mim.errors import MimError
from mim.evaluation.curve_figures import (
    AP50,
    AUROC,
    LESION_DICE,
    MEAN_AUROC,
    CurveFigure,
    OnTest,
    ap50_on_test,
    auroc_on_test,
    lesion_dice_on_test,
    mean_auroc_on_test,
)
from mim.stages.finetune import join_labels
from mim.stages.label_kinds import label_kind
from mim.stages.measured_detector import MeasuredDetector, measured_detector
from mim.stages.measured_labels import MeasuredLabels, measured_labels
from mim.stages.measured_run import FinishedRun, Measure, MeasuredRun, measured
from mim.stages.measured_segmenter import MeasuredSegmenter, measured_segmenter

Swept = MeasuredRun | MeasuredDetector | MeasuredLabels | MeasuredSegmenter


@dataclass(frozen=True)
class Curve:
    """What is drawn of one kind of run.

    Attributes:
        figure: the figure.
        measure: reads what a run's evaluation says, or makes it.
        on_test: the figure on the test films.
        columns: names of the figure and of further ones of the test.
        block: the part of `metrics.json` that has them by these names.
    """

    figure: CurveFigure
    measure: Callable[[FinishedRun, EvaluateConfig, Measure], Swept]
    on_test: Callable[[Any], OnTest]
    columns: tuple[str, ...]
    block: Callable[[Mapping[str, Any]], Mapping[str, Any]]

    def figures(self, content: Mapping[str, Any]) -> dict[str, float | None]:
        """The figures of `columns` in a run's metrics.json."""
        block = self.block(content)
        return {name: block[name]["value"] for name in self.columns}


def _measure_scores(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredRun:
    found = measured(run, config, measure)
    if unscored := int(np.isnan(found.predictions.of("test").score).sum()):
        raise MimError(f"{run.path}: {unscored} test films have no score; look for a diverged training")
    return found


def _measure_labels(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredLabels:
    found = measured_labels(run, config, measure)
    if unscored := int((~found.predictions.of("test").is_scored).sum()):
        raise MimError(f"{run.path}: {unscored} test films have no score; look for a diverged training")
    return found


def _measure_boxes(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredDetector:
    found = measured_detector(run, config, measure)
    if not found.whole:
        raise MimError(f"{run.path}: some boxes have no score; look for a diverged training")
    return found


def _measure_masks(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredSegmenter:
    found = measured_segmenter(run, config, measure)
    if not found.whole:
        raise MimError(f"{run.path}: some films have no masks; look for a diverged training")
    return found


def _of_boxes(content: Mapping[str, Any]) -> Mapping[str, Any]:
    block = content["blocks"]["detection"]
    return {**block["coco"], "froc": block["froc"]["iou"]["score"]}


def _of_masks(content: Mapping[str, Any]) -> Mapping[str, Any]:
    blocks: Mapping[str, Any] = content["blocks"]
    several = blocks.get("segmentation_classes")
    block: Mapping[str, Any] = blocks["segmentation"] if several is None else several["mean"]
    return block


_SCORES = Curve(
    AUROC,
    _measure_scores,
    lambda own: auroc_on_test(own.predictions),
    ("auroc", "auprc", "sensitivity", "specificity", "brier"),
    lambda content: content["test"],
)
_BOXES = Curve(
    AP50,
    _measure_boxes,
    lambda own: ap50_on_test(own.detections, own.lesions),
    ("ap50", "ap", "ar", "froc"),
    _of_boxes,
)
_LABELS = Curve(
    MEAN_AUROC,
    _measure_labels,
    lambda own: mean_auroc_on_test(own.predictions),
    ("mean_auroc",),
    lambda content: content["blocks"]["labels"]["overall"],
)
_MASKS = Curve(
    LESION_DICE,
    _measure_masks,
    lambda own: lesion_dice_on_test(own.images),
    ("lesion_dice", "dice", "surface", "lesions_found"),
    _of_masks,
)
CURVES: Mapping[str, Curve] = MappingProxyType(
    {"classify": _SCORES, "study": _SCORES, "detect": _BOXES, "segment": _MASKS}
)
"""By task; a classifier of more than two classes, of grades or of several labels has its own."""


def choose_curve(config: FinetuneConfig) -> Curve:
    """What is drawn of runs with these settings; films' labels are read to know how many classes there are.

    Raises:
        MimError: data and labels do not go together.
    """
    if config.task == "classify" and config.data.labels is not None and config.data.target is not None:
        labelled = join_labels(config)[1]
        if label_kind(config, labelled.labels or labelled.classes) != "two":
            return _LABELS
    return CURVES[config.task]
