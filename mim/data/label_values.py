"""What stands under label columns: two classes, several, grades in order, or several labels of 0 and 1."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mim.data.grades import order_grades
from mim.data.tables import TableRow
from mim.errors import MimError

LabelKind = Literal["two", "classes", "ordered"]

ONE_CLASS = "film"  # of all films where no column is learnt
NONE_POSITIVE = "none"
MISSING = -1
"""In place of 0 or 1 where it is not known whether a film has a label."""
NOT_KNOWN = frozenset({"nan", "na", "n/a", "<na>", "null"})  # what programs write for a missing value
MOST_CLASSES = 100  # more values are rather ids, ages or dates


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The labels of some rows.

    Attributes:
        classes: Names of the classes that films are drawn by.
        of_row: Place of each row's class in `classes`.
        labels: Names of several labels; empty where there is one column, or none.
        several: For each row as many of 0, 1 and `MISSING` as there are `labels`.
    """

    classes: tuple[str, ...]
    of_row: tuple[int, ...]
    labels: tuple[str, ...] = ()
    several: tuple[tuple[int, ...], ...] = ()


def read_values(
    path: Path,
    rows: Sequence[TableRow],
    target: str | Sequence[str] | None,
    kind: LabelKind = "two",
    order: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> LabelValues:
    """Read the labels of rows.

    Several labels are not drawn by all their combinations, of which many have one film: the class of a film is the
    rarest of the labels that it has, so that each split gets its share of the rare ones.

    Args:
        path: The CSV, for messages.
        rows: At least one; each has a value under the target, or under one of them.
        target: The label column; a list of columns = several labels; None = there is nothing to learn.
        kind: What values of one column are.
        order: The grades, mildest first; None = as `mim.data.grades.order_grades` knows them.
        classes: What the classes, grades or labels of a finished run are; not all of them need be there. `order` is not
            read then, and columns of several labels are called as these are. None = the rows say it.

    Raises:
        MimError: There are too few or too many classes, grades whose order is not known, a label that is neither 0
            nor 1, or one that is none of `classes`.
    """
    if target is None:
        return LabelValues((ONE_CLASS,), (0,) * len(rows))
    if not isinstance(target, str):
        return _several(path, rows, tuple(target), classes)
    values = [row.cells[target] for row in rows]
    for row in rows:
        if row.cells[target].lower() in NOT_KNOWN:
            raise MimError(
                f"{path}, row {row.line}: {row.cells[target]!r} stands under {target!r}: leave the cell empty where "
                "the label is not known (data.target)"
            )
    if classes is not None:
        found = _known_classes(path, rows, target, classes)
    elif kind == "ordered":
        found = _in_order(path, target, values, order)
    else:
        found = _find_classes(path, target, values, kind)
    return LabelValues(found, tuple(found.index(value) for value in values))


def _known_classes(path: Path, rows: Sequence[TableRow], target: str, classes: Sequence[str]) -> tuple[str, ...]:
    for row in rows:
        if row.cells[target] not in classes:
            raise MimError(
                f"{path}, row {row.line}: {row.cells[target]!r} stands under {target!r}, which is no class of the run "
                f"({_shown(classes)}): write it as the run has it, or leave the cell empty (data.target)"
            )
    return tuple(classes)


def _find_classes(path: Path, target: str, values: Iterable[str], kind: LabelKind) -> tuple[str, ...]:
    classes = tuple(sorted(set(values), key=_by_number_or_name))
    if len(classes) == 1:
        raise MimError(f"{path}: only one class under {target!r} ({classes[0]}): two are needed (data.target)")
    if len(classes) > 2 and kind == "two":
        raise MimError(
            f"{path}: {len(classes)} values under {target!r} ({_shown(classes)}): exactly two are supported "
            "(data.target); empty cells are unlabelled films"
        )
    _refuse_too_many(path, target, classes)
    return classes


def _in_order(path: Path, target: str, values: Iterable[str], order: Sequence[str] | None) -> tuple[str, ...]:
    if order is not None and len(set(order)) < len(order):
        raise MimError("data.label_order names a grade twice: keep one")
    try:
        grades = order_grades(values, order)
    except ValueError as error:
        raise MimError(f"{path}: under {target!r} {error} (data.label_order)") from error
    if not grades:
        found = tuple(sorted(set(values)))
        raise MimError(
            f"{path}: which of the grades under {target!r} ({_shown(found)}) is worse is not known: name them all in "
            "data.label_order, the mildest first"
        )
    if len(grades) < 3:
        raise MimError(
            f"{path}: {len(grades)} grades under {target!r} ({_shown(grades)}): data.label_kind=ordered needs three or "
            "more; leave it out for two classes"
        )
    _refuse_too_many(path, target, grades)
    return grades


def _refuse_too_many(path: Path, target: str, classes: Sequence[str]) -> None:
    if len(classes) > MOST_CLASSES:
        raise MimError(
            f"{path}: {len(classes)} different values under {target!r}, more than {MOST_CLASSES}: is it a column of "
            "classes (data.target)?"
        )


def _several(
    path: Path, rows: Sequence[TableRow], columns: tuple[str, ...], labels: Sequence[str] | None = None
) -> LabelValues:
    table = tuple(tuple(_zero_or_one(path, row, column) for column in columns) for row in rows)
    counts = [Counter(own[place] for own in table) for place in range(len(columns))]
    for column, found in zip(columns, counts, strict=True):
        if labels is None and not (found[0] and found[1]):
            only = "nothing" if not (found[0] or found[1]) else f"only {int(found[1] > 0)}"
            raise MimError(f"{path}: {only} stands under {column!r}: films with 0 and with 1 are needed (data.target)")
    rarest_first = sorted(range(len(columns)), key=lambda place: (counts[place][1], place))
    drawn_by = [next((place for place in rarest_first if own[place] == 1), None) for own in table]
    used = [place for place in (None, *reversed(rarest_first)) if place in drawn_by]  # of a patient the rarest counts
    names = tuple(NONE_POSITIVE if place is None else columns[place] for place in used)
    named = columns if labels is None else tuple(labels)
    return LabelValues(names, tuple(used.index(place) for place in drawn_by), named, table)


def _zero_or_one(path: Path, row: TableRow, column: str) -> int:
    written = row.cells[column]
    if not written:
        return MISSING
    try:
        value = float(written)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise MimError(
            f"{path}, row {row.line}: {written!r} stands under {column!r}: each of several labels is 0 or 1, or empty "
            "where it is not known (data.target)"
        )
    return int(value)


def _shown(classes: Sequence[str]) -> str:
    return ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")


def _by_number_or_name(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value
