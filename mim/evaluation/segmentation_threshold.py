"""The probability from which a pixel is drawn: where Dice of all validation pixels together is best.

All pixels of all validation images count together, so that what is drawn in images without lesions counts against a
threshold, and no rule for empty truth is needed. Thresholds are hundredths. `segmentation_thresholds.csv` has the
counts that the choice was made from.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers, divide
from mim.evaluation.predictions import read_table
from mim.evaluation.threshold import Threshold
from mim.files import write_atomically

THRESHOLDS: Final = np.arange(1, 100) / 100
COLUMNS: Final = ("threshold", "drawn", "both", "truth")


def _zeros() -> Integers:
    return np.zeros(len(THRESHOLDS), dtype=np.int64)


@dataclass(eq=False)
class PixelCounts:
    """How many pixels of some images are drawn at each threshold, and how many of them belong to a lesion.

    Attributes:
        drawn: (99,) pixels with at least this probability.
        both: (99,) those of them that belong to a lesion.
        truth: Pixels of lesions.
        images: How many images were counted.
    """

    drawn: Integers = field(default_factory=_zeros)
    both: Integers = field(default_factory=_zeros)
    truth: int = 0
    images: int = 0

    def add(self, probability: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Count the pixels of one image.

        Args:
            probability: (H, W) from 0 to 1.
            truth: (H, W) True = lesion.
        """
        values, there = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=bool)
        self.drawn += _at_least(values.ravel())
        self.both += _at_least(values[there])
        self.truth += int(there.sum())
        self.images += 1

    def dice(self) -> Floats:
        """Dice of all counted pixels at each threshold, (99,); NaN where there are neither lesions nor drawn pixels."""
        return divide(2 * self.both, self.drawn + self.truth)

    def choose(self) -> Threshold:
        """The threshold with the best Dice, the middle one of those that tie; or the reason why there is none."""
        if not self.images:
            return Threshold(None, "there are no validation images to choose a threshold on")
        if not self.truth:
            return Threshold(None, "the validation images hold no lesion")
        dice = self.dice()
        if not dice.max() > 0:
            return Threshold(None, "at no threshold is a pixel of a lesion drawn in the validation images")
        best = np.flatnonzero(dice == dice.max())
        return Threshold(float(THRESHOLDS[best[len(best) // 2]]))

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back, but for the number of images."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.heading())
        writer.writerows(self.rows())
        write_atomically(path, text.getvalue())

    @staticmethod
    def heading() -> tuple[str, ...]:
        """The names of the columns of the table."""
        return COLUMNS

    def rows(self) -> Iterator[tuple[float | int, ...]]:
        """The rows of the table."""
        for row in zip(THRESHOLDS.tolist(), self.drawn.tolist(), self.both.tolist(), strict=True):
            yield (*row, self.truth)

    @classmethod
    def load(cls, path: Path, images: int) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.
            images: How many images were counted.

        Raises:
            MimError: No such file, or not a table of counts at these thresholds.
        """
        _, rows = read_table(path, "a table of thresholds", COLUMNS)
        try:
            columns = np.array([[float(value) for value in row] for row in rows]).reshape(-1, len(COLUMNS)).T
        except ValueError as error:
            raise MimError(f"{path}: {error}") from error
        if not np.array_equal(columns[0], THRESHOLDS):
            raise MimError(f"{path}: its thresholds are not 0.01, 0.02, ... 0.99")
        return cls(columns[1].astype(np.int64), columns[2].astype(np.int64), int(columns[3][0]), images)


def _at_least(values: Floats) -> Integers:
    """How many values reach each threshold."""
    reached = np.searchsorted(THRESHOLDS, values, side="right")  # thresholds at or below each value
    at = np.bincount(reached, minlength=len(THRESHOLDS) + 1)
    above: Integers = at[::-1].cumsum()[::-1][1:]
    return above
