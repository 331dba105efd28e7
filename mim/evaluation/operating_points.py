"""Sensitivity where the specificity is fixed: at thresholds from validation, and read from the test ROC curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mim.evaluation.bootstrap import mean_statistic, sensitivity_at_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Section, Table
from mim.evaluation.threshold import Threshold, choose_threshold

SPECIFICITIES = (0.9, 0.95)
NOTE = (
    "The thresholds were fixed on the validation films, so the specificity on the test films is what came out, not "
    "what was asked for. Read from the test ROC curve, the threshold is chosen on the test films themselves, anew in "
    "each resample: the two are different questions, and only the first is what a user gets."
)


@dataclass(frozen=True)
class OperatingPoint:
    """What happens on the test films where a specificity is asked for.

    Attributes:
        specificity: What was asked for.
        threshold: Chosen on the validation films.
        figures: `sensitivity` and `specificity` at that threshold, and `sensitivity_on_test_roc`, the largest
            sensitivity of a test threshold with at least this specificity on the test films.
    """

    specificity: float
    threshold: Threshold
    figures: Mapping[str, Figure]


def operating_points(
    predictions: Predictions, settings: Settings, specificities: Sequence[float] = SPECIFICITIES
) -> list[OperatingPoint]:
    """Measure the test films at one threshold for each specificity.

    Args:
        predictions: Validation and test films that have scores.
        settings: How intervals are made.
        specificities: What is asked for, each from 0 to 1.
    """
    test, val = predictions.of("test"), predictions.of("val")
    reasons = {
        "sensitivity": "the test set has no positive film",
        "specificity": "the test set has no negative film",
        "sensitivity_on_test_roc": "the test set is not of both classes",
    }
    points = []
    for asked in specificities:
        threshold = choose_threshold(val, asked)
        statistics = {}
        why = dict(reasons)
        if len(test):
            statistics["sensitivity_on_test_roc"] = sensitivity_at_statistic(test.label, test.score, asked)
        if threshold.value is not None and len(test):
            called = test.score >= threshold.value
            statistics["sensitivity"] = mean_statistic(called, test.label == 1)
            statistics["specificity"] = mean_statistic(~called, test.label == 0)
        else:
            why |= dict.fromkeys(("sensitivity", "specificity"), threshold.reason or "there are no test films")
        figures = measure(statistics, test.patient_id, settings, labels=test.label, reasons=why)
        missing = {name: Figure(None, None, None, why[name]) for name in reasons if name not in figures}
        points.append(OperatingPoint(asked, threshold, {name: (figures | missing)[name] for name in reasons}))
    return points


def operating_points_section(
    predictions: Predictions, settings: Settings, specificities: Sequence[float] = SPECIFICITIES
) -> Section:
    """Give the table of operating points, for the report and for `metrics.json`."""
    predictions = predictions.scored
    points = operating_points(predictions, settings, specificities)
    rows = [
        (
            f"{point.specificity:.2f}",
            "–" if point.threshold.value is None else f"{point.threshold.value:.3f}",
            *written(point.figures["sensitivity"]),
            *written(point.figures["specificity"]),
            *written(point.figures["sensitivity_on_test_roc"]),
        )
        for point in points
    ]
    columns = ["Specificity asked for", "Threshold from validation"]
    for title in ("Sensitivity at it", "Specificity at it", "Sensitivity, read from the test ROC curve"):
        columns += [title, "interval"]
    said = {point.figures[name].reason for point in points for name in point.figures if point.figures[name].reason}
    return Section(
        name="operating_points",
        title="Sensitivity at a fixed specificity",
        text=tuple(f"Not all could be computed: {reason}." for reason in sorted(filter(None, said))),
        tables=(Table("Test films at thresholds for a specificity", tuple(columns), tuple(rows), NOTE),),
        figures=points_json(points),
    )


def points_json(points: Sequence[OperatingPoint]) -> dict[str, dict[str, Any]]:
    """What `metrics.json` says of them."""
    return {
        f"specificity_{point.specificity:.2f}": {
            "threshold": point.threshold.value,
            **{name: as_json(figure) for name, figure in point.figures.items()},
        }
        for point in points
    }
