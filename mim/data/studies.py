"""Labelled films to studies: what was taken of one patient at one visit, in its order."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mim.data.labels import LabelledFilm, LabelledFilms
from mim.data.matching import FilmFinder
from mim.data.privacy import salted_hash
from mim.data.splits import Splits
from mim.data.store import PreparedDataset
from mim.data.tables import Table, TableRow, read_table
from mim.errors import MimError

logger = logging.getLogger(__name__)

ABSENT = -1
"""In place of the number of a film that is missing or could not be read, and of a label that is not known."""
StudyLabel = Literal["agree", "any"]

_Key = tuple[str, str]  # patient and study: a number such as 1 may stand for a study of each patient


@dataclass(frozen=True, slots=True)
class Study:
    """The films of a patient that were taken together.

    Attributes:
        study_id: Salted hash: of the CSV's study id, else of the header's; else the patient's.
        patient_id: Salted hash; a study is of one patient.
        label: Number of its class.
        films: Numbers of its films in the dataset, in their order; `ABSENT` where a row of the CSV names a film that is
            not in the dataset. One at least is there.
        film_labels: Number of each film's own class; `ABSENT` where the CSV does not say.
        lines: Line in the CSV of each film.
    """

    study_id: str
    patient_id: str
    label: int
    films: tuple[int, ...]
    film_labels: tuple[int, ...]
    lines: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StudySplits:
    """Studies by split; no patient is in two of them.

    Attributes:
        train: Studies to train on.
        val: Studies that choose weights and threshold.
        test: Studies to measure on.
        classes: Names of the classes; a label is a place in this list.
    """

    train: tuple[Study, ...]
    val: tuple[Study, ...]
    test: tuple[Study, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    """A film's place in its study; `film` and `label` may be ABSENT."""

    film: int
    label: int
    line: int
    order: int | None
    name: str


def group_studies(
    dataset: PreparedDataset,
    source: Path,
    labelled: LabelledFilms,
    salt: bytes,
    *,
    label: StudyLabel = "agree",
    max_films: int | None = None,
) -> tuple[Study, ...]:
    """Group labelled films into studies.

    A film is of the study that the column `study_id` of the CSV names, else of the one in its header, else all films of
    the patient are one study. Its place is the whole number under `series_order`, else the header's Instance Number;
    films without either come last, by name. Films whose label is empty belong to a study with others that have one.
    Rows whose film is missing or could not be read stand for a film that is absent, if their study can be told: by
    `patient_id` and `study_id`, or by the one of them that fits a single study.

    Args:
        dataset: The films.
        source: The folder of films (data.path).
        labelled: What `attach_labels` made of the CSV.
        salt: What the dataset's ids were hashed with.
        label: `agree`: all rows of a study that have a label have the same. `any`: a study is positive where any of its
            rows is, read or not, and otherwise negative.
        max_films: Of longer studies absent films are left out first; then films at even distances over the order are
            kept, with the first and the last.

    Returns:
        Studies of which at least one film is there and one row has a label, in the order of the dataset.

    Raises:
        MimError: Rows of a study have different labels (`agree`), or an order is no whole number.
    """
    table = read_table(labelled.path)
    groups: dict[_Key, list[_Slot]] = defaultdict(list)
    rows = {row.line: row for row in table.rows}
    for film in labelled.films:
        row = rows[film.line]
        groups[film.patient_id, _study_of(dataset, film, row, salt)].append(
            _Slot(film.index, film.label, film.line, _order(table, row, dataset, film.index), film.image)
        )
    _add_others(dataset, FilmFinder(dataset, source, table.path), labelled, table, salt, groups)
    _tell_of_shared_ids(labelled.path, groups)
    studies = (_make(labelled, key, slots, label, max_films) for key, slots in groups.items())
    return tuple(sorted(studies, key=lambda study: next(film for film in study.films if film != ABSENT)))


def split_studies(studies: Sequence[Study], splits: Splits, path: Path) -> StudySplits:
    """Put studies where their patients are (`mim.data.split_films`); those of patients left out are left out.

    Args:
        studies: From `group_studies`.
        splits: The films by split.
        path: The CSV, for messages.

    Raises:
        MimError: A split has no studies, or training has studies of one class only.
    """
    by_split: dict[str, tuple[Study, ...]] = {}
    for name, films in (("training", splits.train), ("validation", splits.val), ("test", splits.test)):
        patients = {film.patient_id for film in films}
        chosen = by_split[name] = tuple(study for study in studies if study.patient_id in patients)
        found = {study.label for study in chosen}
        if not chosen or (name == "training" and len(found) == 1):
            has = f"only studies of class {splits.classes[found.pop()]}" if found else "no studies"
            raise MimError(f"{path}: the {name} has {has}; see data.study_label, and the split of the patients")
        if len(found) == 1:
            only = splits.classes[found.pop()]
            logger.warning("%s: the %s has only studies of class %s: it cannot be measured well", path, name, only)
    return StudySplits(by_split["training"], by_split["validation"], by_split["test"], splits.classes)


def _study_of(dataset: PreparedDataset, film: LabelledFilm, row: TableRow, salt: bytes) -> str:
    written = row.cells.get("study_id", "")
    return salted_hash(salt, written) if written else dataset.rows[film.index].study_id or film.patient_id


def _order(table: Table, row: TableRow, dataset: PreparedDataset, film: int) -> int | None:
    written = row.cells.get("series_order", "")
    if not written:
        return None if film == ABSENT else dataset.rows[film].series_order
    try:
        return int(written)
    except ValueError:
        raise MimError(f"{table.path}, row {row.line}: what stands under 'series_order' is no whole number") from None


def _add_others(
    dataset: PreparedDataset,
    finder: FilmFinder,
    labelled: LabelledFilms,
    table: Table,
    salt: bytes,
    groups: dict[_Key, list[_Slot]],
) -> None:
    """Add films without a label, and places of films that are absent, to the studies that have films with one."""
    has_label = {film.index for film in labelled.films}
    patient_of = {film.header_patient_id: film.patient_id for film in labelled.films if film.header_patient_id}
    known = _Known(groups)
    unplaced = 0
    for row in table.rows:
        patient, study = (row.cells.get(column, "") for column in ("patient_id", "study_id"))
        patient, study = (salted_hash(salt, written) if written else "" for written in (patient, study))
        films = finder.find(row.cells["image"])
        for number in films:
            if number in has_label:
                continue
            has_label.add(number)
            film = dataset.rows[number]
            who = patient or patient_of.get(film.patient_id, "")
            key = known.only(who, study or film.study_id)
            if key is not None:
                groups[key].append(_Slot(number, ABSENT, row.line, _order(table, row, dataset, number), film.image))
        if not films:
            key = known.only(patient, study)
            unplaced += key is None
            if key is not None:
                label = _class_of(labelled, row)
                groups[key].append(
                    _Slot(ABSENT, label, row.line, _order(table, row, dataset, ABSENT), row.cells["image"])
                )
    if unplaced:
        logger.info("%s: of %d films that are absent the study cannot be told", table.path, unplaced)


class _Known:
    """Finds a study by what is known of a film.

    Args:
        keys: All studies.
    """

    def __init__(self, keys: Iterable[_Key]) -> None:
        self._fitting: dict[_Key, list[_Key]] = defaultdict(list)
        for patient, study in keys:
            for known in ((patient, study), (patient, ""), ("", study)):
                self._fitting[known].append((patient, study))

    def only(self, patient: str, study: str) -> _Key | None:
        """Return the one study that fits; None where none does, or more than one. What is not known is empty."""
        fitting = self._fitting.get((patient, study), [])
        return fitting[0] if len(fitting) == 1 else None


def _class_of(labelled: LabelledFilms, row: TableRow) -> int:
    written = row.cells[labelled.target]
    return labelled.classes.index(written) if written in labelled.classes else ABSENT


def _make(labelled: LabelledFilms, key: _Key, slots: Sequence[_Slot], rule: StudyLabel, max_films: int | None) -> Study:
    known = [slot for slot in slots if slot.label != ABSENT]
    differing = next((slot for slot in known if slot.label != known[0].label), None)
    if rule == "agree" and differing is not None:
        raise MimError(
            f"{labelled.path}: rows {known[0].line} and {differing.line} are of one study and differ under "
            f"{labelled.target!r}: give each row the label of the study, or call a study positive where any of its "
            "films is (data.study_label=any)"
        )
    ordered = sorted(slots, key=lambda slot: (slot.order is None, slot.order or 0, slot.name, slot.film))
    kept = _limit(ordered, max_films)
    return Study(
        study_id=key[1],
        patient_id=key[0],
        label=max(slot.label for slot in known),
        films=tuple(slot.film for slot in kept),
        film_labels=tuple(slot.label for slot in kept),
        lines=tuple(slot.line for slot in kept),
    )


def _limit(slots: Sequence[_Slot], most: int | None) -> Sequence[_Slot]:
    if most is None or len(slots) <= most:
        return slots
    there = [slot for slot in slots if slot.film != ABSENT]
    if len(there) <= most:
        spare = iter(range(most - len(there)))
        return [slot for slot in slots if slot.film != ABSENT or next(spare, None) is not None]
    return [there[place] for place in spread(len(there), most)]


def spread(films: int, most: int | None) -> list[int]:
    """Give the places of the films that are kept of a longer study: at even distances, with the first and the last.

    Args:
        films: How many there are.
        most: How many are kept; None = all.
    """
    if most is None or films <= most:
        return list(range(films))
    return [int(place) for place in np.linspace(0, films - 1, most).round()]


def _tell_of_shared_ids(path: Path, groups: Mapping[_Key, Sequence[_Slot]]) -> None:
    patients: dict[str, set[str]] = defaultdict(set)
    for patient, study in groups:
        patients[study].add(patient)
    shared = sum(len(own) > 1 for own in patients.values())
    if shared:
        logger.warning(
            "%s: %d study ids stand with more than one patient: the films of each patient are a study of their own",
            *(path, shared),
        )


def films_of(studies: Sequence[Study]) -> Iterator[int]:
    """Give the number of each film that is there, study by study."""
    return (film for study in studies for film in study.films if film != ABSENT)
