"""Label efficiency for the page and for `sweep.json`."""

from dataclasses import asdict
from typing import Any

from mim.evaluation.curve_figures import CurveFigure
from mim.evaluation.figures import Figure
from mim.evaluation.label_efficiency import LabelEfficiency, Point
from mim.evaluation.label_efficiency_plot import efficiency_plot
from mim.evaluation.measuring import written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Plot, Section, Table

NOTE = (
    "Intervals are over test patients and training seeds together; with few seeds they are somewhat too narrow, and "
    "with one they hold the patients alone. A seed draws the labels that are used as well. They hold no chance of the "
    "pretraining: each initialisation is one run of it."
)
CAPTION = "{} on the test films against the number of labelled films trained on; bars are intervals, dots are seeds."


def label_efficiency_section(found: LabelEfficiency, settings: Settings, baseline: str | None) -> Section:
    """Write a sweep's figures for the page and for `sweep.json`.

    Args:
        found: What `measure_label_efficiency` gave.
        settings: How intervals were made.
        baseline: What the others are compared with; None = nothing.
    """
    title = found.figure.title
    level = f"{settings.confidence * 100:g} % interval"
    rows, differences = [], []
    for point in found.points:
        mean = Figure(point.mean.value, point.mean.low, point.mean.high, point.mean.reason)
        rows.append((point.init, f"{point.fraction:g}", f"{point.labels:.0f}", str(len(point.seeds)), *written(mean)))
        own = point.difference
        if own is not None:
            between = written(Figure(own.value, own.low, own.high, own.reason))
            differences.append((point.init, f"{point.fraction:g}", f"{point.labels:.0f}", str(own.seeds), *between))
    first = ("started from", "share of the labels", "labelled films", "seeds")
    tables = [Table(f"{title} on the test films, mean over the seeds", (*first, title, level), tuple(rows), NOTE)]
    if differences:
        against = f"{title} less that of {baseline}, on the same patients, labels and seeds"
        tables.append(Table(against, (*first, "difference", level), tuple(differences)))
    caption = CAPTION.format(title)
    drawn = any(point.mean.value is not None for point in found.points)
    reasons = sorted({f"Not all could be measured: {p.mean.reason}." for p in found.points if p.mean.reason})
    return Section(
        name="label_efficiency",
        title="What labels are worth",
        text=(f"{found.films} test films of {found.patients} patients, the same for every run.", *reasons),
        tables=tuple(tables),
        plots=(Plot(efficiency_plot(found, caption), caption, "band"),) if drawn else (),
        figures={
            "films": found.films,
            "patients": found.patients,
            "figure": found.figure.name,
            "baseline": baseline,
            "points": [point_figures(point, found.figure) for point in found.points],
        },
        summary=tuple(_say(point, found.figure, settings, baseline) for point in found.points),
    )


def point_figures(point: Point, figure: CurveFigure) -> dict[str, Any]:
    """A point as plain JSON."""
    mean = point.mean
    return {
        "init": point.init,
        "fraction": point.fraction,
        "labels": point.labels,
        "seeds": list(point.seeds),
        f"{figure.name}s": list(mean.values),
        figure.name: {"value": mean.value, "low": mean.low, "high": mean.high, "reason": mean.reason},
        "difference": None if point.difference is None else asdict(point.difference),
    }


def _say(point: Point, figure: CurveFigure, settings: Settings, baseline: str | None) -> str:
    said = f"{point.init}, {point.labels:.0f} labels ({point.fraction:g}), {len(point.seeds)} seeds: "
    if point.mean.value is None:
        return said + f"no {figure.short} ({point.mean.reason})"
    said += f"{figure.short} {point.mean.value:.3f}"
    if point.mean.low is not None:
        said += f" ({settings.confidence * 100:g} % interval {point.mean.low:.3f} to {point.mean.high:.3f})"
    own = point.difference
    if own is not None and own.value is not None:
        said += f", {own.value:+.3f} against {baseline}"
        if own.low is not None:
            said += f" ({own.low:+.3f} to {own.high:+.3f})"
    return said
