"""splits.csv: who trained and who was measured, and the hash that tells whether it is still so."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.data.label_values import MISSING
from mim.data.labels import LabelledFilm
from mim.data.splits import Splits
from mim.data.tables import read_table
from mim.files import write_atomically

_COLUMNS = ("image_id", "patient_id", "split", "label")
UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One row of splits.csv; `label` is the name of the class, of several labels all of them (`label_text`)."""

    image_id: str
    patient_id: str
    split: str
    label: str


def save_splits(path: Path, splits: Splits) -> str:
    """Write splits.csv (image_id, patient_id, split, label) and return its `split_hash`."""
    rows = _rows(splits)
    write_atomically(path, _to_csv(rows))
    return split_hash(rows)


def load_splits(path: Path) -> tuple[SplitRow, ...]:
    """Read what `save_splits` wrote.

    Raises:
        MimError: The file is missing or lacks a column.
    """
    table = read_table(path)
    for column in _COLUMNS:
        table.require(column)
    return tuple(SplitRow(*(row.cells[column] for column in _COLUMNS)) for row in table.rows)


def split_hash(splits: Splits | Sequence[SplitRow]) -> str:
    """Hash who trains and is measured, with which label (SHA-256, 64 hexadecimal digits), whatever the order."""
    rows = _rows(splits) if isinstance(splits, Splits) else splits
    return hashlib.sha256(_to_csv([row for row in rows if row.split != UNUSED]).encode()).hexdigest()


def label_text(splits: Splits, film: LabelledFilm) -> str:
    """The class of a film by name; of several labels `name=1`, `name=0` or `name=?`, one after the other."""
    if not splits.labels:
        return splits.classes[film.label]
    known = ("?" if value == MISSING else str(value) for value in film.labels)
    return "; ".join(f"{name}={value}" for name, value in zip(splits.labels, known, strict=True))


def _rows(splits: Splits) -> list[SplitRow]:
    return [
        SplitRow(film.image_id, film.patient_id, name, label_text(splits, film))
        for name, films in (
            ("train", splits.train),
            ("val", splits.val),
            ("test", splits.test),
            (UNUSED, splits.unused),
        )
        for film in films
    ]


def _to_csv(rows: Sequence[SplitRow]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(sorted((row.image_id, row.patient_id, row.split, row.label) for row in rows))
    return file.getvalue()
