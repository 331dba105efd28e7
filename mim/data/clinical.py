"""Clinical columns of the table of labels as numbers: what is known of a patient beside the films."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mim.data.labels import LabelledFilm, LabelledFilms
from mim.data.studies import Study
from mim.data.tables import read_table
from mim.errors import MimError

_MOST_WORDS = 50
_NOT_CLINICAL = ("image", "patient_id", "study_id", "series_order", "split", "date")
_SETTING = "(data.clinical)"

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClinicalTable:
    """Cells under the clinical columns.

    Attributes:
        path: The CSV.
        columns: Names of the columns.
        cells: Of each row, by its line.
    """

    path: Path
    columns: tuple[str, ...]
    cells: Mapping[int, Cells]

    def of_films(self, films: Sequence[LabelledFilm]) -> list[Cells]:
        """Give the cells of each film."""
        return [self.cells[film.line] for film in films]

    def of_studies(self, studies: Sequence[Study]) -> list[Cells]:
        """Give the cells of each study: under a column its rows have one value, or none.

        Raises:
            MimError: Two rows of a study have different values.
        """
        return [self._of_study(study) for study in studies]

    def _of_study(self, study: Study) -> Cells:
        found = []
        for place, column in enumerate(self.columns):
            known = [(line, self.cells[line][place]) for line in study.lines if self.cells[line][place]]
            differing = next((line for line, cell in known if cell != known[0][1]), None)
            if differing is not None:
                raise MimError(
                    f"{self.path}: rows {known[0][0]} and {differing} are of one study and differ under {column!r}: "
                    f"a study has one value, so leave the column out or mend the rows {_SETTING}"
                )
            found.append(known[0][1] if known else "")
        return tuple(found)


def read_clinical(labelled: LabelledFilms, columns: Sequence[str]) -> ClinicalTable:
    """Read clinical columns of the CSV of labels.

    Args:
        labelled: What `attach_labels` made of that CSV.
        columns: Which ones (data.clinical).

    Raises:
        MimError: There is no such column, it is named twice, or it is the label itself or says who or when it is.
    """
    table = read_table(labelled.path)
    for place, column in enumerate(columns):
        table.require(column, "data.clinical")
        if column == labelled.target:
            raise MimError(f"{table.path}: {column!r} is the label to learn: it cannot be told beforehand {_SETTING}")
        if column in _NOT_CLINICAL:
            raise MimError(f"{table.path}: {column!r} is no clinical column {_SETTING}: leave it out")
        if column in columns[:place]:
            raise MimError(f"data.clinical names {column!r} twice: keep one")
    cells = {row.line: tuple(row.cells[column] for column in columns) for row in table.rows}
    return ClinicalTable(table.path, tuple(columns), cells)


@dataclass(frozen=True, slots=True)
class ClinicalColumn:
    """How a column becomes numbers.

    Attributes:
        name: Of the column.
        words: What stands in it, one feature each; empty for a column of numbers.
        mean: Of the training rows; of a column of words 0.
        std: Of the training rows, 1 where all are equal; of a column of words 1.
    """

    name: str
    words: tuple[str, ...]
    mean: float
    std: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its features: that of the column, or `column=word`."""
        return tuple(f"{self.name}={word}" for word in self.words) or (self.name,)


@dataclass(frozen=True, slots=True)
class ClinicalEncoding:
    """Turns cells into features; fitted on training rows, so that nothing of the others is in it.

    Attributes:
        columns: How each column becomes numbers.
    """

    columns: tuple[ClinicalColumn, ...]

    @classmethod
    def fit(cls, table: ClinicalTable, rows: Sequence[Cells]) -> "ClinicalEncoding":
        """Find out which columns hold numbers, and mean, deviation or words of each.

        A column in which all cells of the table that are not empty are finite numbers holds numbers.

        Args:
            table: All rows; tells numbers from words.
            rows: Cells of the training films or studies.

        Raises:
            MimError: A column is empty in all training rows, mixes numbers and words, or has too many words.
        """
        return cls(tuple(_fit(table, place, [row[place] for row in rows]) for place in range(len(table.columns))))

    @property
    def names(self) -> tuple[str, ...]:
        """(F,) names of the features."""
        return tuple(name for column in self.columns for name in column.names)

    def encode(self, rows: Sequence[Cells], *, standardise: bool = True) -> NDArray[np.float32]:
        """Turn cells into features.

        Args:
            rows: Cells of N films or studies.
            standardise: Whether columns of numbers are given less the mean and in deviations of the training rows.
                Features of words are 0 or 1 either way.

        Returns:
            (N, F). An empty cell is NaN, in all features of its column; a word that no training row has is 0 in all.
        """
        features = np.full((len(rows), len(self.names)), np.nan, np.float32)
        first = 0
        for place, column in enumerate(self.columns):
            last = first + len(column.names)
            for number, cell in enumerate(row[place] for row in rows):
                if cell and column.words:
                    features[number, first:last] = [cell == word for word in column.words]
                elif cell:
                    value = float(cell)
                    features[number, first] = (value - column.mean) / column.std if standardise else value
            first = last
        return features

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "ClinicalEncoding":
        """Make an encoding of what `to_dict` gave.

        Raises:
            ValueError: It is no such thing.
        """
        try:
            return cls(tuple(_read_column(column) for column in written["columns"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"no encoding of clinical columns ({type(error).__name__})") from error


def _fit(table: ClinicalTable, place: int, training: Sequence[str]) -> ClinicalColumn:
    name = table.columns[place]
    known = [cell for cell in training if cell]
    if not known:
        raise MimError(f"{table.path}: {name!r} is empty in all training rows {_SETTING}: leave it out")
    texts = {line: cells[place] for line, cells in table.cells.items() if cells[place]}
    no_numbers = [line for line, cell in texts.items() if not _is_number(cell)]
    if not no_numbers:
        values = np.array([float(cell) for cell in known])
        return ClinicalColumn(name, (), float(values.mean()), float(values.std()) or 1.0)
    if len(no_numbers) < len(texts) / 2:
        raise MimError(
            f"{table.path}, row {no_numbers[0]}: what stands under {name!r} is no number, as in most rows {_SETTING}: "
            "an empty cell says that it is not known"
        )
    words = tuple(sorted(set(known)))
    if len(words) > _MOST_WORDS:
        raise MimError(
            f"{table.path}: {name!r} holds {len(words)} different words, more than {_MOST_WORDS} {_SETTING}: group them"
        )
    return ClinicalColumn(name, words, 0.0, 1.0)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _read_column(written: Mapping[str, Any]) -> ClinicalColumn:
    words = tuple(str(word) for word in written["words"])
    return ClinicalColumn(str(written["name"]), words, float(written["mean"]), float(written["std"]))
