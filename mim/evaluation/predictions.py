"""The table every figure is computed from: one row a film.

`predictions.csv` has the columns `image_id`, `patient_id` (salted hash), `split` ("val" or "test"), `label` (0 or 1),
`score` (probability of the positive class from 0 to 1; empty = the film could not be scored) and `keep_rate` (share of
the cells seen), in this order. Any further columns hold text to divide the films by, such as severity, site, age or
sex; an empty value is one that is not known.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        score: (N,) float64 in [0, 1], probability of the positive class; NaN = the film could not be scored.
        keep_rate: (N,) float64 in [0, 1], share of the cells the encoder saw.
        columns: Further columns of text to divide the films by, each (N,); "" = not known.

    Raises:
        MimError: A column of another length, an empty or repeated name, an unknown split or label, a score or keep
            rate that is not in [0, 1]. The message names the row, counted from 1 without the heading.
    """

    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    label: npt.NDArray[np.int64]
    score: npt.NDArray[np.float64]
    keep_rate: npt.NDArray[np.float64]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

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
        object.__setattr__(self, "columns", check_columns(self.columns, len(self), COLUMNS, "predictions"))
        self._refuse("label", ~np.isin(self.label, (0, 1)), "a label must be 0 or 1")
        for name in ("score", "keep_rate"):
            values = getattr(self, name)
            missing = np.isnan(values) & (name == "score")
            self._refuse(name, ~((values >= 0) & (values <= 1)) & ~missing, f"a {name} must be a number from 0 to 1")
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
        columns = {name: [values[row] for row in taken] for name, values in self.columns.items()}
        numbers = (self.label[taken], self.score[taken], self.keep_rate[taken])
        return type(self)(image, patient, split, *numbers, columns)

    def of(self, split: str) -> Self:
        """Take the rows of one split."""
        return self.rows(np.array([name == split for name in self.split], dtype=bool))

    def followed_by(self, other: Self) -> Self:
        """Put the rows of another table after these; further columns are not known of the others."""
        columns = {name: [*values, *[""] * len(other)] for name, values in self.columns.items()}
        return type(self)(
            [*self.image_id, *other.image_id],
            [*self.patient_id, *other.patient_id],
            [*self.split, *other.split],
            np.concatenate([self.label, other.label]),
            np.concatenate([self.score, other.score]),
            np.concatenate([self.keep_rate, other.keep_rate]),
            columns,
        )

    @property
    def scored(self) -> Self:
        """The rows that have a score."""
        return self.rows(~np.isnan(self.score))

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *self.columns])
        score = ["" if np.isnan(value) else repr(value) for value in self.score.tolist()]
        numbers = (self.label.tolist(), score, map(repr, self.keep_rate.tolist()), *self.columns.values())
        writer.writerows(zip(self.image_id, self.patient_id, self.split, *numbers, strict=True))
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        heading, rows = read_table(path, "a table of predictions", COLUMNS)
        image, patient, split, *numbers = list(zip(*rows, strict=True)) or [()] * len(heading)
        further = dict(zip(heading[len(COLUMNS) :], numbers[3:], strict=True))
        try:
            label: Any = _numbers("label", numbers[0])  # made whole numbers only once they are known to be 0 or 1
            score = _numbers("score", ["nan" if value == "" else value for value in numbers[1]])
            return cls(image, patient, split, label, score, _numbers("keep_rate", numbers[2]), further)
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


def read_table(path: Path, what: str, first: tuple[str, ...]) -> tuple[list[str], list[list[str]]]:
    """Read heading and rows of a CSV that starts with the columns `first`.

    Raises:
        MimError: No such file, other columns, a column twice, or a row of another length; the message names the file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            heading, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MimError(f"{path}: cannot be read as {what}: {error}") from error
    if tuple(heading[: len(first)]) != first:
        raise MimError(f"{path}: columns are {', '.join(heading) or 'missing'}; expected {', '.join(first)}")
    if twice := [name for place, name in enumerate(heading) if name in heading[:place]]:
        raise MimError(f"{path}: column {twice[0]!r} stands in it twice; keep one")
    for number, row in enumerate(rows, 1):
        if len(row) != len(heading):
            raise MimError(f"{path}: row {number} has {len(row)} values, expected {len(heading)}")
    return heading, rows


def check_columns(
    columns: Mapping[str, Sequence[str]], length: int, taken: Sequence[str], what: str
) -> dict[str, tuple[str, ...]]:
    """Check further columns of text.

    Raises:
        MimError: A name that is taken, empty or not on one line, a column of another length, or a value that is not
            text on one line.
    """
    checked = {}
    for name, values in columns.items():
        if not isinstance(name, str) or not name or name in taken or any(category(s) in UNWRITABLE for s in name):
            raise MimError(f"{what}: a further column cannot be called {name!r}; give it a name of its own on one line")
        if len(values) != length:
            raise MimError(f"{what}: column {name} has {len(values)} rows, image_id has {length}; give one value a row")
        for row, value in enumerate(values, 1):
            if not isinstance(value, str) or any(category(sign) in UNWRITABLE for sign in value):
                raise MimError(f"{what}: row {row}: {name} {value!r} must be text on one line")
        checked[name] = tuple(values)
    return checked


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
