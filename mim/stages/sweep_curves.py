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
    MEAN_AUROC,
    CurveFigure,
    OnTest,
    ap50_on_test,
    auroc_on_test,
    mean_auroc_on_test,
)
from mim.stages.finetune import join_labels
from mim.stages.label_kinds import label_kind
from mim.stages.measured_detector import MeasuredDetector, measured_detector
from mim.stages.measured_labels import MeasuredLabels, measured_labels
from mim.stages.measured_run import FinishedRun, Measure, MeasuredRun, measured

Swept = MeasuredRun | MeasuredDetector | MeasuredLabels


@dataclass(frozen=True)
class Curve:
    """What is drawn of one kind of run.

    Attributes:
        figure: the figure.
        measure: reads what a run's evaluation says, or makes it.
        on_test: the figure on the test films.
        columns: the figure and further ones of the test, by name, and where `metrics.json` has each.
    """

    figure: CurveFigure
    measure: Callable[[FinishedRun, EvaluateConfig, Measure], Swept]
    on_test: Callable[[Any], OnTest]
    columns: Mapping[str, tuple[str, ...]]

    def figures(self, content: Mapping[str, Any]) -> dict[str, float | None]:
        """The figures of `columns` in a run's metrics.json."""
        found = {}
        for name, place in self.columns.items():
            part: Any = content
            for key in place:
                part = part[key]
            found[name] = part["value"]
        return found


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


_OF_BOXES = ("blocks", "detection")
_SCORES = Curve(
    AUROC,
    _measure_scores,
    lambda own: auroc_on_test(own.predictions),
    MappingProxyType({name: ("test", name) for name in ("auroc", "auprc", "sensitivity", "specificity", "brier")}),
)
_BOXES = Curve(
    AP50,
    _measure_boxes,
    lambda own: ap50_on_test(own.detections, own.lesions),
    MappingProxyType(
        {
            "ap50": (*_OF_BOXES, "coco", "ap50"),
            "ap": (*_OF_BOXES, "coco", "ap"),
            "ar": (*_OF_BOXES, "coco", "ar"),
            "froc": (*_OF_BOXES, "froc", "iou", "score"),
        }
    ),
)
_LABELS = Curve(
    MEAN_AUROC,
    _measure_labels,
    lambda own: mean_auroc_on_test(own.predictions),
    MappingProxyType({"mean_auroc": ("blocks", "labels", "overall", "mean_auroc")}),
)
CURVES: Mapping[str, Curve] = MappingProxyType({"classify": _SCORES, "study": _SCORES, "detect": _BOXES})
"""By task; a classifier of more than two classes, of grades or of several labels has its own."""


def choose_curve(config: FinetuneConfig) -> Curve:
    """What is drawn of runs with these settings; films' labels are read to know how many classes there are.

    Raises:
        MimError: of the task nothing is drawn; or data and labels do not go together.
    """
    if config.task not in CURVES:
        known = " or ".join(CURVES)
        raise MimError(f"of runs with task={config.task} no curve against the number of labels is drawn: give {known}")
    if config.task == "classify" and config.data.labels is not None and config.data.target is not None:
        labelled = join_labels(config)[1]
        if label_kind(config, labelled.labels or labelled.classes) != "two":
            return _LABELS
    return CURVES[config.task]
