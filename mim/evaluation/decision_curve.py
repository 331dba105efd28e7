"""Decision curve: is acting on the score better than treating all or none?

The method is that of Vickers and Elkin 2006.

At a threshold probability t a user would treat one who is sick at the price of treating t / (1 - t) who are not:

    net benefit = true positives / N - false positives / N x t / (1 - t)

with films called positive where score >= t. Treating none has 0; treating all has prevalence - (1 - prevalence) x
t / (1 - t). Scores are taken for probabilities, so what is badly calibrated does badly here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from mim.evaluation.bootstrap import Floats, Integers, Statistic, divide
from mim.evaluation.curves import FAINT, NEGATIVE, POSITIVE, draw_plot
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Plot, Section, Table

GRID = tuple(round(0.01 * step, 2) for step in range(1, 100))
SHOWN = (0.05, 0.1, 0.2, 0.3, 0.5)
COLUMNS = ("Threshold probability", "Acting on the score", "interval", "Treating all", "Gain", "interval")
NOTE = (
    "Net benefit in true positives a film: 0.05 is worth five found among a hundred films, without a false alarm. The "
    "last column is the gain over the better of treating all and treating none; only above 0 is the score of use."
)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at each threshold probability.

    Attributes:
        thresholds: Threshold probabilities.
        model: Acting on the score.
        treat_all: Calling every film positive.
        gain: The first minus the better of treating all and none.
    """

    thresholds: tuple[float, ...]
    model: tuple[Figure, ...]
    treat_all: tuple[Figure, ...]
    gain: tuple[Figure, ...]


def net_benefit_statistic(labels: npt.ArrayLike, scores: npt.ArrayLike, thresholds: Sequence[float]) -> Statistic:
    """Net benefit at T threshold probabilities under integer weights, (R, 3T): of score, of all, and the gain.

    Args:
        labels: (N,) of 0 and 1.
        scores: (N,) in [0, 1].
        thresholds: Each above 0 and below 1.
    """
    target = np.asarray(labels, dtype=np.float64)[:, None]
    at = np.asarray(thresholds, dtype=np.float64)
    worth: Floats = target - (1 - target) * at / (1 - at)  # (N, T) of calling each film positive
    called = np.asarray(scores, dtype=np.float64)[:, None] >= at
    both = np.concatenate([worth * called, worth], axis=1)

    def statistic(weights: Integers) -> Floats:
        benefit = divide(weights @ both, np.broadcast_to(weights.sum(axis=1)[:, None], (len(weights), 2 * len(at))))
        model, treat_all = benefit[:, : len(at)], benefit[:, len(at) :]
        return np.concatenate([benefit, model - np.maximum(treat_all, 0)], axis=1)

    return statistic


def decision_curve(films: Predictions, settings: Settings, thresholds: Sequence[float] = GRID) -> DecisionCurve:
    """Compute a decision curve with intervals over patients.

    Args:
        films: Films of one split.
        settings: How intervals are made.
        thresholds: Each above 0 and below 1.
    """
    kinds = ("model", "treat_all", "gain")
    names = tuple(f"{kind} {number}" for kind in kinds for number in range(len(thresholds)))
    statistic = net_benefit_statistic(films.label, films.score, thresholds)
    reasons = dict.fromkeys(names, "there are no films")
    figures = measure({}, films.patient_id, settings, jointly={names: statistic}, reasons=reasons)
    columns = [tuple(figures[f"{kind} {number}"] for number in range(len(thresholds))) for kind in kinds]
    return DecisionCurve(tuple(thresholds), *columns)


def decision_section(predictions: Predictions, settings: Settings) -> Section:
    """Give the decision curve of the test films, for the report and for `metrics.json`."""
    predictions = predictions.scored
    test = predictions.of("test")
    curve = decision_curve(test, settings)
    return Section(
        name="clinical_usefulness",
        title="Clinical usefulness",
        text=(describe_curve(curve),),
        tables=(Table("Net benefit on the test films", COLUMNS, curve_rows(curve), NOTE),) if len(test) else (),
        plots=(decision_plot(curve, settings),) if len(test) else (),
        figures=curve_json(curve),
    )


def curve_rows(curve: DecisionCurve, shown: Sequence[float] = SHOWN) -> tuple[tuple[str, ...], ...]:
    """Rows of a table below `COLUMNS`, at some of the thresholds of a curve."""
    places = [curve.thresholds.index(threshold) for threshold in shown]
    return tuple(
        (
            f"{curve.thresholds[place]:.2f}",
            *written(curve.model[place]),
            written(curve.treat_all[place])[0],
            *written(curve.gain[place]),
        )
        for place in places
    )


def curve_json(curve: DecisionCurve) -> dict[str, Any]:
    """What `metrics.json` says of a curve."""
    return {
        "thresholds": list(curve.thresholds),
        "net_benefit": [as_json(figure) for figure in curve.model],
        "net_benefit_treat_all": [figure.value for figure in curve.treat_all],
        "gain": [as_json(figure) for figure in curve.gain],
    }


def describe_curve(curve: DecisionCurve) -> str:
    """Say where acting on the score is worth it."""
    if curve.gain[0].value is None:
        return f"There is no decision curve: {curve.gain[0].reason}."
    surely = [at for at, gain in zip(curve.thresholds, curve.gain, strict=True) if (gain.low or 0) > 0]
    if not surely:
        return (
            "At no threshold probability does the whole interval of the gain lie above 0: these films do not show that "
            "acting on the score is better than treating all or none."
        )
    return (
        f"Acting on the score is better than treating all or none (the whole interval of the gain above 0) at "
        f"{len(surely)} of {len(curve.thresholds)} threshold probabilities, from {surely[0]:.2f} to {surely[-1]:.2f}."
    )


def decision_plot(
    curve: DecisionCurve, settings: Settings, what: str = "Decision curve of the test films", key: str = "decision"
) -> Plot:
    """Draw a curve that has values.

    Args:
        curve: What is drawn.
        settings: How intervals were made.
        what: How the caption begins.
        key: Name that no other plot of the page has.
    """
    caption = (
        f"{what}: net benefit against the probability from which one would treat, with "
        f"{settings.confidence * 100:g} % intervals."
    )

    def draw(axes: Axes) -> None:
        model = _values(curve.model, "value")
        axes.axhline(0, color=FAINT, linestyle=":", linewidth=1.2, label="treat none")
        treat_all = _values(curve.treat_all, "value")
        axes.plot(curve.thresholds, treat_all, color=NEGATIVE, linestyle="--", linewidth=1.3, label="treat all")
        low, high = _values(curve.model, "low"), _values(curve.model, "high")
        axes.fill_between(curve.thresholds, low, high, color=POSITIVE, alpha=0.18, linewidth=0)
        axes.plot(curve.thresholds, model, color=POSITIVE, linewidth=2.2, label="act on the score")
        top = max(0.02, float(np.nanmax([np.nanmax(model), treat_all[0]])))
        axes.set(xlim=(0, 1), ylim=(-0.35 * top, 1.15 * top), xlabel="threshold probability", ylabel="net benefit")
        axes.grid(visible=True)

    return Plot(draw_plot(key, draw, caption, size=(7.2, 3.6), below=-0.2), caption, "band")


def _values(figures: Sequence[Figure], which: str) -> Floats:
    content: list[Mapping[str, float | str | None]] = [as_json(figure) for figure in figures]
    return np.array([np.nan if own[which] is None else own[which] for own in content], dtype=np.float64)
