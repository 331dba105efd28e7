"""The journal of a half-made dataset: a header, then one line a source file, written after its pixels."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mim.data.store import JOURNAL, PIXELS, part_of


def to_line(value: dict[str, Any]) -> bytes:
    """Write an entry as one line."""
    return json.dumps(value).encode("ascii") + b"\n"


def read_lines(part: Path, header: dict[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the whole entries of a journal, each with the place in the journal where it ends.

    Args:
        part: The half-made dataset.
        header: The first entry, which must be this; else there are no entries.
    """
    journal, pixels = part / JOURNAL, part / PIXELS
    if not (journal.is_file() and pixels.is_file()):
        return
    available = pixels.stat().st_size
    with journal.open("rb") as lines:
        first = lines.readline()
        if first != to_line(header):
            return
        end = len(first)
        for text in lines:
            if not text.endswith(b"\n"):
                return  # the process was stopped while it wrote this line
            line: dict[str, Any] = json.loads(text)
            if line["end"] > available:
                return
            end += len(text)
            yield line, end


class Leftover:
    """Entries of a preparation that was cut off and cannot go on as it is, because files came or went since.

    Args:
        output: The folder of the prepared dataset.
        header: The header of its journal, see `read_lines`.
    """

    def __init__(self, output: Path, header: dict[str, Any]) -> None:
        self._path = output.with_name(f".{output.name}.leftover")
        self._header = header
        self._entries = self._read()

    def __contains__(self, source: str) -> bool:
        return source in self._entries

    def take_over(self, part: Path) -> None:
        """Move a half-made dataset here; what was here before is dropped."""
        self.remove()
        part.rename(self._path)
        self._entries = self._read()

    def entry(self, source: str) -> tuple[dict[str, Any], int, bytes]:
        """Return the entry of a source file, where its pixels begin in the pixel file, and what stands there."""
        place, start = self._entries[source]
        with (self._path / JOURNAL).open("rb") as journal, (self._path / PIXELS).open("rb") as pixels:
            journal.seek(place)
            line: dict[str, Any] = json.loads(journal.readline())
            pixels.seek(start)
            return line, start, pixels.read(line["end"] - start)

    def remove(self) -> None:
        """Remove it from disk."""
        if self._path.exists():
            shutil.rmtree(self._path)

    def _read(self) -> dict[str, tuple[int, int]]:
        """For each source file, where its entry begins in the journal, and its pixels in the pixel file."""
        entries = {}
        place, start = len(to_line(self._header)), 0
        for line, end in read_lines(self._path, self._header):
            entries[line["source"]] = (place, start)
            place, start = end, line["end"]
        return entries


def adopt(output: Path, part: Path, header: dict[str, Any]) -> bool:
    """Let a half-made dataset of another name go on as that of `output`, unless that has one; return whether it does.

    It may be of another folder of that name: its entries are known by hashes of paths and times, so none would fit.
    """
    if part_of(output).exists() or next(read_lines(part, header), None) is None:
        return False
    part.rename(part_of(output))
    return True
