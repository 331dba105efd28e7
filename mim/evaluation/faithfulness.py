"""Does a mask show what matters? AUC against the share that is seen, for one mask and for others at the same share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mim.evaluation.comparison import Difference
from mim.evaluation.figures import Figure
from mim.evaluation.intervals import Intervals, auroc_difference, auroc_figures
from mim.evaluation.leakage import Leakage
from mim.evaluation.lesion_recall import Recall

Floats = npt.NDArray[np.float64]

WAYS: Mapping[str, str] = MappingProxyType(
    {
        "masker": "the run's mask",
        "random": "random",
        "otsu": "Otsu foreground",
        "variance": "local variance",
        "reconstruction_error": "reconstruction error",
        "attention": "attention",
        "oracle": "lesions first (oracle)",
    }
)
"""Ways to choose which cells are seen, and what they are called."""
RIVALS = ("random", "otsu")
"""What a mask must beat to have shown that it picks out what matters."""


@dataclass(frozen=True)
class WayScores:
    """Scores of N films under one way to choose cells, with D draws of what is random in it.

    Attributes:
        by_rate: (D, N) by the share of cells that is seen.
        at_own_share: (D, N) where as many cells of each film are seen as the run's own mask shows; None without one.
    """

    by_rate: Mapping[float, Floats]
    at_own_share: Floats | None = None


@dataclass(frozen=True)
class Comparisons:
    """AUCs of all ways.

    Attributes:
        curves: By way and share of the cells.
        at_own_share: By way, at the share of the run's own mask, film by film; empty without one.
        differences: AUC of the run's own mask less that of random and Otsu, there; empty without one.
    """

    curves: Mapping[str, Mapping[float, Figure]]
    at_own_share: Mapping[str, Figure]
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Faithfulness:
    """All that was measured.

    Attributes:
        masker: Kind of the run's masker, `none` where everything is seen.
        films: Test films that were seen through other masks.
        patients: Of how many patients.
        share: Mean share of the cells that the run's own mask shows of them; None without one.
        random_masks: Draws of random masks.
        comparisons: AUCs.
        absent: Ways that could not be measured, and why.
        same: Rivals whose masks are those of the run, cell by cell.
        recall: Lesion recall by grade; empty where it could not be measured.
        no_recall: Why not.
        leakage: What the mask gives away; None where it could not be measured.
        no_leakage: Why not.
    """

    masker: str
    films: int
    patients: int
    share: float | None
    random_masks: int
    comparisons: Comparisons
    absent: Mapping[str, str]
    same: tuple[str, ...]
    recall: tuple[Recall, ...]
    no_recall: str
    leakage: Leakage | None
    no_leakage: str


def compare_ways(
    labels: npt.ArrayLike, patients: Sequence[str], ways: Mapping[str, WayScores], intervals: Intervals
) -> Comparisons:
    """Gives the AUC under each way at each share, and how the run's own mask compares with random and Otsu.

    Args:
        labels: (N,) of 0 and 1.
        patients: N names.
        ways: By a name of `WAYS`; the run's own is `masker`.
        intervals: How intervals are made.
    """
    scores = {f"{name} {rate}": draws for name, way in ways.items() for rate, draws in way.by_rate.items()}
    figures = auroc_figures(labels, patients, scores, intervals)
    curves = {name: {rate: figures[f"{name} {rate}"] for rate in way.by_rate} for name, way in ways.items()}
    at_share = {name: way.at_own_share for name, way in ways.items() if way.at_own_share is not None}
    own = at_share.get("masker")
    differences = {}
    if own is not None:
        rivals = [name for name in RIVALS if name in at_share]
        differences = {name: auroc_difference(labels, patients, at_share[name], own[0], intervals) for name in rivals}
    return Comparisons(curves, auroc_figures(labels, patients, at_share, intervals), differences)
