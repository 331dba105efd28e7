"""The writing side of the store: films appended one file at a time, so that a cut-off preparation can go on."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mim.data.decode import DecodedFile, Skipped
from mim.data.manifest import ManifestRow, write_manifest
from mim.data.rows import find_rows
from mim.data.store import FORMAT_VERSION, INDEX, JOURNAL, MANIFEST, PIXELS, REPORT, ROW_STARTS, part_of


class StoreWriter:
    """Writes a prepared dataset into a `.part` folder and renames it when it is whole.

    Each source file is one line of a journal, written after its pixels. A writer that finds the journal of the same
    films and options goes on after its last whole line.

    Args:
        output: The folder of the prepared dataset, which must not exist.
        header: What must agree for a journal to be continued: options and the fingerprint of the source.
    """

    def __init__(self, output: Path, header: dict[str, Any]) -> None:
        self.output = output
        self.part = part_of(output)
        self.rows: list[ManifestRow] = []
        self.index: list[tuple[int, int, int]] = []
        self.skipped: list[Skipped] = []
        self.files_done = 0
        self._offset = 0
        journal_end = self._resume(header)
        if journal_end == 0:
            if self.part.exists():
                shutil.rmtree(self.part)
            self.part.mkdir(parents=True)
        self._journal = _open_at(self.part / JOURNAL, journal_end)
        self._pixels = _open_at(self.part / PIXELS, self._offset)
        if journal_end == 0:
            self._journal.write(_to_line(header))
            self._journal.flush()

    def __enter__(self) -> "StoreWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._pixels.close()

    def add(self, decoded: DecodedFile) -> None:
        """Append the films of one source file."""
        entries = []
        for row, levels in zip(decoded.rows, decoded.films, strict=True):
            place = (self._offset, *levels.full.shape)
            for film in levels:
                self._pixels.write(film.tobytes())
                self._offset += film.nbytes
            entries.append({"place": place, "row": asdict(row)})
        self._pixels.flush()
        line = {"films": entries, "skipped": [asdict(item) for item in decoded.skipped], "end": self._offset}
        self._journal.write(_to_line(line))
        self._journal.flush()
        self._take(line)

    def finish(self, source: Path, options: Mapping[str, int | str], salt_check: str) -> None:
        """Write manifest, index and report, and rename the folder."""
        hashes = Counter(row.sha256 for row in self.rows)
        report = {
            "format": FORMAT_VERSION,
            "source": str(source),
            "options": options,
            "salt_check": salt_check,
            "files": self.files_done,
            "films": len(self.rows),
            "duplicate_films": sum(count - 1 for count in hashes.values()),
            "skipped_by_reason": count_by_reason(self.skipped),
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }
        write_manifest(self.part / MANIFEST, self.rows)
        np.save(self.part / ROW_STARTS, find_rows(self.part / MANIFEST), allow_pickle=False)
        np.save(self.part / INDEX, np.array(self.index, dtype=np.int64).reshape(-1, 3), allow_pickle=False)
        (self.part / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        self._journal.close()
        self._pixels.close()
        (self.part / JOURNAL).unlink()
        for path in (*sorted(self.part.iterdir()), self.part):
            _sync(path)
        self.part.rename(self.output)

    def discard(self) -> None:
        """Remove what was written."""
        self._journal.close()
        self._pixels.close()
        shutil.rmtree(self.part)

    def _resume(self, header: dict[str, Any]) -> int:
        """Take over what an earlier writer left; return where its journal ends, 0 if it is of no use."""
        journal, pixels = self.part / JOURNAL, self.part / PIXELS
        if not (journal.is_file() and pixels.is_file()):
            return 0
        lines = journal.read_bytes().splitlines(keepends=True)
        if not lines or lines[0] != _to_line(header):
            return 0
        end, available = len(lines[0]), pixels.stat().st_size
        for text in lines[1:]:
            line = _parse_line(text)
            if line is None or line["end"] > available:
                break
            self._take(line)
            self._offset = line["end"]
            end += len(text)
        return end

    def _take(self, line: dict[str, Any]) -> None:
        for film in line["films"]:
            self.index.append(tuple(film["place"]))
            self.rows.append(_to_row(film["row"]))
        self.skipped.extend(Skipped(**skipped) for skipped in line["skipped"])
        self.files_done += 1


def count_by_reason(skipped: Sequence[Skipped]) -> dict[str, int]:
    """Count what was left out by reason, the most frequent first."""
    counts = Counter(item.reason for item in skipped)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _to_line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii") + b"\n"


def _parse_line(text: bytes) -> dict[str, Any] | None:
    if not text.endswith(b"\n"):
        return None  # the process was stopped while it wrote this line
    line: dict[str, Any] = json.loads(text)
    return line


def _to_row(values: dict[str, Any]) -> ManifestRow:
    spacing = values["spacing_mm"]
    return ManifestRow(**{**values, "spacing_mm": None if spacing is None else tuple(spacing)})


def _open_at(path: Path, position: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(position)
    file.seek(position)
    return file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
