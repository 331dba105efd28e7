"""Figures of grades: how far off they are, and not only whether they are wrong."""

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Floats, Integers, Statistic, divide

HALF = 0.5


def median_grade(probabilities: npt.ArrayLike) -> Integers:
    """The grade that is called: the lowest that is not more likely than not to be exceeded.

    It is the median of the predicted distribution, which errs least by the mean number of grades; with the log-odds of
    a cumulative link it is the number of cuts below the severity.

    Args:
        probabilities: (N, K) of the grades, mildest first.

    Returns:
        (N,) places of grades.
    """
    given = np.asarray(probabilities, dtype=np.float64)
    worse = np.cumsum(given[:, ::-1], axis=1)[:, ::-1][:, 1:]
    called: Integers = (worse > HALF).sum(axis=1)
    return called


def quadratic_kappa_statistic(grades: npt.ArrayLike, called: npt.ArrayLike) -> Statistic:
    """Cohen's kappa with quadratic weights, under integer weights of the films (Cohen 1968).

    1 less the mean squared distance of the grades over the same with grades and calls paired at random: with n films,
    sum (g - c)^2 over (sum g^2 + sum c^2 - 2 sum g sum c / n). NaN where all grades and calls are one and the same.

    Args:
        grades: (N,) what the films are, as numbers.
        called: (N,) what they are called.
    """
    truth, said = (np.asarray(values, dtype=np.float64) for values in (grades, called))

    def statistic(weights: Integers) -> Floats:
        films = weights.sum(axis=1)
        apart = weights @ (truth - said) ** 2
        by_chance = weights @ (truth**2 + said**2) - 2 * divide((weights @ truth) * (weights @ said), films)
        by_chance[np.isclose(by_chance, 0, atol=1e-9)] = 0
        return 1 - divide(apart, by_chance)

    return statistic
