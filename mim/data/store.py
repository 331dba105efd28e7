"""Prepared films on disk, read through a memory map that all workers and ranks share."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mim.data.manifest import ManifestRow
from mim.data.rows import ManifestRows
from mim.errors import MimError

FORMAT_VERSION = 4
PIXELS = "pixels.bin"
INDEX = "index.npy"
MANIFEST = "manifest.csv"
ROW_STARTS = "rows.npy"
REPORT = "report.json"
JOURNAL = "journal.jsonl"  # only in a half-made dataset

Film = NDArray[np.uint8] | NDArray[np.uint16]


class FilmLevels(NamedTuple):
    """A film at the two sizes in which it is stored, as one after the other in `pixels.bin`."""

    full: Film
    half: Film


class StoredFilms(Protocol):
    """Films at both stored sizes, and what is known of each, wherever they lie."""

    @property
    def rows(self) -> Sequence[ManifestRow]:
        """What is known of each film."""

    def levels(self, number: int) -> FilmLevels:
        """Return a film at both sizes."""


def half_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width of the smaller of the two stored sizes: halves, rounded up."""
    return (height + 1) // 2, (width + 1) // 2


def is_prepared(path: Path) -> bool:
    """Whether a folder is a prepared dataset (a half-made one never is)."""
    return (path / REPORT).is_file() and (path / INDEX).is_file() and not is_half_made(path)


def part_of(output: Path) -> Path:
    """Where a dataset is written until it is whole."""
    return output.with_name(f"{output.name}.part")


def is_half_made(path: Path) -> bool:
    """Whether a folder is a dataset that is being prepared, or whose preparation was cut off."""
    return path.name.endswith(".part") and (path / JOURNAL).is_file()


def pixel_type(bits: int) -> np.dtype[Any]:
    """The type of a stored pixel: little-endian, of 8 or 16 bits."""
    return np.dtype("uint8" if bits == 8 else "<u2")


class PreparedDataset:
    """Films of one folder, decoded once.

    A copy that is sent to another process opens the files anew there; pixels are never sent.

    Attributes:
        path: The folder of the prepared dataset.
        rows: The manifest, one row a film; a row is parsed when it is asked for.
        report: What `report.json` says: options, counts, skipped files.
        long_side: The longer side of a stored film is at most this many pixels.
        bits: Bits of a stored pixel, 8 or 16.
        source: The folder the films came from (it need not exist any more).
        salt_check: Which salt made the hashed ids (see `mim.data.privacy.salt_check`).
    """

    def __init__(
        self, path: Path, rows: Sequence[ManifestRow], index: NDArray[np.int64], report: dict[str, Any]
    ) -> None:
        self.path = path
        self.rows = rows
        self.report = report
        self.long_side = int(report["options"]["long_side"])
        self.bits = int(report["options"]["bits"])
        self.source = Path(report["source"])
        self.salt_check = str(report["salt_check"])
        self._index = index  # (N, 3): offset in bytes, height, width of the full size
        # A plain array over the map: a slice of np.memmap itself costs ten times as much as one of an array.
        self._pixels = np.asarray(np.memmap(path / PIXELS, dtype=pixel_type(self.bits), mode="r"))

    @classmethod
    def open(cls, path: Path) -> "PreparedDataset":
        """Open a prepared dataset and check that its parts belong together.

        Raises:
            MimError: A file is missing, of another version, cut short, or does not agree with the others.
        """
        path = path.absolute()
        report = _read_report(path)
        index = _read_index(path)
        rows = ManifestRows.open(path / MANIFEST, path / ROW_STARTS)
        if not len(rows) == len(index) == report["films"]:
            counts = f"{len(rows)} rows, {len(index)} in {INDEX}, {report['films']} in {REPORT}"
            raise MimError(f"{path} does not hold together ({counts}): remove the folder and prepare again")
        offset, height, width = index.T
        half_height, half_width = half_shape(height, width)
        sizes = (height * width + half_height * half_width) * pixel_type(report["options"]["bits"]).itemsize
        found = (path / PIXELS).stat().st_size if (path / PIXELS).is_file() else 0
        expected = int(sizes.sum())
        if found != expected or int((offset + sizes).max()) > found:
            raise MimError(
                f"{path / PIXELS} holds {found} bytes instead of {expected}: remove the folder and prepare again"
            )
        return cls(path, rows, index, report)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return PreparedDataset.open, (self.path,)

    def image(self, number: int) -> Film:
        """Return a film at its full stored size.

        Args:
            number: Which film, from 0; the row of the manifest of the same number describes it.

        Returns:
            A read-only view (height, width) of the memory map, uint8 or uint16; 0 is black, the largest value of the
            type is white.
        """
        offset, height, width = self._index[number].tolist()
        return self._view(offset // self._pixels.itemsize, height, width)

    def levels(self, number: int) -> FilmLevels:
        """Return a film at both stored sizes, as views like that of `image`.

        Args:
            number: Which film, from 0.
        """
        offset, height, width = self._index[number].tolist()
        start = offset // self._pixels.itemsize
        full = self._view(start, height, width)
        return FilmLevels(full, self._view(start + full.size, *half_shape(height, width)))

    def meant(self, numbers: Sequence[int], cells: Mapping[str, str]) -> tuple[int, ...]:
        """Tell which of the films of a file the row of a CSV means.

        Args:
            numbers: The films.
            cells: The row, by column.
        """
        return tuple(numbers)

    def _view(self, start: int, height: int, width: int) -> Film:
        film: Film = self._pixels[start : start + height * width].reshape(height, width)
        return film


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report: dict[str, Any] = json.loads((path / REPORT).read_text(encoding="utf-8"))
        version, bits = report["format"], report["options"]["bits"]
        complete = {"films", "source", "salt_check"} <= report.keys() and "long_side" in report["options"]
    except OSError as error:
        raise MimError(f"{path} is not a prepared dataset: {REPORT} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MimError(f"{path / REPORT} is not the report of a prepared dataset: prepare again") from error
    if version != FORMAT_VERSION:
        raise MimError(f"{path} has format {version}, this version reads {FORMAT_VERSION}: prepare again")
    if bits not in (8, 16) or not complete:
        raise MimError(f"{path / REPORT} is not the report of a prepared dataset: prepare again")
    return report


def _read_index(path: Path) -> NDArray[np.int64]:
    try:
        index: NDArray[np.int64] = np.asarray(np.load(path / INDEX, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise MimError(f"{path / INDEX} cannot be read: remove the folder and prepare again") from error
    if index.dtype != np.int64 or index.ndim != 2 or index.shape[1] != 3 or len(index) == 0 or int(index.min()) < 0:
        raise MimError(f"{path / INDEX} is not the index of a prepared dataset: remove the folder and prepare again")
    return index
