"""Blocks on what acting on a score would do, for each class, cut between grades or label by itself.

Of each question of yes or no (`mim.evaluation.label_questions`): sensitivity at a fixed specificity, and the decision
curve of one who acts on that class or label alone, such as one who drills from a grade on.
"""

from mim.evaluation.class_metrics import LabelMetrics
from mim.evaluation.decision_curve import COLUMNS, curve_json, curve_rows, decision_curve, decision_plot, describe_curve
from mim.evaluation.decision_curve import NOTE as BENEFIT_NOTE
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import MOST_SHOWN
from mim.evaluation.measuring import written
from mim.evaluation.metrics import Settings
from mim.evaluation.operating_points import NOTE, operating_points, points_json
from mim.evaluation.section import Section, Table

SHOWN = (0.1, 0.3, 0.5)
OF_CLASSES = (
    "Each curve is that of one who acts on this class alone and treats all other classes alike; where classes call for "
    "different acts, none of the curves says which is best."
)


def label_points_section(predictions: LabelPredictions, settings: Settings) -> Section:
    """Give sensitivity at specificity 0.90 and 0.95, for the report and for `metrics.json`."""
    rows, figures, reasons = [], {}, set()
    for place, name in enumerate(predictions.questions):
        points = operating_points(predictions.question(place), settings)
        figures[name] = points_json(points)
        for point in points:
            cells = [f"{name}, at {point.specificity:.2f}"]
            cells.append("–" if point.threshold.value is None else f"{point.threshold.value:.3f}")
            for figure in point.figures.values():
                cells += written(figure)
                if figure.reason:
                    reasons.add(figure.reason)
            rows.append(tuple(cells))
    columns = ["Class or label, and specificity asked for", "Threshold from validation"]
    for title in ("Sensitivity at it", "Specificity at it", "Sensitivity, read from the test ROC curve"):
        columns += [title, "interval"]
    return Section(
        name="label_operating_points",
        title="Sensitivity at a fixed specificity",
        text=tuple(f"Not all could be computed: {reason}." for reason in sorted(reasons)),
        tables=(Table("Test films at thresholds for a specificity", tuple(columns), tuple(rows), NOTE),),
        figures=figures,
    )


def label_usefulness_section(predictions: LabelPredictions, metrics: LabelMetrics) -> Section:
    """Give decision curves of the test films, for the report and for `metrics.json`."""
    text, rows, plots, figures = [], [], [], {}
    for place, name in enumerate(predictions.questions):
        films = predictions.question(place).of("test")
        curve = decision_curve(films, metrics.settings)
        figures[name] = curve_json(curve)
        if place >= MOST_SHOWN:
            continue
        text.append(f"{name}: {describe_curve(curve)}")
        if len(films):
            rows += [(f"{name}, from {at}", *cells) for at, *cells in curve_rows(curve, SHOWN)]
            plots.append(decision_plot(curve, metrics.settings, f"{name}: decision curve", f"decision{place}"))
    if predictions.kind == "classes":
        text.append(OF_CLASSES)
    if (left := len(figures) - MOST_SHOWN) > 0:
        text.append(f"{left} more are in metrics.json only.")
    heading = (f"Class or label, and {COLUMNS[0].lower()}", *COLUMNS[1:])
    return Section(
        name="label_usefulness",
        title="Clinical usefulness",
        text=tuple(text),
        tables=(Table("Net benefit on the test films", heading, tuple(rows), BENEFIT_NOTE),) if rows else (),
        plots=tuple(plots),
        figures=figures,
    )
