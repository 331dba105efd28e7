"""The writing side of the store: films appended one file at a time, so that a cut-off preparation can go on."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from mim.data.decode import DecodedFile, Skipped
from mim.data.journal import Leftover, read_lines, to_line
from mim.data.manifest import ManifestRow, write_manifest
from mim.data.regions import Rectangle
from mim.data.rows import find_rows
from mim.data.store import INDEX, JOURNAL, MANIFEST, PIXELS, REPORT, ROW_STARTS, part_of
from mim.data.swap import put_in_place
from mim.files import sync


class StoreWriter:
    """Writes a prepared dataset into a `.part` folder and puts it in its place when it is whole.

    Each source file is one line of a journal, written after its pixels. A writer that finds the journal of the same
    options goes on after its last whole line that belongs to the same files in the same order.

    Args:
        output: The folder of the prepared dataset; one that stands there is replaced in the end.
        header: What must agree for a journal to be continued: format, options and salt.
        sources: The key of each source file, in order.
    """

    def __init__(self, output: Path, header: dict[str, Any], sources: Sequence[str]) -> None:
        self.output = output
        self.part = part_of(output)
        self._forget()
        self.leftover = Leftover(output, header)
        self._header = header
        self._sources = sources
        journal_end = self._resume()
        if journal_end == 0:
            if self.part.exists():
                shutil.rmtree(self.part)
            self.part.mkdir(parents=True)
        self._journal = _open_at(self.part / JOURNAL, journal_end)
        self._pixels = _open_at(self.part / PIXELS, self._offset)
        if journal_end == 0:
            self._journal.write(to_line(header))
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
        self._enter(entries, [asdict(item) for item in decoded.skipped])

    def restore(self, source: str) -> None:
        """Append the films of the next source file as they were left over from a preparation that was cut off."""
        line, start, pixels = self.leftover.entry(source)
        moved = self._offset - start
        films = [{**film, "place": (film["place"][0] + moved, *film["place"][1:])} for film in line["films"]]
        self._pixels.write(pixels)
        self._pixels.flush()
        self._offset += len(pixels)
        self._enter(films, line["skipped"])

    def _enter(self, films: list[dict[str, Any]], skipped: list[dict[str, Any]]) -> None:
        """Write the line of the next source file, whose pixels are written."""
        line = {"source": self._sources[self.files_done], "films": films, "skipped": skipped, "end": self._offset}
        self._journal.write(to_line(line))
        self._journal.flush()
        self._take(line)

    def describe(self, source: Path) -> dict[str, Any]:
        """What `report.json` says, but for copies among the films."""
        return {
            **self._header,
            "source": str(source),
            "files": self.files_done,
            "films": len(self.rows),
            "skipped_by_reason": count_by_reason(self.skipped),
            "skipped": [asdict(skipped) for skipped in self.skipped],
        }

    def write_tables(self, report: dict[str, Any]) -> None:
        """Write manifest, index and report, so that the half-made folder can be opened."""
        self._pixels.close()
        write_manifest(self.part / MANIFEST, self.rows)
        np.save(self.part / ROW_STARTS, find_rows(self.part / MANIFEST), allow_pickle=False)
        np.save(self.part / INDEX, np.array(self.index, dtype=np.int64).reshape(-1, 3), allow_pickle=False)
        (self.part / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    def finish(self) -> None:
        """Put the folder in its place; until then the journal stays, so that nothing is done twice."""
        self._journal.close()
        for path in (*sorted(self.part.iterdir()), self.part):
            sync(path)
        put_in_place(self.part, self.output)
        (self.output / JOURNAL).unlink()
        self.leftover.remove()

    def discard(self) -> None:
        """Remove what was written."""
        self._journal.close()
        self._pixels.close()
        shutil.rmtree(self.part)
        self.leftover.remove()

    def _resume(self) -> int:
        """Take over what an earlier writer left; return where its journal ends, 0 if it is of no use.

        Where the files are not the same any more, it is put aside, to be restored file by file.
        """
        expected = iter(self._sources)
        journal_end = 0
        for line, place in read_lines(self.part, self._header):
            if line["source"] != next(expected, None):
                self.leftover.take_over(self.part)
                self._forget()
                return 0
            self._take(line)
            self._offset, journal_end = line["end"], place
        return journal_end

    def _forget(self) -> None:
        self.rows: list[ManifestRow] = []
        self.index: list[tuple[int, int, int]] = []
        self.skipped: list[Skipped] = []
        self.files_done = 0
        self._offset = 0

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


def _to_row(values: dict[str, Any]) -> ManifestRow:
    spacing, crop = values["spacing_mm"], values["crop"]
    return ManifestRow(
        **{
            **values,
            "spacing_mm": None if spacing is None else tuple(spacing),
            "crop": None if crop is None else Rectangle(*crop),
        }
    )


def _open_at(path: Path, position: int) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(position)
    file.seek(position)
    return file
