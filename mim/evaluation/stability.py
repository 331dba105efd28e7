"""How much selections of features made on different samples agree (Nogueira, Sechidis and Brown, JMLR 2018)."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from mim.errors import MimError


@dataclass(frozen=True)
class Stability:
    """Agreement of selections: 1 = always the same, about 0 = no better than chance; None with the reason otherwise."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


def selection_stability(selected: npt.ArrayLike, confidence: float = 0.95) -> Stability:
    """Stability of a selection, corrected for chance, with the asymptotic normal interval.

    With p_f the share of the M selections that hold feature f, s_f^2 = M / (M - 1) p_f (1 - p_f), and k the mean number
    of selected features among d: 1 - mean(s_f^2) / (k / d (1 - k / d)) (Definition 4). The interval is that of Theorem
    7 and Corollary 8. Both take the selections for independent: of selections on folds, whose training sets overlap,
    the value is too high and the interval too narrow.

    Args:
        selected: (M, d) of 0 and 1, a row a selection.
        confidence: Level of the interval.

    Raises:
        MimError: Not a table of 0 and 1 with at least two rows, or a confidence that is not between 0 and 1.
    """
    table = np.asarray(selected, dtype=np.float64)
    if table.ndim != 2 or len(table) < 2 or not table.shape[1] or not np.isin(table, (0, 1)).all():
        raise MimError(f"stability: selections of shape {table.shape}; give two rows or more of 0 and 1, one a feature")
    if not 0 < confidence < 1:
        raise MimError(f"confidence is {confidence}; give a number between 0 and 1, such as 0.95")
    count, features = table.shape
    frequency = table.mean(axis=0)
    share = float(frequency.mean())
    by_chance = share * (1 - share)
    if by_chance == 0:
        return Stability(None, None, None, "all features are always selected, or none ever is")
    value = float(1 - count / (count - 1) * (frequency * (1 - frequency)).mean() / by_chance)
    own = table.mean(axis=1)  # share of the features that each selection holds
    parts = (table @ frequency / features - own * share + value / 2 * (2 * share * own - own - share + 1)) / by_chance
    deviation = math.sqrt(4 / count**2 * float(((parts - parts.mean()) ** 2).sum()))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * deviation
    return Stability(value, value - reach, min(value + reach, 1.0))
