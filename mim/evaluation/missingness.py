"""What becomes of predictions while more and more of a film is removed, by each way of hiding.

The protocol of Jain et al., Missingness Bias in Model Debugging, ICLR 2022, as Balasubramanian and Feizi, Towards
Improved Input Masking for Convolutional Neural Networks, ICCV 2023, use it: a network that is not biased by what stands
in the place of missing parts keeps its prediction for long, and does not fall into one class.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from mim.evaluation.figures import Figure
from mim.evaluation.mean_figure import Resampling, in_words
from mim.evaluation.panels import Curve, Panel, small_multiples
from mim.evaluation.section import Plot, Section, Table

Floats = npt.NDArray[np.float64]

FILLS = ("grey", "black", "mean", "blur")
ORDERS = {"random": "at random", "salient_first": "salient first", "salient_last": "salient last"}
UNITS = {"patch": "patches", "superpixel": "superpixels"}


@dataclass(frozen=True, eq=False)
class Removal:
    """Scores of N films while S shares of them are removed, in one way.

    Attributes:
        hiding: How parts are hidden.
        unit: `patch` or `superpixel`.
        order: `random`, `salient_first` or `salient_last`.
        removed: (S,) shares removed; the first is 0.
        scores: (S, N) probability of the positive class.
    """

    hiding: str
    unit: str
    order: str
    removed: Floats
    scores: Floats

    def unchanged(self, threshold: float) -> npt.NDArray[np.bool_]:
        """(S, N): whether a film is called as it is when nothing is removed."""
        called = self.scores >= threshold
        same: npt.NDArray[np.bool_] = called == called[:1]
        return same

    def accuracy(self, labels: npt.ArrayLike, threshold: float) -> Floats:
        """(S,): share of the films that are called rightly."""
        right: Floats = ((self.scores >= threshold) == (np.asarray(labels) == 1)).mean(axis=1)
        return right

    def class_entropy(self, threshold: float) -> Floats:
        """(S,): entropy in bits of the distribution of called classes over the films; 0 = all are called alike."""
        return binary_entropy((self.scores >= threshold).mean(axis=1))

    def predictive_entropy(self) -> Floats:
        """(S,): mean over the films of the entropy in bits of the score itself; 1 = the network knows nothing."""
        mean: Floats = binary_entropy(self.scores).mean(axis=1)
        return mean


def binary_entropy(share: npt.ArrayLike) -> Floats:
    """Entropy in bits of two outcomes, one of which has this probability."""
    one = np.asarray(share, dtype=np.float64)
    bits: Floats = (entr(one) + entr(1 - one)) / np.log(2)
    return bits


@dataclass(frozen=True, eq=False)
class MissingnessResult:
    """All removals of the same N films.

    Attributes:
        removals: One for each way of hiding, unit and order.
        labels: (N,) of 0 and 1.
        threshold: Score at and above which a film is called positive.
        own: The way of hiding that the run was trained with.
        left_out: Ways of hiding that were asked for and that the network cannot do.
        unit_words: What a unit is in this run, in words.
    """

    removals: Sequence[Removal]
    labels: npt.NDArray[np.int64]
    threshold: float
    own: str
    left_out: Sequence[str] = ()
    unit_words: str = ""


def missingness_block(result: MissingnessResult, resampling: Resampling) -> Section:
    """Makes the block of the report from what the networks said."""
    kept = {key_of(one): one.unchanged(result.threshold)[1:].mean(axis=0) for one in result.removals}
    means = {key: resampling.mean(values) for key, values in kept.items()}
    first_lines = _compare_with_fills(result, kept, resampling)
    films = len(result.labels)
    left_out = f" Not possible with this network: {', '.join(result.left_out)}." if result.left_out else ""
    text = (
        f"From {films} test films more and more is removed, from the whole film on; the masker is not asked. "
        f"The same weights are used with each way of hiding; this run was trained with {result.own}.{left_out}",
        f"{result.unit_words} Salience is the mean size of the gradient of the log-odds over a part, the whole film "
        "being seen.",
        "Unchanged: share of the films that are called as they are when nothing is removed. Class entropy: of the "
        "distribution of called classes, in bits; near 0, all films are called alike, whatever is on them. Predictive "
        "entropy: mean over films of that of the score; 1 bit is a score of one half. What is removed may be what "
        "matters, so no curve has to stay at 1: compare the curves with each other. Falling early and into one class "
        "is the mark of a network that answers to what stands in the place of the missing parts.",
    )
    return Section(
        name="missingness",
        title="What missing parts do to the answer",
        first_lines=first_lines,
        text=text,
        tables=_tables(result, means),
        plots=_plots(result),
        figures=_figures(result, means),
        summary=_summary(result, means),
    )


Key = tuple[str, str, str]


def key_of(one: Removal) -> Key:
    """Unit, order and way of hiding."""
    return one.unit, one.order, one.hiding


def _compare_with_fills(result: MissingnessResult, kept: dict[Key, Floats], resampling: Resampling) -> tuple[str, ...]:
    """Says it where painting over keeps more predictions than the run's own way of hiding."""
    fills = {name: values for (unit, order, name), values in kept.items() if (unit, order) == ("patch", "random")}
    own = fills.get(result.own)
    painted = {name: values for name, values in fills.items() if name in FILLS and name != result.own}
    if own is None or not painted:
        return ()
    best = max(painted, key=lambda name: float(painted[name].mean()))
    gain = resampling.mean(own - painted[best])
    if gain.high is None or gain.high >= 0:
        return ()
    return (
        f"Hiding by {result.own}, as this run was trained, changes more predictions than painting hidden parts over "
        f"({best}): share unchanged, difference {in_words(gain)}.",
    )


def _tables(result: MissingnessResult, means: dict[Key, Figure]) -> tuple[Table, ...]:
    tables = []
    for unit in dict.fromkeys(one.unit for one in result.removals):
        orders = list(dict.fromkeys(one.order for one in result.removals if one.unit == unit))
        hidings = list(dict.fromkeys(one.hiding for one in result.removals if one.unit == unit))
        rows = [
            (_name(hiding, result.own), *(in_words(means[unit, order, hiding]) for order in orders))
            for hiding in hidings
        ]
        tables.append(
            Table(
                caption=f"Share of unchanged predictions, mean over the shares removed, {UNITS[unit]}",
                columns=("hiding", *(f"removed {ORDERS[order]}" for order in orders)),
                rows=tuple(rows),
            )
        )
    return tuple(tables)


def _name(hiding: str, own: str) -> str:
    return f"{hiding} (this run's)" if hiding == own else hiding


def _plots(result: MissingnessResult) -> tuple[Plot, ...]:
    plots = []
    for unit in dict.fromkeys(one.unit for one in result.removals):
        of_unit = [one for one in result.removals if one.unit == unit]
        panels: dict[tuple[str, str], Panel] = {}
        for measure in ("accuracy", "unchanged", "class entropy", "predictive entropy"):
            for order in dict.fromkeys(one.order for one in of_unit):
                curves = [
                    Curve(one.hiding, one.removed.tolist(), measures(one, result)[measure].tolist())
                    for one in of_unit
                    if one.order == order
                ]
                panels[measure, f"removed {ORDERS[order]}"] = Panel(curves)
        caption = (
            f"What becomes of {len(result.labels)} predictions while {UNITS[unit]} are removed. One line a way of "
            "hiding, the same weights in all of them; entropies in bits."
        )
        plots.append(Plot(small_multiples(f"missingness-{unit}", panels, "share removed", caption), caption, "band"))
    return tuple(plots)


def measures(one: Removal, result: MissingnessResult) -> dict[str, Floats]:
    """The four curves of a removal, each (S,)."""
    return {
        "accuracy": one.accuracy(result.labels, result.threshold),
        "unchanged": one.unchanged(result.threshold).mean(axis=1),
        "class entropy": one.class_entropy(result.threshold),
        "predictive entropy": one.predictive_entropy(),
    }


def _figures(result: MissingnessResult, means: dict[Key, Figure]) -> dict[str, Any]:
    return {
        "films": len(result.labels),
        "threshold": result.threshold,
        "own": result.own,
        "left_out": list(result.left_out),
        "removals": [
            {
                "unit": one.unit,
                "order": one.order,
                "hiding": one.hiding,
                "removed": one.removed.tolist(),
                **{name.replace(" ", "_"): values.tolist() for name, values in measures(one, result).items()},
                "unchanged_mean": asdict(means[key_of(one)]),
            }
            for one in result.removals
        ],
    }


def _summary(result: MissingnessResult, means: dict[Key, Figure]) -> tuple[str, ...]:
    key = next((key for key in means if key[1] == "random"), None)
    if key is None:
        return ()
    unit = key[0]
    said = [
        f"{_name(hiding, result.own)} {in_words(figure)}"
        for (own_unit, order, hiding), figure in means.items()
        if (own_unit, order) == (unit, "random")
    ]
    return (f"predictions unchanged while {UNITS[unit]} are removed at random: {'; '.join(said)}",)
