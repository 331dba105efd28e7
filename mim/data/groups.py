"""Groups to measure apart: what the table of labels says of films beside their label, told so that it names nobody."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from mim.data.labels import LabelledFilm
from mim.data.store import PreparedDataset
from mim.data.studies import ABSENT, Study
from mim.data.tables import Table, read_table
from mim.errors import MimError

logger = logging.getLogger(__name__)

GroupColumn = Literal["severity", "tooth", "device", "site", "sex", "age", "modality"]
GROUP_COLUMNS: tuple[GroupColumn, ...] = get_args(GroupColumn)

HEADINGS: Mapping[GroupColumn, tuple[str, ...]] = MappingProxyType(
    {
        "severity": ("severity", "grade", "icdas"),
        "tooth": ("tooth", "tooth_fdi", "fdi", "tooth_number"),
        "device": ("device",),
        "site": ("site",),
        "sex": ("sex", "gender"),
        "age": ("age",),
    }
)
"""Under which headings of the table of labels a column stands; the first that is there counts."""

SEVERAL = "several"
_AGES = ((18, "under 18"), (35, "18 to 34"), (50, "35 to 49"), (65, "50 to 64"), (math.inf, "65 and over"))
_MOST_VALUES = 40  # more are free text, in which anything may stand
_LONGEST = 40  # characters
_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([YMWD]?)", re.IGNORECASE)  # years, or a DICOM age string (PS3.5 6.2)
_YEARS = {"": 1.0, "Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


@dataclass(frozen=True, slots=True)
class Groups:
    """In which groups films are.

    Attributes:
        of_line: Of each column of the table of labels what stands in each of its lines; "" = not known.
        modality: DICOM modality of each film of the dataset, "" = not known; None where it is not asked for.
    """

    of_line: Mapping[str, Mapping[int, str]]
    modality: tuple[str, ...] | None

    def of_films(self, films: Sequence[LabelledFilm]) -> dict[str, list[str]]:
        """Give each column that divides these films."""
        columns = {name: [own[film.line] for film in films] for name, own in self.of_line.items()}
        if self.modality is not None:
            columns["modality"] = [self.modality[film.index] for film in films]
        return _dividing(columns)

    def of_studies(self, studies: Sequence[Study]) -> dict[str, list[str]]:
        """Give each column that divides these studies; of a study whose films differ the value is `several`."""
        columns = {
            name: [_common(own[line] for line in study.lines) for study in studies]
            for name, own in self.of_line.items()
        }
        if self.modality is not None:
            known = self.modality
            columns["modality"] = [_common(known[f] for f in study.films if f != ABSENT) for study in studies]
        return _dividing(columns)


def read_groups(films: PreparedDataset, labels: Path, wanted: Sequence[GroupColumn] | None = None) -> Groups:
    """Read what divides films into groups.

    Ages become bands, and sites numbers in the order of their names: neither stands anywhere as it is written. A column
    with more than forty different values, or with long ones, is text and left out.

    Args:
        films: The dataset.
        labels: The table of labels.
        wanted: Which columns; None = those that there are.

    Raises:
        MimError: A wanted column is not there, or holds text.
    """
    table = read_table(labels)
    of_line: dict[str, Mapping[int, str]] = {}
    for name in GROUP_COLUMNS if wanted is None else wanted:
        if name == "modality":
            continue
        heading = next((heading for heading in HEADINGS[name] if heading in table.columns), None)
        if heading is None:
            if wanted is not None:
                raise MimError(f"{labels} has no column {' or '.join(HEADINGS[name])}, which groups={name} needs")
            continue
        found = _READ.get(name, _words)(table, heading)
        if found is None:
            said = f"{labels}: {heading!r} holds more than {_MOST_VALUES} different values, or long ones"
            if wanted is not None:
                raise MimError(f"{said} (groups={name}): leave it out, or group them")
            logger.warning("%s: films are not divided by it", said)
            continue
        of_line[name] = found
    asked = wanted is None or "modality" in wanted
    return Groups(of_line, tuple(row.modality for row in films.rows) if asked else None)


def _words(table: Table, heading: str) -> Mapping[int, str] | None:
    found = {row.line: " ".join(row.cells[heading].split()) for row in table.rows}
    values = set(found.values())
    if len(values) > _MOST_VALUES or any(len(value) > _LONGEST or not value.isprintable() for value in values):
        return None
    return found


def _sites(table: Table, heading: str) -> Mapping[int, str]:
    names = sorted({row.cells[heading] for row in table.rows} - {""})
    numbers = {name: f"site {number}" for number, name in enumerate(names, 1)} | {"": ""}
    return {row.line: numbers[row.cells[heading]] for row in table.rows}


def _ages(table: Table, heading: str) -> Mapping[int, str]:
    return {row.line: age_band(row.cells[heading]) for row in table.rows}


def age_band(written: str) -> str:
    """Name the band of an age in years, such as `45`, or of a DICOM age string, such as `045Y`; "" = it is no age."""
    match = _AGE.fullmatch(written.strip())
    if match is None:
        return ""
    years = float(match[1]) * _YEARS[match[2].upper()]
    return next(name for limit, name in _AGES if years < limit) if years < 130 else ""


_READ: Mapping[str, Callable[[Table, str], Mapping[int, str] | None]] = MappingProxyType({"site": _sites, "age": _ages})


def _common(values: Iterable[str]) -> str:
    known = {value for value in values if value}
    return "" if not known else known.pop() if len(known) == 1 else SEVERAL


def _dividing(columns: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: values for name, values in columns.items() if len(set(values)) > 1}
