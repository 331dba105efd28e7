"""metrics.jsonl and timings.jsonl: one line of figures after another, and cut back when a run goes on."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim.errors import MimError
from mim.files import reason, write_atomically


class MetricsFile:
    """Writes lines of JSON, each at once.

    Floats stand as Python prints them, to the last bit; there are no dates. What is written to metrics.jsonl follows
    from the run alone, so a run that was killed and went on leaves the same file as one that was not; times are in a
    file of their own. A figure that is not finite is null.

    Args:
        path: the file; it is cut back to the lines that belong to the step the run goes on from.
        step: that step; lines of later steps go.
        lines: how many lines there were at that step; lines after them go.

    Raises:
        MimError: the file cannot be written.
    """

    def __init__(self, path: Path, step: int, lines: int) -> None:
        self.path = path
        try:
            kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step][:lines]
            write_atomically(path, "".join(f"{line}\n" for line in kept))
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._failure(error) from error
        self.lines = len(kept)

    def write(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Adds a line.

        Args:
            step: steps done, from 1.
            epoch: the epoch that the last of them was in, from 1.
            figures: values by name.

        Raises:
            MimError: it cannot be written.
        """
        record: dict[str, Any] = {"step": step, "epoch": epoch}
        record |= {name: value if math.isfinite(value) else None for name, value in figures.items()}
        try:
            rest = (json.dumps(record, allow_nan=False) + "\n").encode()
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._failure(error) from error
        self.lines += 1

    def sync(self) -> None:
        """Makes sure that the lines are on the disk before a checkpoint counts on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _failure(self, error: OSError) -> MimError:
        return MimError(
            f"{self.path}: could not be written, {reason(error)}; make room and start the same command again"
        )


def _whole_lines(path: Path) -> list[str]:
    """The lines up to the first that is not a record: a kill may leave half a line at the end."""
    whole: list[str] = []
    if not path.is_file():
        return whole
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        whole.append(line)
    return whole
