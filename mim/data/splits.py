"""Who trains, who chooses the threshold, who is measured: split by patient."""

import csv
import hashlib
import io
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mim.data.duplicates import copies_between
from mim.data.labels import LabelledFilm, LabelledFilms
from mim.data.seed import derive_seed
from mim.data.tables import Split, read_table
from mim.errors import MimError
from mim.files import write_atomically

logger = logging.getLogger(__name__)

_COLUMNS = ("image_id", "patient_id", "split", "label")


@dataclass(frozen=True, slots=True)
class Splits:
    """Labelled films by split; no patient is in two of them."""

    train: tuple[LabelledFilm, ...]
    val: tuple[LabelledFilm, ...]
    test: tuple[LabelledFilm, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitRow:
    """One row of splits.csv; `label` is the name of the class."""

    image_id: str
    patient_id: str
    split: str
    label: str


def split_films(labelled: LabelledFilms, *, val_fraction: float, test_fraction: float, seed: int) -> Splits:
    """Divide labelled films by patient.

    The CSV's `split` column decides where there is one; if it names no validation films, they are drawn from the
    training patients. Without the column all is drawn, stratified by label. What is drawn depends on the seed and on
    the films' paths, not on the salt, so that another machine draws the same.

    Args:
        labelled: The films.
        val_fraction: Share of patients for validation, where it is drawn.
        test_fraction: Share of patients for the test, where it is drawn.
        seed: Of the draw.

    Raises:
        MimError: A patient is in two splits, a split has no films, or training has one class only.
    """
    if labelled.has_split:
        split_of = _written_splits(labelled)
        if "test" not in split_of.values():
            raise MimError(
                f"{labelled.path}: its split column has no test films: add some, or remove it to have them drawn"
            )
        if "val" not in split_of.values():
            training = [film for film in labelled.films if split_of[film.patient_id] == "train"]
            split_of |= _draw(training, val_fraction, 0.0, seed)
            drawn = sum(split_of[film.patient_id] == "val" for film in training)
            logger.info(
                "%s names no validation films: %d of its %d training films were drawn for it (data.val_fraction)",
                *(labelled.path, drawn, len(training)),
            )
    else:
        split_of = _draw(labelled.films, val_fraction, test_fraction, seed)
    films: dict[Split, list[LabelledFilm]] = {"train": [], "val": [], "test": []}
    for film in labelled.films:
        films[split_of[film.patient_id]].append(film)
    splits = Splits(tuple(films["train"]), tuple(films["val"]), tuple(films["test"]), labelled.classes)
    _check(splits, labelled)
    return splits


def assign_splits(
    labels: Mapping[str, int], *, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """Draw a split for each patient, with the same shares in every class.

    The result depends on the seed and the patients' names only, not on their order. Of three or more patients of a
    class, each split whose share is not 0 gets at least one.

    Args:
        labels: Class of each patient, by name.
        val_fraction: Share of patients for validation.
        test_fraction: Share of patients for the test.
        seed: Of the draw.

    Raises:
        MimError: The two shares leave nothing for training.
    """
    if val_fraction + test_fraction >= 1:
        raise MimError(
            f"data.val_fraction {val_fraction} and data.test_fraction {test_fraction} leave no patients for training"
        )
    split_of: dict[str, Split] = {}
    for stratum in _strata(labels, seed).values():
        test = _share(len(stratum), test_fraction, room=len(stratum) - 1)
        val = _share(len(stratum), val_fraction, room=len(stratum) - 1 - test)
        for place, name in enumerate(stratum):
            split_of[name] = "test" if place < test else "val" if place < test + val else "train"
    return split_of


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
    kept: list[LabelledFilm] = []
    for name in _interleave(_strata(_labels_by_name(splits.train), seed)):
        if len(kept) + len(films[name]) > limit:
            break
        kept.extend(films[name])
    if len({film.label for film in kept}) < len(splits.classes):
        raise MimError(f"data.train_limit {limit} is too small to hold a patient of each class: raise it")
    return replace(splits, train=tuple(sorted(kept, key=lambda film: film.index)))


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
    """Hash who is in which split with which label (SHA-256, 64 hexadecimal digits), whatever the order."""
    rows = _rows(splits) if isinstance(splits, Splits) else splits
    return hashlib.sha256(_to_csv(rows).encode()).hexdigest()


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


def _draw(films: Sequence[LabelledFilm], val_fraction: float, test_fraction: float, seed: int) -> dict[str, Split]:
    drawn = assign_splits(_labels_by_name(films), val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    return {patient: drawn[name] for patient, name in _names(films).items()}


def _names(films: Sequence[LabelledFilm]) -> dict[str, str]:
    """Name each patient by the first of his films: unlike the hashed id, that is the same whatever the salt."""
    names: dict[str, str] = {}
    for film in films:
        names[film.patient_id] = min(film.image, names.get(film.patient_id, film.image))
    return names


def _labels_by_name(films: Sequence[LabelledFilm]) -> dict[str, int]:
    """Give each patient the highest of his films' labels."""
    names = _names(films)
    labels: dict[str, int] = {}
    for film in films:
        name = names[film.patient_id]
        labels[name] = max(film.label, labels.get(name, film.label))
    return labels


def _strata(labels: Mapping[str, int], seed: int) -> dict[int, list[str]]:
    """List the patients of each class in an order drawn by seed; who comes before whom depends on those two only."""
    strata: dict[int, list[str]] = {}
    for label in sorted(set(labels.values())):
        names = [name for name, own in labels.items() if own == label]
        strata[label] = sorted(names, key=lambda name: (derive_seed(seed, "patient", name), name))
    return strata


def _share(count: int, fraction: float, room: int) -> int:
    wanted = max(1, int(count * fraction + 0.5)) if fraction > 0 else 0
    return max(0, min(wanted, room))


def _interleave(strata: Mapping[int, Sequence[str]]) -> list[str]:
    """Merge classes in proportion, after one patient of each."""
    places = [
        (place > 0, (place + 0.5) / len(names), label, name)
        for label, names in strata.items()
        for place, name in enumerate(names)
    ]
    return [name for *_, name in sorted(places)]


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
        if len(found) > 1:
            continue
        only = labelled.classes[found.pop()]
        if name == "training":
            raise MimError(
                f"{labelled.path}: the training films have only one class under {labelled.target!r} ({only})"
            )
        logger.warning(
            "%s: the %s films have only one class (%s): it cannot be measured well", labelled.path, name, only
        )
    _warn_of_copies(splits, labelled.path)


def _warn_of_copies(splits: Splits, path: Path) -> None:
    training = {film.content for film in splits.train}
    measured = [*splits.val, *splits.test]
    copies = sum(film.content in training for film in measured)
    if copies:
        logger.warning(
            "%s: %d validation or test films have the same pixels as a training film of another patient", path, copies
        )
    others = {film.index: film.perceptual_hash for film in measured if film.content not in training}
    near = copies_between(others, {film.index: film.perceptual_hash for film in splits.train})
    if near:
        first = min(film.image_id for film in measured if film.index in near)
        logger.warning(
            "%s: %d validation or test films look like copies of training films of other patients (one of them: %s); "
            "the same film may be filed under two patients",
            *(path, len(near), first),
        )


def _rows(splits: Splits) -> list[SplitRow]:
    return [
        SplitRow(film.image_id, film.patient_id, name, splits.classes[film.label])
        for name, films in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for film in films
    ]


def _to_csv(rows: Sequence[SplitRow]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(sorted((row.image_id, row.patient_id, row.split, row.label) for row in rows))
    return file.getvalue()
