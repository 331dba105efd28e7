"""CSV files that people wrote: labels and splits."""

import csv
import difflib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from mim.errors import MimError

Split = Literal["train", "val", "test"]

_SPLIT_WORDS: Mapping[str, Split] = {"train": "train", "val": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row: the number of its line in the file, and its cells by column, without blanks around them."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file with a header line."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def require(self, column: str, setting: str = "") -> None:
        """Make sure that a column is there.

        Args:
            column: Its name.
            setting: The setting that asked for it, to be named in the message.

        Raises:
            MimError: It is not; the message names the nearest one, or all there are.
        """
        if column in self.columns:
            return
        near = difflib.get_close_matches(column, self.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its columns are {', '.join(self.columns)}"
        asked = f" ({setting})" if setting else ""
        raise MimError(f"{self.path} has no column {column!r}{asked}: {hint}")


def read_table(path: Path) -> Table:
    """Read a CSV file: UTF-8 with or without a byte order mark; comma, semicolon or tab between cells.

    Raises:
        MimError: The file cannot be read, or its header or a row is malformed.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            text = file.read()
    except OSError as error:
        raise MimError(f"{path} cannot be read ({error.strerror})") from error
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_find_delimiter(text), strict=True)
    try:
        columns = tuple(name.strip() for name in next(reader, ()))
        _check_header(path, columns)
        rows = tuple(_parse_rows(path, columns, ((reader.line_num, values) for values in reader)))
    except csv.Error as error:
        raise MimError(f"{path}, row {reader.line_num}: not valid CSV ({error})") from error
    if any(map(_is_foreign, columns)) or any(
        _is_foreign(value) for row in rows for name, value in row.cells.items() if name != "image"
    ):
        raise MimError(f"{path} is not UTF-8: save it as CSV with UTF-8 encoding")
    return Table(path, columns, rows)


def _is_foreign(text: str) -> bool:
    """Whether bytes that are not UTF-8 stand in it, as they may in names of files."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def parse_split(table: Table, row: TableRow) -> Split:
    """Read the cell under `split`.

    Raises:
        MimError: It is none of train, val, validation, test.
    """
    word = row.cells["split"].lower()
    if word not in _SPLIT_WORDS:
        known = ", ".join(_SPLIT_WORDS)
        raise MimError(f"{table.path}, row {row.line}: split {row.cells['split']!r} is none of {known}")
    return _SPLIT_WORDS[word]


def parse_date(table: Table, row: TableRow) -> str:
    """Read the cell under `date` as yyyymmdd, which sorts by time; an absent or empty one is an empty text.

    Raises:
        MimError: It is neither 2024-05-17 nor 20240517 (what it is stays out of the message).
    """
    written = row.cells.get("date", "")
    if not written:
        return ""
    try:
        return f"{date.fromisoformat(written):%Y%m%d}"
    except ValueError:
        raise MimError(
            f"{table.path}, row {row.line}: what stands under 'date' is no date such as 2024-05-17 or 20240517"
        ) from None


def _find_delimiter(text: str) -> str:
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _check_header(path: Path, columns: tuple[str, ...]) -> None:
    if not any(columns):
        raise MimError(f"{path} is empty: its first line must name the columns")
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise MimError(f"{path} has more than one column {twice[0]!r}: keep one")


def _parse_rows(path: Path, columns: tuple[str, ...], lines: Iterable[tuple[int, list[str]]]) -> Iterable[TableRow]:
    for line, values in lines:
        if not any(value.strip() for value in values):
            continue
        if len(values) > len(columns):
            raise MimError(f"{path}, row {line}: {len(values)} cells under {len(columns)} columns")
        padded = values + [""] * (len(columns) - len(values))
        yield TableRow(line, {name: value.strip() for name, value in zip(columns, padded, strict=True)})
