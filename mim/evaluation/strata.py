"""Figures by group, worst first: for films by site or age, for lesions by size or grade. Small groups are marked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, written
from mim.evaluation.section import Table

FEW = 10
"""Cases below which a group is marked."""
UNKNOWN = "not known"
LARGEST_COUNT_OF_NUMBERS = 8
"""Different numbers above which a column is cut into three groups of equal size."""

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Measured:
    """What was found in one group.

    Attributes:
        counts: How many of each kind of case the figures rest on, such as positive and negative films.
        figures: By name; the first decides which group is the worst.
    """

    counts: Mapping[str, int]
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Stratum:
    """One group of one column; `few` says that it has fewer than ten cases of some kind."""

    column: str
    group: str
    counts: Mapping[str, int]
    figures: Mapping[str, Figure]
    few: bool

    @property
    def lead(self) -> float | None:
        """The figure that groups are ordered by."""
        return next(iter(self.figures.values())).value


def strata(
    columns: Mapping[str, Sequence[str]], measured: Callable[[Rows, str], Measured], *, highest_is_worst: bool = False
) -> list[Stratum]:
    """Measure every group of every column; within a column the worst comes first, those without a value last.

    Args:
        columns: Text for each of N rows (films, or lesions); "" = not known. Columns of many different numbers are cut
            into three groups.
        measured: Gives what is found among some of the rows (N booleans), and in which column they are one group.
        highest_is_worst: Whether the first figure is an error, and no measure of how good it is.
    """
    found = []
    sign = -1 if highest_is_worst else 1
    for column, values in columns.items():
        groups = group_values(values)
        rows = []
        for group in dict.fromkeys(groups):
            result = measured(np.array([own == group for own in groups], dtype=bool), column)
            few = any(count < FEW for count in result.counts.values())
            rows.append(Stratum(column, group, result.counts, result.figures, few))
        found += sorted(rows, key=lambda row: (row.lead is None, sign * (row.lead or 0.0), row.group))
    return found


def group_values(values: Sequence[str]) -> list[str]:
    """Name the group of each value: the value itself, or a third of the range where there are many numbers."""
    numbers = [_number(value) for value in values]
    known = np.array([number for number in numbers if number is not None], dtype=np.float64)
    told = sum(value != "" for value in values)
    if len(known) < told or len(np.unique(known)) <= LARGEST_COUNT_OF_NUMBERS:
        return [value or UNKNOWN for value in values]
    low, high = np.quantile(known, [1 / 3, 2 / 3], method="inverted_cdf")
    names = (f"up to {low:g}", f"above {low:g}, up to {high:g}", f"above {high:g}")
    return [UNKNOWN if number is None else names[int(number > low) + int(number > high)] for number in numbers]


def strata_tables(found: Sequence[Stratum], titles: Mapping[str, str]) -> tuple[Table, ...]:
    """Write one table for each column.

    Args:
        found: What `strata` gave.
        titles: Headings of the figures, by their names.
    """
    tables = []
    for column in dict.fromkeys(row.column for row in found):
        own = [row for row in found if row.column == column]
        heading = ["Group", *own[0].counts]
        for name in own[0].figures:
            heading += [titles[name], "interval"]
        rows = []
        for row in own:
            cells = [row.group + (" †" if row.few else ""), *(str(count) for count in row.counts.values())]
            for figure in row.figures.values():
                cells += written(figure)
            rows.append(tuple(cells))
        note = f"† Fewer than {FEW} cases: hardly more than an anecdote." if any(row.few for row in own) else ""
        tables.append(Table(f"By {column}, worst first", tuple(heading), tuple(rows), note))
    return tuple(tables)


def strata_json(found: Sequence[Stratum]) -> dict[str, list[dict[str, object]]]:
    """What `metrics.json` says: for each column its groups, worst first."""
    content: dict[str, list[dict[str, object]]] = {}
    for row in found:
        figures = {name: as_json(figure) for name, figure in row.figures.items()}
        group = {"group": row.group, "few": row.few, "counts": dict(row.counts), **figures}
        content.setdefault(row.column, []).append(group)
    return content


def describe_worst(found: Sequence[Stratum], titles: Mapping[str, str]) -> tuple[str, ...]:
    """Say which group of each column with more than one is the worst, small groups left aside."""
    lines = []
    for column in dict.fromkeys(row.column for row in found):
        own = [row for row in found if row.column == column and not row.few and row.lead is not None]
        if len(own) < 2:
            continue
        worst = own[0]
        name, figure = next(iter(worst.figures.items()))
        value, interval = written(figure)
        lines.append(f"Worst by {column}: {worst.group}, {titles[name]} {value} ({interval}).")
    return tuple(lines)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
