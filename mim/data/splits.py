"""Who trains, who chooses the threshold, who is measured: split by patient."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mim.data.copies import copies_of
from mim.data.drawing import (
    assign_folds,
    assign_splits,
    first_of_each_class,
    group_patients,
    held_out_sites,
    interleave,
    labels_by_group,
    newest,
    site_folds,
    strata,
)
from mim.data.duplicates import copies_between
from mim.data.labels import LabelledFilm, LabelledFilms
from mim.data.tables import Split
from mim.errors import MimError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Splits:
    """Labelled films by split; no patient is in two of them.

    Attributes:
        train: Films to train on.
        val: Films that choose weights and threshold.
        test: Films to measure on.
        classes: Names of the classes; a label is a place in this list. Of several labels: what films are drawn by.
        unused: Training films that `data.label_fraction` or `data.train_limit` leaves out.
        labels: Names of several labels; empty where there is one column, or none.
    """

    train: tuple[LabelledFilm, ...]
    val: tuple[LabelledFilm, ...]
    test: tuple[LabelledFilm, ...]
    classes: tuple[str, ...]
    unused: tuple[LabelledFilm, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Draw:
    """How patients are drawn; see `split_films`."""

    val_fraction: float
    test_fraction: float
    seed: int
    split_by: Literal["patient", "site", "date"]
    folds: int | None
    fold: int


def split_films(
    labelled: LabelledFilms,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    split_by: Literal["patient", "site", "date"] = "patient",
    folds: int | None = None,
    fold: int = 0,
    copies: Literal["stop", "report"] = "stop",
) -> Splits:
    """Divide labelled films by patient.

    The CSV's `split` column decides where there is one; if it names no validation films, they are drawn from the
    training patients, and with `folds` one fold of the training and validation patients is the validation. Without the
    column all is drawn: the test is a share of the patients, whole sites, the newest patients, or one of `folds`; the
    validation is drawn from the others, stratified by label. What is drawn depends on the seed and on the films' paths,
    not on the salt or on the order of rows, so that another machine draws the same. Patients who share a film are
    drawn together.

    Args:
        labelled: The films.
        val_fraction: Share of patients for validation, where it is drawn.
        test_fraction: Share of patients for the test, where it is drawn; without effect on folds.
        seed: Of the draw.
        split_by: What the test is apart in: patients, whole sites (column `site`), or time (column `date`).
        folds: Number of folds for cross-validation.
        fold: Which of them is measured, from 0.
        copies: What to do when a validation or test film is a copy of a training film: stop, or report it in a warning.

    Raises:
        MimError: A patient is in two splits, a split has no films, training has one class only, a film is in training
            and elsewhere, or a column that `split_by` needs is missing.
    """
    if folds is None and fold:
        raise MimError(f"data.fold {fold} says nothing without data.folds: give both")
    if folds is not None and not 0 <= fold < folds:
        raise MimError(f"data.fold {fold} is none of the {folds} folds (data.folds); the first is 0")
    if split_by == "date" and folds is not None:
        raise MimError(
            "data.folds cannot be had with data.split_by=date: time runs once; set one of them to its default"
        )
    draw = _Draw(val_fraction, test_fraction, seed, split_by, folds, fold)
    groups = group_patients(labelled.films)
    if labelled.has_split:
        split_of = _from_column(labelled, groups, draw)
    else:
        drawn = _draw(labelled, groups, draw)
        split_of = {patient: drawn[name] for patient, name in groups.items()}
    films: dict[Split, list[LabelledFilm]] = {"train": [], "val": [], "test": []}
    for film in labelled.films:
        films[split_of[film.patient_id]].append(film)
    parts = (tuple(films["train"]), tuple(films["val"]), tuple(films["test"]))
    splits = Splits(*parts, labelled.classes, labels=labelled.labels)
    _check(splits, labelled)
    _check_copies(splits, labelled, copies)
    _warn_of_near_copies(splits, labelled.path)
    return splits


def limit_training(splits: Splits, limit: int | None, seed: int) -> Splits:
    """Keep at most `limit` training films: whole patients, drawn by seed, both classes, in about their proportion.

    A larger limit keeps all that a smaller one keeps.

    Raises:
        MimError: The limit is too small to hold a patient of each class.
    """
    if limit is None or limit >= len(splits.train):
        return splits
    names = _names(splits.train)
    films: dict[str, list[LabelledFilm]] = defaultdict(list)
    for film in splits.train:
        films[names[film.patient_id]].append(film)
    kept: set[str] = set()
    count = 0
    for name in interleave(strata(labels_by_group(splits.train, names), seed)):
        if count + len(films[name]) > limit:
            break
        kept.add(name)
        count += len(films[name])
    limited = _keep(splits, names, kept)
    if len({film.label for film in limited.train}) < len(splits.classes):
        raise MimError(f"data.train_limit {limit} is too small to hold a patient of each class: raise it")
    return limited


def take_label_fraction(splits: Splits, fraction: float, seed: int) -> Splits:
    """Keep a share of the training patients of each class, at least one of each, drawn by seed.

    A larger share keeps all that a smaller one keeps. Validation and test stay as they are.
    """
    if fraction >= 1:
        return splits
    names = _names(splits.train)
    return _keep(splits, names, first_of_each_class(labels_by_group(splits.train, names), fraction, seed))


def count_copies(splits: Splits) -> int:
    """Count validation and test films that are copies of a training film."""
    training = copies_of(splits.train)
    return sum(film.content in training for film in (*splits.val, *splits.test))


def _from_column(labelled: LabelledFilms, groups: Mapping[str, str], draw: _Draw) -> dict[str, Split]:
    """Take the test from the CSV's split column, and the validation too if nothing else is asked for."""
    if draw.split_by != "patient":
        raise MimError(
            f"{labelled.path}: its split column decides, so data.split_by={draw.split_by} has nothing to draw: "
            "remove one"
        )
    split_of = _written_splits(labelled)
    if "test" not in split_of.values():
        raise MimError(
            f"{labelled.path}: its split column has no test films: add some, or remove it to have them drawn"
        )
    if draw.folds is None and "val" in split_of.values():
        return split_of
    others = [film for film in labelled.films if split_of[film.patient_id] != "test"]
    labels = labels_by_group(others, groups)
    if draw.folds is None:
        drawn = assign_splits(labels, val_fraction=draw.val_fraction, test_fraction=0.0, seed=draw.seed)
    else:
        drawn = {
            name: "val" if own == draw.fold else "train"
            for name, own in assign_folds(labels, draw.folds, draw.seed).items()
        }
    split_of |= {film.patient_id: drawn[groups[film.patient_id]] for film in others}
    if draw.folds is None:
        logger.info(
            "%s names no validation films: %d of its %d training films were drawn for it (data.val_fraction)",
            *(labelled.path, sum(split_of[film.patient_id] == "val" for film in others), len(others)),
        )
    return split_of


def _written_splits(labelled: LabelledFilms) -> dict[str, Split]:
    first: dict[str, LabelledFilm] = {}
    for film in labelled.films:
        earlier = first.setdefault(film.patient_id, film)
        if earlier.split != film.split:
            raise MimError(
                f"{labelled.path}: patient {film.patient_id} (hashed) is in {earlier.split} in row {earlier.line} and "
                f"in {film.split} in row {film.line}: a patient belongs to one split"
            )
    return {patient: film.split for patient, film in first.items() if film.split is not None}


def _draw(labelled: LabelledFilms, groups: Mapping[str, str], draw: _Draw) -> dict[str, Split]:
    labels = labels_by_group(labelled.films, groups)
    if draw.split_by == "patient" and draw.folds is None:
        return assign_splits(labels, val_fraction=draw.val_fraction, test_fraction=draw.test_fraction, seed=draw.seed)
    if draw.split_by == "date":
        dates: dict[str, str] = {}
        for film, date in _known(labelled, "date"):
            dates[groups[film.patient_id]] = max(date, dates.get(groups[film.patient_id], ""))
        test = newest(dates, draw.test_fraction)
    elif draw.split_by == "site":
        sites: dict[str, set[str]] = defaultdict(set)
        for film, site in _known(labelled, "site"):
            sites[site].add(groups[film.patient_id])
        if draw.folds is None:
            held = held_out_sites(sites, draw.test_fraction, draw.seed)
        else:
            held = {site for site, own in site_folds(sites, draw.folds, draw.seed).items() if own == draw.fold}
        test = set().union(*(sites[site] for site in held))
        logger.info("the test is %d of %d sites (data.split_by=site)", len(held), len(sites))
    else:
        assert draw.folds is not None
        test = {name for name, own in assign_folds(labels, draw.folds, draw.seed).items() if own == draw.fold}
    rest = {name: label for name, label in labels.items() if name not in test}
    val_fraction = draw.val_fraction * len(labels) / max(1, len(rest))  # of those who are left, as many as of all
    if not rest or val_fraction >= 1:
        raise MimError(
            f"{labelled.path}: the test takes {len(test)} of {len(labels)} patients (data.split_by={draw.split_by}), "
            f"and data.val_fraction {draw.val_fraction} leaves none of the others for training"
        )
    drawn = assign_splits(rest, val_fraction=val_fraction, test_fraction=0.0, seed=draw.seed)
    return drawn | dict.fromkeys(test, "test")


def _known(labelled: LabelledFilms, column: Literal["site", "date"]) -> list[tuple[LabelledFilm, str]]:
    """Each film with what stands under a column; the column must be there and filled."""
    if column not in labelled.columns:
        raise MimError(f"{labelled.path} has no column {column!r}, which data.split_by={column} needs")
    found = [(film, film.site if column == "site" else film.date) for film in labelled.films]
    empty = next((film.line for film, value in found if not value), None)
    if empty is not None:
        raise MimError(f"{labelled.path}, row {empty}: the cell under {column!r} is empty (data.split_by={column})")
    return found


def _names(films: Sequence[LabelledFilm]) -> dict[str, str]:
    """Name each patient by the first of his films: unlike the hashed id, that is the same whatever the salt."""
    names: dict[str, str] = {}
    for film in films:
        names[film.patient_id] = min(film.image, names.get(film.patient_id, film.image))
    return names


def _keep(splits: Splits, names: Mapping[str, str], kept: set[str]) -> Splits:
    """Train on some patients only."""
    train = tuple(film for film in splits.train if names[film.patient_id] in kept)
    left = tuple(film for film in splits.train if names[film.patient_id] not in kept)
    return replace(splits, train=train, unused=(*splits.unused, *left))


def _check(splits: Splits, labelled: LabelledFilms) -> None:
    for name, films, setting in (
        ("training", splits.train, "data.val_fraction or data.test_fraction"),
        ("validation", splits.val, "data.val_fraction"),
        ("test", splits.test, "data.test_fraction"),
    ):
        found = {film.label for film in films}
        if not films:
            raise MimError(
                f"{labelled.path}: no {name} films among {len(labelled.films)} labelled ones: change {setting}"
            )
        if len(found) > 1 or len(labelled.classes) == 1:
            continue
        only = labelled.classes[found.pop()]
        if name == "training":
            raise MimError(
                f"{labelled.path}: the training films have only one class under {labelled.target!r} ({only})"
            )
        logger.warning(
            "%s: the %s films have only one class (%s): it cannot be measured well", labelled.path, name, only
        )


def _check_copies(splits: Splits, labelled: LabelledFilms, policy: str) -> None:
    training = copies_of(splits.train)
    copied = [film for film in (*splits.val, *splits.test) if film.content in training]
    if not copied:
        return
    rows = f"rows {training[copied[0].content][0].line} and {copied[0].line}"
    said = (
        f"{labelled.path}: {len(copied)} validation or test films have the same pixels as a training film of another "
        f"patient (the first: {rows})"
    )
    if policy == "stop":
        raise MimError(
            f"{said}: keep one of each, or give both one patient_id and one split, or go on and have it reported with "
            "data.copies_across_splits=report"
        )
    logger.warning("%s (data.copies_across_splits=report)", said)


def _warn_of_near_copies(splits: Splits, path: Path) -> None:
    exact = copies_of(splits.train)
    measured = [film for film in (*splits.val, *splits.test) if film.content not in exact]
    near = copies_between(
        {film.index: film.perceptual_hash for film in measured},
        {film.index: film.perceptual_hash for film in splits.train},
    )
    if near:
        first = min(film.image_id for film in measured if film.index in near)
        logger.warning(
            "%s: %d validation or test films look like copies of training films of other patients (one of them: %s); "
            "the same film may be filed under two patients",
            *(path, len(near), first),
        )
