"""The table behind the figures of more than two classes, of grades and of several labels: one row a film.

`predictions.csv` has the columns `image_id`, `patient_id` (salted hash), `split` ("val" or "test") and `keep_rate`
(share of the cells seen); then `label`, the name of the class or grade, or of several labels `label:NAME` for each (1,
0, empty = not known); then `score:NAME` for each class, grade or label, its probability from 0 to 1 (empty = the film
could not be scored). Classes and grades stand in their order. Further columns, such as `device` or `site`, are text;
figures are given for each of their groups.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers
from mim.evaluation.label_questions import UNKNOWN, LabelKind, answers, scores
from mim.evaluation.predictions import Predictions, check_columns, read_table
from mim.files import write_atomically

COLUMNS = ("image_id", "patient_id", "split", "keep_rate")
LABEL, SCORE = "label", "score:"
SEVERAL = f"{LABEL}:"


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """Scores of the validation and test films for K classes, grades or labels; all columns have the same length N.

    Attributes:
        names: K names of the classes, of the grades (mildest first), or of the labels.
        kind: What they are.
        image_id: Names of the films, each once.
        patient_id: Whose film it is: the salted hash of the manifest, never a name.
        split: "val" or "test".
        label: (N,) places in `names`; of several labels (N, K) of 1, 0 and -1 = not known.
        score: (N, K) float64 in [0, 1]; a row of NaN = the film could not be scored.
        keep_rate: (N,) float64 in [0, 1], share of the cells the encoder saw.
        columns: Further columns of N texts, by their names; "" = not known.

    Raises:
        MimError: What stands in a row is not as it should be; the message names the row, counted from 1.
    """

    names: tuple[str, ...]
    kind: LabelKind
    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    label: Integers
    score: Floats
    keep_rate: Floats
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        label, score = np.asarray(self.label, dtype=np.int64), np.asarray(self.score, dtype=np.float64)
        several = self.kind == "several"
        rows, count = len(self.image_id), len(self.names)
        if score.shape != (rows, count) or label.shape != ((rows, count) if several else (rows,)):
            raise MimError(
                f"predictions: {rows} films of {count} {self.kind}, with labels of shape {label.shape} and scores of "
                f"shape {score.shape}"
            )
        lowest, highest = (UNKNOWN, 1) if several else (0, count - 1)
        self._refuse((label < lowest) | (label > highest), f"a label must be from {lowest} to {highest}")
        self._refuse(~((score >= 0) & (score <= 1)) & ~np.isnan(score), "a score must be a number from 0 to 1")
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "score", score)
        placeholder = np.zeros(rows)  # the other columns must be such as those of two classes
        Predictions(
            self.image_id, self.patient_id, self.split, placeholder.astype(np.int64), placeholder, self.keep_rate
        )
        if own := [name for name in self.columns if name.startswith((SCORE, SEVERAL))]:
            raise MimError(f"predictions: a further column cannot be called {own[0]!r}: scores and labels are")
        taken = (*COLUMNS, LABEL, "score")
        object.__setattr__(self, "columns", check_columns(self.columns, rows, taken, "predictions"))

    def __len__(self) -> int:
        return len(self.image_id)

    def _refuse(self, bad: npt.NDArray[np.bool_], rule: str) -> None:
        rows = np.flatnonzero(bad if bad.ndim == 1 else bad.any(axis=1))
        if len(rows):
            row = int(rows[0])
            raise MimError(f"predictions: row {row + 1} (image {self.image_id[row]!r}): {rule}")

    def rows(self, indices: npt.ArrayLike) -> Self:
        """Take rows by index (integers) or by a mask (N booleans)."""
        taken = np.arange(len(self))[np.asarray(indices)]
        image, patient, split = (
            [column[row] for row in taken] for column in (self.image_id, self.patient_id, self.split)
        )
        numbers = (self.label[taken], self.score[taken], self.keep_rate[taken])
        columns = {name: [values[row] for row in taken] for name, values in self.columns.items()}
        return type(self)(self.names, self.kind, image, patient, split, *numbers, columns)

    def of(self, split: str) -> Self:
        """Take the rows of one split."""
        return self.rows(np.array([name == split for name in self.split], dtype=bool))

    def followed_by(self, other: Self) -> Self:
        """Put the rows of another table, of the same names and kind, after these; its further columns are not known."""
        columns = {name: [*values, *[""] * len(other)] for name, values in self.columns.items()}
        return type(self)(
            self.names,
            self.kind,
            [*self.image_id, *other.image_id],
            [*self.patient_id, *other.patient_id],
            [*self.split, *other.split],
            np.concatenate([self.label, other.label]),
            np.concatenate([self.score, other.score]),
            np.concatenate([self.keep_rate, other.keep_rate]),
            columns,
        )

    @property
    def is_scored(self) -> npt.NDArray[np.bool_]:
        """(N,) whether a film has scores."""
        scored: npt.NDArray[np.bool_] = np.isnan(self.score).sum(axis=1) == 0
        return scored

    @property
    def questions(self) -> tuple[str, ...]:
        """Names of the questions of yes or no (`mim.evaluation.label_questions`)."""
        return tuple(f"{name} or worse" for name in self.names[1:]) if self.kind == "ordered" else self.names

    def question(self, place: int) -> Predictions:
        """The films that have an answer to one question and a score, as predictions of two classes."""
        truth = answers(self.label, len(self.names), self.kind)[:, place]
        known = np.flatnonzero((truth != UNKNOWN) & self.is_scored)
        columns = (self.image_id, self.patient_id, self.split)
        image, patient, split = ([column[row] for row in known.tolist()] for column in columns)
        return Predictions(
            image,
            patient,
            split,
            truth[known],
            scores(self.score[known], self.kind)[:, place],
            self.keep_rate[known],
            {name: [values[row] for row in known.tolist()] for name, values in self.columns.items()},
        )

    def unknown(self, place: int) -> int:
        """How many films there are of which the answer to a question is not known."""
        return int((answers(self.label, len(self.names), self.kind)[:, place] == UNKNOWN).sum())

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        labels = [f"{SEVERAL}{name}" for name in self.names] if self.kind == "several" else [LABEL]
        writer.writerow([*COLUMNS, *labels, *(f"{SCORE}{name}" for name in self.names), *self.columns])
        written: list[list[str]] = (
            [["" if value == UNKNOWN else str(value) for value in row] for row in self.label.tolist()]
            if self.kind == "several"
            else [[self.names[value]] for value in self.label.tolist()]
        )
        for row, own in enumerate(written):
            numbers = ["" if np.isnan(value) else repr(value) for value in self.score[row].tolist()]
            known = (self.image_id[row], self.patient_id[row], self.split[row], repr(float(self.keep_rate[row])))
            writer.writerow([*known, *own, *numbers, *(values[row] for values in self.columns.values())])
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path, kind: LabelKind) -> Self:
        """Read what `save` wrote.

        Args:
            path: The table.
            kind: What its labels are: classes and grades are written alike.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        heading, rows = read_table(path, "a table of predictions", COLUMNS)
        names = tuple(name.removeprefix(SCORE) for name in heading if name.startswith(SCORE))
        labels = [f"{SEVERAL}{name}" for name in names] if kind == "several" else [LABEL]
        last = len(COLUMNS) + len(labels) + len(names)
        if heading[:last] != [*COLUMNS, *labels, *(f"{SCORE}{name}" for name in names)]:
            raise MimError(f"{path}: is no table of predictions of {kind}; its columns are {', '.join(heading)}")
        first, middle = len(COLUMNS), len(COLUMNS) + len(labels)
        try:
            own = [[int(cell or UNKNOWN) if kind == "several" else names.index(cell) for cell in row[first:middle]]
                   for row in rows]  # fmt: skip
            said = [[float(cell or "nan") for cell in row[middle:last]] for row in rows]
            kept = [float(row[3]) for row in rows]
        except ValueError as error:
            raise MimError(f"{path}: a label or number in it cannot be read ({error})") from error
        label = np.array(own, dtype=np.int64).reshape(len(rows), len(labels))
        image, patient, split = ([row[place] for row in rows] for place in range(3))
        try:
            return cls(
                names,
                kind,
                image,
                patient,
                split,
                label if kind == "several" else label[:, 0],
                np.array(said, dtype=np.float64).reshape(len(rows), len(names)),
                np.array(kept, dtype=np.float64),
                {name: [row[last + place] for row in rows] for place, name in enumerate(heading[last:])},
            )
        except MimError as error:
            raise MimError(f"{path}: {error}") from error
