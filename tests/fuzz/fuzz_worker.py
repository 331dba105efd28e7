"""What a worker process does with one hostile file: decode it as the preparation does, and watch itself."""

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim.data.decode import DecodeOptions, Skipped, decode_file

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ACTIONS = ("os.", "shutil.", "subprocess.", "socket.", "pty.", "ftplib.", "urllib.", "webbrowser.")
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr", "os.putenv")
_OWN = ("/proc/self/clear_refs", "/dev/null")


@dataclass(frozen=True, slots=True)
class Examined:
    """What became of a file: films stored, what was skipped, seconds, bytes of memory above those held before,
    and what the process did besides reading."""

    image: str
    films: int
    skipped: tuple[Skipped, ...]
    seconds: float
    memory: int
    did: tuple[str, ...] = ()


def examine(image: str, options: DecodeOptions) -> Examined:
    watch = _watch()
    del watch.did[:]
    before, started = _restart_peak(), time.monotonic()
    decoded = decode_file(image, options)
    seconds = time.monotonic() - started
    peak = _memory("VmHWM")
    return Examined(image, len(decoded.films), decoded.skipped, seconds, peak - before, tuple(watch.did))


class _Watch:
    """Sees what the interpreter opens, removes or starts from now on."""

    def __init__(self) -> None:
        self.did: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if path not in _OWN and ((isinstance(mode, str) and set(mode) & set("wax+")) or flags & _WRITING):
                self.did.append(f"open {path!r} {mode}")
        elif event.startswith(_ACTIONS) and event not in _HARMLESS:
            self.did.append(f"{event} {arguments!r}"[:200])


_WATCHES: list[_Watch] = []  # one a process: an audit hook can not be taken away


def _watch() -> _Watch:
    if not _WATCHES:
        _WATCHES.append(_Watch())
    return _WATCHES[0]


def _memory(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _restart_peak() -> int:
    """Let the kernel measure the peak of memory anew; return what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")
