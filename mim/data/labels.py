"""Labels from a CSV, joined to the films of a prepared dataset."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mim.data.label_values import LabelKind, LabelValues, read_values
from mim.data.matching import FilmFinder, locate
from mim.data.patients import join_patients
from mim.data.privacy import salted_hash
from mim.data.store import PreparedDataset
from mim.data.tables import Split, Table, TableRow, parse_date, parse_split, read_table
from mim.errors import MimError

logger = logging.getLogger(__name__)

_NAMED = 3  # rows a warning quotes


@dataclass(frozen=True, slots=True)
class LabelledFilm:
    """A film with its label.

    Attributes:
        index: Its number in the dataset.
        image_id: Salted hash of its path and frame.
        image: Its path relative to the folder of films.
        label: Number of its class.
        patient_id: Salted hash: of the CSV's patient id, else of the header's; else the image_id of the file's first
            frame, so that the film is a patient of its own.
        header_patient_id: Salted hash of the header's patient id; empty where there is none.
        content: Hash that knows the film again however it is stored.
        split: What the CSV says.
        line: Its line in the CSV.
        perceptual_hash: Hash that differs little between copies of a film (see `mim.data.duplicates`).
        site: Where it was taken, as the CSV says; never written anywhere by this name.
        date: When it was taken, as the CSV says (yyyymmdd); never written anywhere.
        labels: Of several labels which it has: 1, 0, or -1 where that is not known; empty where there is one column.
    """

    index: int
    image_id: str
    image: str
    label: int
    patient_id: str
    header_patient_id: str
    content: str
    split: Split | None
    line: int
    perceptual_hash: str = ""
    site: str = ""
    date: str = ""
    labels: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledFilms:
    """The labelled films of a dataset.

    Attributes:
        films: In the order of the dataset.
        classes: Values of the target column, of several labels what films are drawn by; a label is a place in this
            list.
        target: The label column; empty where none is learnt; of several labels all their names.
        path: The CSV.
        has_split: Whether the CSV has a `split` column.
        unlabelled: Rows of the CSV whose target is empty.
        missing: What the `image` column of other rows names and the dataset does not have.
        columns: All columns of the CSV.
        labels: Names of several labels; empty where there is one column, or none.
    """

    films: tuple[LabelledFilm, ...]
    classes: tuple[str, ...]
    target: str
    path: Path
    has_split: bool
    unlabelled: int
    missing: tuple[str, ...]
    columns: tuple[str, ...]
    labels: tuple[str, ...] = ()


def attach_labels(
    dataset: PreparedDataset,
    source: Path,
    labels_csv: Path | str,
    target: str | Sequence[str] | None,
    salt: bytes,
    *,
    kind: LabelKind = "two",
    order: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> LabelledFilms:
    """Join the labels of a CSV to the films of a dataset.

    The CSV has a column `image` (a path relative to the CSV's folder or to `source`, or a file name that is unique) and
    the target column; `patient_id`, `split` (train, val or validation, test), `site` and `date` are used where present.
    A row stands for all frames of its file.

    Args:
        dataset: The films.
        source: The folder of films, or the prepared dataset (data.path).
        labels_csv: The CSV, relative to `source` or to the folder that the dataset was prepared from.
        target: The label column; a film whose cell is empty is unlabelled. A list = several labels, each a column of 0
            and 1; a film is unlabelled where all its cells are empty. None = every row counts, and all films are of one
            class: what is learnt stands elsewhere, and the CSV says whose films they are.
        salt: What the dataset's ids were hashed with (`mim.data.dataset_salt`).
        kind: What the values of one column are: exactly two classes, two or more, or grades in their order.
        order: The grades, mildest first; None = where it is known.
        classes: Those of a finished run, which the labels must be of (`mim.data.label_values.read_values`); None = the
            CSV says it.

    Raises:
        MimError: A file or column is missing, a film has two labels, a split is not a known word, a date is not one, or
            the labels are not such as they should be.
    """
    path = locate(dataset, source, labels_csv)
    if not path.is_file():
        raise MimError(f"{path}: there is no such file (data.labels is relative to data.path)")
    table = read_table(path)
    table.require("image")
    columns = () if target is None else (target,) if isinstance(target, str) else tuple(target)
    for column in columns:
        table.require(column, "data.target")
    finder = FilmFinder(dataset, source, table.path)
    found, missing, unlabelled = _match(dataset, table, columns, finder)
    if missing:
        logger.warning(
            "%s: %d rows name films that are not in the dataset (rows %s); they are absent or were skipped, see "
            "report.json",
            *(table.path, len(missing), _quote(missing)),
        )
    if not found:
        which = f"no row with a value under {' or '.join(map(repr, columns))}" if columns else "no row"
        raise MimError(f"{table.path}: {which} names a film of {source} (data.labels)")
    has_split = "split" in table.columns
    in_order = dict(sorted(found.items()))
    values = read_values(table.path, list(in_order.values()), target, kind, order, classes)
    films = []
    for place, (number, row) in enumerate(in_order.items()):
        split = parse_split(table, row) if has_split else None
        films.append(_label(dataset, number, row, values, place, split, parse_date(table, row), salt))
    films = _with_one_id_each(table, films)
    _warn_of_unknown_patients(table, films)
    if target is not None and any(row.tile is not None for row in dataset.rows):
        logger.warning(
            "%s: films are cut into tiles, and each tile takes the label of its film, also where it does not show what "
            "the label says (data.tile)",
            table.path,
        )
    return LabelledFilms(
        tuple(films),
        values.classes,
        ", ".join(columns),
        table.path,
        has_split,
        unlabelled,
        tuple(missing.values()),
        table.columns,
        values.labels,
    )


def _match(
    dataset: PreparedDataset, table: Table, columns: Sequence[str], finder: FilmFinder
) -> tuple[dict[int, TableRow], dict[int, str], int]:
    """Find the labelled rows' films; also the names that match none, by row, and the number of rows without a label."""
    found: dict[int, TableRow] = {}
    missing: dict[int, str] = {}
    unlabelled = 0
    for row in table.rows:
        if not row.cells["image"]:
            raise MimError(f"{table.path}, row {row.line}: the cell under 'image' is empty")
        if columns and not any(row.cells[column] for column in columns):
            unlabelled += 1
            continue
        numbers = dataset.meant(finder.find(row.cells["image"]), row.cells)
        if not numbers:
            missing[row.line] = row.cells["image"]
        for number in numbers:
            _check_agreement(table.path, columns, found.setdefault(number, row), row)
    return found, missing, unlabelled


def _check_agreement(path: Path, columns: Sequence[str], first: TableRow, second: TableRow) -> None:
    for column in (
        *columns,
        "patient_id",
        "study_id",
        "series_order",
        "split",
        "site",
        "date",
    ):
        if first.cells.get(column) != second.cells.get(column):
            raise MimError(
                f"{path}: rows {first.line} and {second.line} name the same film but differ under {column!r}: "
                "keep the right one"
            )


def _label(
    dataset: PreparedDataset,
    number: int,
    row: TableRow,
    values: LabelValues,
    place: int,
    split: Split | None,
    date: str,
    salt: bytes,
) -> LabelledFilm:
    film = dataset.rows[number]
    written = row.cells.get("patient_id", "")
    patient = salted_hash(salt, written) if written else film.patient_id or salted_hash(salt, f"{film.image}#0")
    return LabelledFilm(
        index=number,
        image_id=film.image_id,
        image=film.image,
        label=values.of_row[place],
        patient_id=patient,
        header_patient_id=film.patient_id,
        content=film.content,
        split=split,
        line=row.line,
        perceptual_hash=film.perceptual_hash,
        site=row.cells.get("site", ""),
        date=date,
        labels=values.several[place] if values.labels else (),
    )


def _with_one_id_each(table: Table, films: Sequence[LabelledFilm]) -> list[LabelledFilm]:
    """Give films whose row has no patient the id that the table has for other films of the same header's patient."""
    written = {row.line for row in table.rows if row.cells.get("patient_id")}
    try:
        joined = join_patients(
            {film.index: film.patient_id if film.line in written else "" for film in films},
            {film.index: film.header_patient_id for film in films},
        )
    except MimError as error:
        raise MimError(f"{table.path}: {error}") from None
    return [replace(film, patient_id=joined[film.index] or film.patient_id) for film in films]


def _warn_of_unknown_patients(table: Table, films: Sequence[LabelledFilm]) -> None:
    written = {row.line for row in table.rows if row.cells.get("patient_id")}
    unknown = sum(not film.header_patient_id and film.line not in written for film in films)
    if unknown:
        logger.warning(
            "%s: the patient of %d of %d labelled films is not known (no patient_id in the CSV or the file): "
            "each file counts as a patient of its own",
            *(table.path, unknown, len(films)),
        )


def _quote(rows: Iterable[int]) -> str:
    """The first rows; their names stay out of the logs, for files are often named after patients."""
    numbers = [str(row) for row in rows]
    return ", ".join(numbers[:_NAMED]) + (", ..." if len(numbers) > _NAMED else "")
