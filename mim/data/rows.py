"""The rows of a manifest on disk, each parsed when it is asked for.

Millions of rows as Python objects would take gigabytes in each process that reads films: a worker's copy of them is
written to whenever they are looked at, since Python counts references inside the objects, so it is not shared.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from mim.data.manifest import COLUMNS, ManifestRow, parse_row
from mim.errors import MimError

_NEWLINE, _QUOTE = b'\n"'
_ROWS_AT_A_TIME = 4096
_BYTES_AT_A_TIME = 1 << 26


class ManifestRows(Sequence[ManifestRow]):
    """Reads rows of a manifest where they stand in the file, which is memory-mapped.

    Args:
        path: The manifest.
        starts: (N + 1,) Where each row begins, in bytes; the last number is the size of the file.
    """

    def __init__(self, path: Path, starts: NDArray[np.int64]) -> None:
        self._path = path
        self._starts = starts
        self._bytes = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))

    @classmethod
    def open(cls, path: Path, starts: Path) -> "ManifestRows":
        """Open a manifest and the file that says where its rows begin, without reading the rows.

        Raises:
            MimError: One of the two is missing, cut short or changed, or the columns are not those of a manifest.
        """
        again = "remove the folder and prepare again"
        try:
            size = path.stat().st_size
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                header = tuple(next(csv.reader(file), ()))
        except OSError as error:
            raise MimError(f"{path}: the manifest cannot be read ({error.strerror})") from error
        if header != COLUMNS:
            raise MimError(f"{path}: columns are {', '.join(header)}, not {', '.join(COLUMNS)}: prepare again")
        try:
            places: NDArray[np.int64] = np.asarray(np.load(starts, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise MimError(f"{starts} cannot be read: {again}") from error
        if places.dtype != np.int64 or places.ndim != 1 or len(places) < 1 or np.any(np.diff(places) <= 0):
            raise MimError(f"{starts} does not say where rows begin: {again}")
        if places[0] < 0 or places[-1] != size:
            raise MimError(f"{path.parent} does not hold together ({path.name} was changed or cut short): {again}")
        return cls(path, places)

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, number: int) -> ManifestRow: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[ManifestRow, ...]: ...

    def __getitem__(self, number: int | slice) -> ManifestRow | tuple[ManifestRow, ...]:
        """Parse one row, or some.

        Raises:
            IndexError: There is no such row.
            MimError: It cannot be read.
        """
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        position = range(len(self))[number]
        return next(self._parse(position, position + 1))

    def __iter__(self) -> Iterator[ManifestRow]:
        for first in range(0, len(self), _ROWS_AT_A_TIME):
            yield from self._parse(first, min(first + _ROWS_AT_A_TIME, len(self)))

    def _parse(self, first: int, last: int) -> Iterator[ManifestRow]:
        """Parse the rows from `first` to before `last`, which stand one after the other."""
        places = self._starts[first : last + 1].tolist()
        text = self._bytes[places[0] : places[-1]].tobytes()
        lines = (text[a - places[0] : b - places[0]].decode("utf-8", "surrogateescape") for a, b in pairwise(places))
        try:
            cells = list(csv.reader(lines))
        except csv.Error as error:
            raise MimError(f"{self._path}, row {first + 2} or later: not CSV ({error}): prepare again") from error
        if len(cells) != last - first:
            raise MimError(f"{self._path}, rows {first + 2} to {last + 1}: not rows of a manifest: prepare again")
        return (parse_row(self._path, first + number + 2, values) for number, values in enumerate(cells))


def find_rows(path: Path) -> NDArray[np.int64]:
    """Find where the rows of a CSV with a header line begin.

    A line break within quotes belongs to a cell, not to the end of a row.

    Args:
        path: The file, whose last line ends with a line break.

    Returns:
        (N + 1,) int64: where each of the N rows begins, in bytes, and where the last one ends.
    """
    ends, position, quotes = [], 0, 0
    with path.open("rb") as file:
        while part := file.read(_BYTES_AT_A_TIME):
            found = np.frombuffer(part, dtype=np.uint8)
            breaks = np.flatnonzero(found == _NEWLINE)
            marks = np.flatnonzero(found == _QUOTE)
            before = np.searchsorted(marks, breaks) + quotes
            ends.append(breaks[before % 2 == 0] + position + 1)
            quotes += len(marks)
            position += len(part)
    return np.concatenate(ends).astype(np.int64)
