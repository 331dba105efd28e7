"""The block of the report that says how faithful explanations are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mim.evaluation.explain import area_under
from mim.evaluation.figures import Figure
from mim.evaluation.mean_figure import Resampling, in_words
from mim.evaluation.panels import Curve, Panel, small_multiples
from mim.evaluation.section import Plot, Section, Table

Floats = npt.NDArray[np.float64]

NAME = "explanations"
RANDOM = "random order"


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """What came of one explanation of N films.

    Attributes:
        deletion: (N, P) probability of the called class while cells are hidden, the most important first.
        insertion: (N, P) the same while they are shown.
        hits: (N,) share of the highest scores that lie in a lesion; NaN for films without one.
    """

    deletion: Floats
    insertion: Floats
    hits: Floats

    def gain(self, random: "Faithfulness") -> Floats:
        """(N,): area under insertion less that under deletion, less the same of random orders."""
        own = area_under(self.insertion) - area_under(self.deletion)
        gained: Floats = own - (area_under(random.insertion) - area_under(random.deletion))
        return gained


Measured = Mapping[str, Faithfulness]
"""By the name of the explanation; with `RANDOM` among them."""


def best_explanation(measured: Measured) -> str | None:
    """The explanation with the largest mean gain over a random order; None where there is no explanation."""
    names = [name for name in measured if name != RANDOM]
    return max(names, key=lambda name: float(measured[name].gain(measured[RANDOM]).mean()), default=None)


def explanation_figures(measured: Measured, resampling: Resampling) -> dict[str, dict[str, Figure]]:
    """Areas and hits of each explanation, and their differences to a random order, paired by film."""
    random = measured[RANDOM]
    found = {}
    for name, one in measured.items():
        deletion, insertion = area_under(one.deletion), area_under(one.insertion)
        values = {"deletion": deletion, "insertion": insertion, "pointing": one.hits}
        if name != RANDOM:
            values |= {
                "deletion_minus_random": deletion - area_under(random.deletion),
                "insertion_minus_random": insertion - area_under(random.insertion),
                "pointing_minus_random": one.hits - random.hits,
                "gain": one.gain(random),
            }
        found[name] = {key: resampling.mean(value) for key, value in values.items()}
    return found


def explanations_block(measured: Measured, resampling: Resampling, left_out: Sequence[str], *, drawn: bool) -> Section:
    """Makes the block of the report.

    Args:
        measured: Explanations, and the random order.
        resampling: Of the N films' patients.
        left_out: Explanations that this network cannot give.
        drawn: Whether the best explanation is laid over the worst errors.
    """
    figures = explanation_figures(measured, resampling)
    films = len(measured[RANDOM].deletion)
    best = best_explanation(measured)
    with_lesion = int(np.isfinite(measured[RANDOM].hits).sum())
    missing = f" Not possible with this network: {', '.join(left_out)}." if left_out else ""
    return Section(
        name=NAME,
        title="Explanations, and how faithful they are",
        first_lines=_doubts(figures),
        text=(
            f"{films} test films, each as the network met it: behind its mask. Every explanation hides as the network "
            f"hides, so nothing is painted into a film.{missing}",
            "Deletion: the probability of the called class while cells are hidden, those that the explanation holds "
            "most important first; it should fall fast, and the area under it be small. Insertion: the same while "
            "cells are shown; the area should be large. Both say how well an explanation tells what this network goes "
            "by, and nothing of whether that is right.",
            f"Pointing: how often the most important cell lies in a lesion, in {with_lesion} films with lesions; for a "
            "random order, how often any cell that is seen does.",
            *([f"The best of them here, {best}, is laid over the worst errors above."] if drawn and best else []),
        ),
        tables=(_table(figures),),
        plots=(_plot(measured),),
        figures={
            "films": films,
            "films_with_lesion": with_lesion,
            "left_out": list(left_out),
            "best": best,
            "explanations": {
                name: {
                    **{key: asdict(figure) for key, figure in found.items()},
                    "deletion_curve": measured[name].deletion.mean(axis=0).tolist(),
                    "insertion_curve": measured[name].insertion.mean(axis=0).tolist(),
                }
                for name, found in figures.items()
            },
        },
        summary=_summary(figures),
    )


def _doubts(figures: Mapping[str, Mapping[str, Figure]]) -> tuple[str, ...]:
    """Says it where explanations order cells no better than chance."""
    gains = {name: found["gain"] for name, found in figures.items() if name != RANDOM}
    faithful = [name for name, gain in gains.items() if gain.low is not None and gain.low > 0]
    if gains and not faithful:
        return (
            "No explanation tells better than a random order of cells what this network goes by (insertion less "
            "deletion): maps laid over the films are not to be read.",
        )
    if "masker" in gains and "masker" not in faithful:
        return (
            "The masker's scores tell no better than a random order of cells what this network goes by (insertion less "
            f"deletion, against random: {in_words(gains['masker'])}): its mask is no explanation.",
        )
    return ()


def _table(figures: Mapping[str, Mapping[str, Figure]]) -> Table:
    names = {
        "deletion": "deletion (small is good)",
        "deletion_minus_random": "minus random",
        "insertion": "insertion (large is good)",
        "insertion_minus_random": "minus random",
        "pointing": "pointing at lesions",
        "pointing_minus_random": "minus random",
    }
    rows = [
        (name, *(in_words(found[key]) if key in found else "–" for key in names)) for name, found in figures.items()
    ]
    return Table(
        caption="Areas under deletion and insertion, and hits of the pointing game",
        columns=("explanation", *names.values()),
        rows=tuple(rows),
        note="Intervals are over patients; differences are paired by film.",
    )


def _plot(measured: Measured) -> Plot:
    caption = (
        "Mean probability of the called class against the share of the seen cells that is hidden (deletion) or shown "
        "(insertion)."
    )
    panels = {
        ("probability", title): Panel([_curve(name, getattr(one, title)) for name, one in measured.items()])
        for title in ("deletion", "insertion")
    }
    return Plot(small_multiples("explanations", panels, "share of the cells", caption, (7.6, 3.2)), caption, "band")


def _curve(name: str, curves: Floats) -> Curve:
    return Curve(name, np.linspace(0, 1, curves.shape[1]).tolist(), curves.mean(axis=0).tolist())


def _summary(figures: Mapping[str, Mapping[str, Figure]]) -> tuple[str, ...]:
    lines: list[Any] = [
        f"{name}: deletion {in_words(found['deletion'])}, insertion {in_words(found['insertion'])}"
        + ("" if found["pointing"].value is None else f", pointing {in_words(found['pointing'])}")
        for name, found in figures.items()
    ]
    return ("explanations, areas under the probability of the called class:", *lines)
