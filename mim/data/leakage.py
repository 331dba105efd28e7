"""No patient of the test is met before: what pretraining leaves out, and the check afterwards."""

import csv
import io
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mim.data.copies import FLAT_CONTENTS
from mim.data.duplicates import copies_between
from mim.data.labels import LabelledFilm
from mim.data.matching import FilmFinder, folders_of_labels
from mim.data.privacy import salted_hash
from mim.data.store import PreparedDataset, is_prepared
from mim.data.tables import Table, parse_split, read_table
from mim.errors import MimError
from mim.files import write_atomically

logger = logging.getLogger(__name__)

_COLUMNS = ("patient_id", "sha256", "content", "salt_check")
_LOOKS = ("image_id", "perceptual_hash")  # not in the files of earlier versions


@dataclass(frozen=True, slots=True)
class SeenFilm:
    """A film that a pretraining run met, by hashes alone; see `ManifestRow` for what they are."""

    image_id: str
    patient_id: str
    content: str
    perceptual_hash: str


@dataclass(frozen=True, slots=True)
class SeenFilms:
    """What a pretraining run met.

    Attributes:
        patients: Salted hashes of patient ids, where they were known.
        contents: Hashes of the films, however stored (see `ManifestRow.content`).
        salt_check: Which salt made the patients' hashes.
        films: Each of them, with what it looks like; None where an earlier version wrote the list without.
    """

    patients: frozenset[str]
    contents: frozenset[str]
    salt_check: str
    films: tuple[SeenFilm, ...] | None = None


def excluded_from_pretraining(dataset: PreparedDataset, source: Path, exclude: str, salt: bytes) -> set[int]:
    """Find the films that pretraining must not meet: those of the test split of a CSV.

    A film is left out if a row of the test split names it; if its patient, by the header or by any row of the CSV, has
    such a row or such a film; or if it has the same pixels as such a film, or looks like a copy of it.

    Args:
        dataset: The films.
        source: The folder of films, or the prepared dataset (data.path).
        exclude: "auto" (labels.csv in `source`, else in the folder above), "none", or a CSV with columns `image` and
            `split`, relative to the working folder or to `source`.
        salt: What the dataset's ids were hashed with.

    Returns:
        Numbers of films in the dataset.

    Raises:
        MimError: The CSV that was asked for is missing or lacks a column, or a split is not a known word.
    """
    if exclude == "none":
        return set()
    table = _find_table(dataset, source) if exclude == "auto" else _read_exclusion(source, exclude)
    if table is None:
        return set()
    test = [row for row in table.rows if row.cells["split"] and parse_split(table, row) == "test"]
    finder = FilmFinder(dataset, source, table.path)
    named = {number for row in test for number in finder.find(row.cells["image"])}
    patients = {salted_hash(salt, row.cells["patient_id"]) for row in test if row.cells.get("patient_id")}
    patients |= {dataset.rows[number].patient_id for number in named} - {""}
    others = [row for row in table.rows if row.cells.get("patient_id")]  # films of no header, or of other splits
    named |= {
        number
        for row in others
        if salted_hash(salt, row.cells["patient_id"]) in patients
        for number in finder.find(row.cells["image"])
    }
    contents = {dataset.rows[number].content for number in named} - FLAT_CONTENTS
    excluded = {
        number
        for number, row in enumerate(dataset.rows)
        if number in named or row.patient_id in patients or row.content in contents
    }
    remaining = {number: row.perceptual_hash for number, row in enumerate(dataset.rows) if number not in excluded}
    excluded |= copies_between(remaining, {number: dataset.rows[number].perceptual_hash for number in named})
    logger.info(
        "%d of %d films are left out of pretraining: the test split of %s names them or their patients",
        *(len(excluded), len(dataset), table.path),
    )
    return excluded


def _find_table(dataset: PreparedDataset, source: Path) -> Table | None:
    for folder in folders_of_labels(source, dataset.source if is_prepared(source) else None):
        path = folder / "labels.csv"
        if path.is_file():
            table = read_table(path)
            if {"image", "split"} <= set(table.columns):
                return table
            logger.warning(
                "%s has no columns image and split: nothing is left out of pretraining for it, and fine-tuning will "
                "stop at the test films it draws from these; add a split column (data.exclude)",
                path,
            )
    return None


def _read_exclusion(source: Path, exclude: str) -> Table:
    path = Path(exclude) if Path(exclude).is_file() else source / exclude
    if not path.is_file():
        raise MimError(f"{exclude}: there is no such CSV (data.exclude); auto and none are the other choices")
    table = read_table(path)
    table.require("image", "data.exclude")
    table.require("split", "data.exclude")
    return table


def save_seen(path: Path, dataset: PreparedDataset, indices: Iterable[int]) -> None:
    """Write seen.csv, the films that a pretraining run meets, by hashes alone."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow((*_COLUMNS, *_LOOKS))
    for number in sorted(indices):
        row = dataset.rows[number]
        known = (row.patient_id, row.sha256, row.content, dataset.salt_check)
        writer.writerow((*known, row.image_id, row.perceptual_hash))
    write_atomically(path, table.getvalue())


def load_seen(path: Path) -> SeenFilms:
    """Read what `save_seen` wrote.

    Raises:
        MimError: The file is missing or lacks a column.
    """
    table = read_table(path)
    for column in _COLUMNS:
        table.require(column)
    checks = {row.cells["salt_check"] for row in table.rows}
    if len(checks) > 1:
        raise MimError(f"{path}: ids were hashed with more than one salt: it is not the list of one run")
    patients = frozenset(row.cells["patient_id"] for row in table.rows) - {""}
    contents = frozenset(row.cells["content"] for row in table.rows)
    films = None
    if set(_LOOKS) <= set(table.columns):
        columns = ("image_id", "patient_id", "content", "perceptual_hash")
        films = tuple(SeenFilm(*(row.cells[column] for column in columns)) for row in table.rows)
    return SeenFilms(patients, contents, checks.pop() if checks else "", films)


def check_unseen(
    test: Sequence[LabelledFilm], seen: SeenFilms, salt_check: str, policy: Literal["stop", "report"]
) -> int:
    """Count the test films that pretraining met: the film itself, or another film of its patient.

    Args:
        test: Films of the test split.
        seen: What pretraining met.
        salt_check: Which salt made the ids of `test` (`PreparedDataset.salt_check`).
        policy: "stop" to raise if there are any, "report" to warn.

    Raises:
        MimError: There are some, and the policy is "stop".
    """
    if seen.patients and seen.salt_check != salt_check:
        logger.warning(
            "patients of pretraining and of the test were hashed with different salts: only films with the same pixels "
            "can be found; use the same data.cache for both"
        )
    met = [
        film
        for film in test
        if (film.content in seen.contents and film.content not in FLAT_CONTENTS)
        or not seen.patients.isdisjoint((film.patient_id, film.header_patient_id))
    ]
    if not met:
        return 0
    patients = len({film.patient_id for film in met})
    said = (
        f"{len(met)} of {len(test)} test films, of {patients} patients (the first: {met[0].patient_id}, hashed), "
        "were met in pretraining"
    )
    if policy == "stop":
        raise MimError(
            f"{said}: pretrain again with data.exclude=<the CSV with their split>, "
            "or go on and have it reported with data.seen_in_pretraining=report"
        )
    logger.warning("%s (data.seen_in_pretraining=report)", said)
    return len(met)
