"""The mean of one number a film, with an interval over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import mean_statistic, percentile_interval, resample_patients
from mim.evaluation.figures import Figure


@dataclass(frozen=True)
class Resampling:
    """How intervals are made: resamples of patients, their level, and what the draws follow from."""

    patients: Sequence[str]
    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def take(self, rows: Sequence[int]) -> "Resampling":
        """The same for some of the films."""
        return Resampling([self.patients[row] for row in rows], self.resamples, self.confidence, self.seed)

    def mean(self, values: npt.ArrayLike) -> Figure:
        """Mean over films, with a percentile interval from resampling whole patients.

        Args:
            values: (N,), one a film; NaN = the film does not count.

        Raises:
            MimError: Another number of values than of patients.
        """
        numbers = np.asarray(values, dtype=np.float64)
        counted = np.isfinite(numbers)
        if not counted.any():
            return Figure(None, None, None, "there is no film to take it from")
        value = float(numbers[counted].mean())
        patients = {name for name, own in zip(self.patients, counted, strict=True) if own}
        if len(patients) < 2:
            return Figure(value, None, None, "one patient only: no interval")
        statistic = mean_statistic(np.where(counted, numbers, 0), counted)
        resampled = resample_patients(
            np.zeros(len(numbers)), self.patients, {"mean": statistic}, resamples=self.resamples, seed=self.seed
        ).values["mean"]
        low, high = percentile_interval(resampled[np.isfinite(resampled)], self.confidence) or (None, None)
        return Figure(value, low, high)


def in_words(figure: Figure, digits: int = 3) -> str:
    """A figure with its interval as text; a dash where there is none."""
    if figure.value is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}"
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"
