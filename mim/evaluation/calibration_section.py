"""The block on calibration: figures before and after temperature scaling, and the reliability diagram."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from mim.evaluation.bootstrap import Floats, Integers, Statistic, divide, mean_statistic
from mim.evaluation.calibration import (
    BINS,
    Temperature,
    bins_of,
    calibration_error_statistic,
    fit_temperature,
    in_the_large_statistic,
    recalibration_statistic,
)
from mim.evaluation.curves import FAINT, NEGATIVE, POSITIVE, draw_plot
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Plot, Section, Table

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "brier": "Brier score",
        "ece_width": f"ECE, {BINS} bins of equal width",
        "ece_mass": f"ECE, {BINS} bins of equal mass",
        "intercept": "Calibration intercept",
        "slope": "Calibration slope",
        "in_the_large": "Calibration in the large",
    }
)
NOTE = (
    "Brier score and ECE: smaller is better. Slope 1 and intercept 0 are right; a slope below 1 says that the scores "
    "are too extreme, calibration in the large above 0 that they are too low on the whole. ECE is never below 0, so it "
    "is above 0 by chance alone, the more so the fewer films there are."
)


@dataclass(frozen=True)
class Bin:
    """Films of similar score: how many, their mean score, and the share of them that is positive."""

    films: int
    mean_score: float
    positives: Figure


def calibration_figures(films: Predictions, scores: Floats, settings: Settings) -> dict[str, Figure]:
    """Measure how well scores are probabilities.

    Args:
        films: Films of one split.
        scores: (N,) in [0, 1], their scores as they are or after scaling.
        settings: How intervals are made.
    """
    errors = {
        "brier": mean_statistic((scores - films.label) ** 2),
        "ece_width": calibration_error_statistic(films.label, scores, bins_of(scores, "width")),
        "ece_mass": calibration_error_statistic(films.label, scores, bins_of(scores, "mass")),
        "in_the_large": in_the_large_statistic(films.label, scores),
    }
    line: dict[tuple[str, ...], Statistic] = {("intercept", "slope"): recalibration_statistic(films.label, scores)}
    one_class = "the films are of one class only"
    both = 0 < films.label.sum() < len(films)
    reasons = dict.fromkeys(TITLES, "there are no films" if not len(films) else one_class)
    if both:
        reasons |= dict.fromkeys(("intercept", "slope"), "the scores part the classes without overlap")
    figures = measure(errors, films.patient_id, settings, jointly=line, labels=films.label, reasons=reasons)
    return {name: figures[name] for name in TITLES}


def reliability(films: Predictions, scores: Floats, settings: Settings) -> list[Bin]:
    """Share of positives among films of similar score, in bins of equal mass; empty bins are left out.

    Args:
        films: Films of one split.
        scores: (N,) in [0, 1].
        settings: How intervals are made.
    """
    members = bins_of(scores, "mass")
    kept = np.unique(members)
    inside = (members[:, None] == kept).astype(np.float64)  # (N, bins)
    positive = inside * films.label[:, None]

    def statistic(weights: Integers) -> Floats:
        return divide(weights @ positive, weights @ inside)

    names = tuple(str(number) for number in kept)
    figures = measure({}, films.patient_id, settings, jointly={names: statistic}) if len(films) else {}
    return [
        Bin(int((members == number).sum()), float(scores[members == number].mean()), figures[str(number)])
        for number in kept
    ]


def calibration_section(predictions: Predictions, settings: Settings) -> Section:
    """Give figures and diagram of calibration on the test films, with a temperature from the validation films."""
    predictions = predictions.scored
    test, val = predictions.of("test"), predictions.of("val")
    temperature = fit_temperature(val.label, val.score)
    plain = calibration_figures(test, test.score, settings)
    scaled = calibration_figures(test, temperature.scale(test.score), settings) if temperature.value else {}
    bins = reliability(test, test.score, settings)
    rows = []
    for name, title in TITLES.items():
        after = written(scaled[name]) if scaled else ("–", "–")
        rows.append((title, *written(plain[name]), *after))
    columns = ("Figure", "as it is", "interval", "after temperature scaling", "interval")
    said = sorted({figure.reason for figure in plain.values() if figure.value is None and figure.reason})
    return Section(
        name="calibration",
        title="Calibration",
        text=(*_describe(temperature), *(f"Not all could be computed: {reason}." for reason in said)),
        tables=(Table("Calibration on the test films", columns, tuple(rows), NOTE),),
        plots=reliability_plots(bins, settings),
        figures={
            "temperature": {"value": temperature.value, "fitted_on": "val", "reason": temperature.reason},
            "test": {name: as_json(figure) for name, figure in plain.items()},
            "test_after_temperature": {name: as_json(figure) for name, figure in scaled.items()} or None,
            "reliability": [
                {"films": own.films, "mean_score": own.mean_score, "positives": as_json(own.positives)} for own in bins
            ],
        },
    )


def _describe(temperature: Temperature) -> tuple[str, ...]:
    if temperature.value is None:
        return (f"No temperature was fitted: {temperature.reason}.",)
    told = "too extreme" if temperature.value > 1 else "not extreme enough"
    return (
        f"The temperature fitted on the validation films is {temperature.value:.3f}: there, the scores are {told}. "
        "Scaling by it changes neither the order of the films nor AUROC.",
    )


def reliability_plots(
    bins: list[Bin],
    settings: Settings,
    what: str = "Reliability diagram of the test films",
    key: str = "reliability",
) -> tuple[Plot, ...]:
    """Draw a reliability diagram; nothing where there are no bins.

    Args:
        bins: What `reliability` gave.
        settings: How intervals were made.
        what: How the caption begins.
        key: Name that no other plot of the page has.
    """
    if not bins:
        return ()
    caption = (
        f"{what}, in bins of equal mass, with {settings.confidence * 100:g} % "
        "intervals: on the dotted line, scores are probabilities."
    )

    def draw(axes: Axes) -> None:
        axes.plot((0, 1), (0, 1), color=FAINT, linestyle=":", linewidth=1.2, label="calibrated")
        for own in bins:
            if own.positives.low is not None and own.positives.high is not None:
                ends = (own.positives.low, own.positives.high)
                axes.plot((own.mean_score, own.mean_score), ends, color=NEGATIVE, linewidth=1.3)
        across = [own.mean_score for own in bins]
        up = [own.positives.value or 0.0 for own in bins]  # a bin is not empty, so its share is known
        axes.plot(across, up, color=POSITIVE, marker="o", markersize=5, linewidth=1.8, label="test")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="mean score of the bin", ylabel="share of positives")
        axes.set_aspect("equal")
        axes.grid(visible=True)

    return (Plot(draw_plot(key, draw, caption), caption),)
