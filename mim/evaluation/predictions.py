"""The table every figure is computed from: one row a film."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unicodedata import category

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.files import write_atomically

COLUMNS = ("image_id", "patient_id", "split", "label", "score", "keep_rate")
SPLITS = ("val", "test")
UNWRITABLE = ("Cc", "Cs")
"""Unicode categories that a name may not hold: control characters and halves of surrogate pairs."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Scores of the validation and test films; all columns have the same length N.

    Attributes:
        image_id: Names of the films, each once.
        patient_id: Whose film it is: the salted hash of the manifest, never a name.
        split: "val" or "test".
        label: (N,) int64, 1 = positive.
        score: (N,) float64 in [0, 1], probability of the positive class.
        keep_rate: (N,) float64 in [0, 1], share of the cells the encoder saw.

    Raises:
        MimError: A column of another length, an empty or repeated name, an unknown split or label, a score or keep
            rate that is not a number in [0, 1]. The message names the row, counted from 1 without the heading.
    """

    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    keep_rate: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("image_id", "patient_id", "split"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("label", "score", "keep_rate"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        for name in COLUMNS:
            if len(getattr(self, name)) != len(self.image_id):
                found = f"{len(getattr(self, name))} rows, image_id has {len(self.image_id)}"
                raise MimError(f"predictions: column {name} has {found}; give one value a film")
        self._check_names()
        self._refuse("label", ~np.isin(self.label, (0, 1)), "a label must be 0 or 1")
        for name in ("score", "keep_rate"):
            values = getattr(self, name)
            self._refuse(name, ~((values >= 0) & (values <= 1)), f"a {name} must be a number from 0 to 1")
        object.__setattr__(self, "label", self.label.astype(np.int64))

    def __len__(self) -> int:
        return len(self.image_id)

    def _check_names(self) -> None:
        met: dict[str, int] = {}
        for row, (image, patient, split) in enumerate(zip(self.image_id, self.patient_id, self.split, strict=True), 1):
            for name, text in (("image_id", image), ("patient_id", patient)):
                if not isinstance(text, str) or not text or any(category(sign) in UNWRITABLE for sign in text):
                    raise MimError(f"predictions: row {row}: {name} {text!r} must be text on one line and not empty")
            if split not in SPLITS:
                raise MimError(f"predictions: row {row} (image {image!r}): split {split!r} must be val or test")
            if image in met:
                raise MimError(f"predictions: row {row}: image {image!r} stands in row {met[image]} already; keep one")
            met[image] = row

    def _refuse(self, name: str, bad: npt.NDArray[np.bool_], rule: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            value = getattr(self, name)[row]
            raise MimError(f"predictions: row {row + 1} (image {self.image_id[row]!r}): {name} is {value}; {rule}")

    def rows(self, indices: npt.ArrayLike) -> Self:
        """Take rows by index (integers) or by a mask (N booleans)."""
        taken = np.arange(len(self))[np.asarray(indices)]
        image, patient, split = (
            [column[row] for row in taken] for column in (self.image_id, self.patient_id, self.split)
        )
        return type(self)(image, patient, split, self.label[taken], self.score[taken], self.keep_rate[taken])

    def of(self, split: str) -> Self:
        """Take the rows of one split."""
        return self.rows(np.array([name == split for name in self.split], dtype=bool))

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        numbers = (self.label.tolist(), map(repr, self.score.tolist()), map(repr, self.keep_rate.tolist()))
        writer.writerows(zip(self.image_id, self.patient_id, self.split, *numbers, strict=True))
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                heading, *rows = list(csv.reader(file, strict=True)) or [[]]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise MimError(f"{path}: cannot be read as a table of predictions: {error}") from error
        if tuple(heading) != COLUMNS:
            raise MimError(f"{path}: columns are {', '.join(heading) or 'missing'}; expected {', '.join(COLUMNS)}")
        for number, row in enumerate(rows, 1):
            if len(row) != len(COLUMNS):
                raise MimError(f"{path}: row {number} has {len(row)} values, expected {len(COLUMNS)}")
        image, patient, split, *numbers = list(zip(*rows, strict=True)) or [()] * len(COLUMNS)
        try:
            label: Any = _numbers("label", numbers[0])  # made whole numbers only once they are known to be 0 or 1
            return cls(image, patient, split, label, _numbers("score", numbers[1]), _numbers("keep_rate", numbers[2]))
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


def _numbers(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Turn a column into float64, naming the first row that is not a number."""
    try:
        return np.array(values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        for row, value in enumerate(np.asarray(values, dtype=object).reshape(-1), 1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise MimError(f"predictions: row {row}: {name} is {value!r}, which is not a number") from error
        raise MimError(f"predictions: {name} is not a column of numbers: {error}") from error
