"""Files that are whole or not there at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Writes a file beside its place, syncs it and renames it, so that no reader ever meets half of it.

    Args:
        path: where the file goes; what was there is replaced, and missing folders are made.
        content: its bytes, its text (written as UTF-8 with the line ends it has), or what writes to the open file.

    Raises:
        OSError: it could not be written; what was at `path` is untouched and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as file:
            if callable(content):
                _write(file, content)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def reason(error: OSError) -> str:
    """Why a file could not be written, in a few words: "disk full", or the system's own."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full, or your quota is used up"
    return (error.strerror or str(error)).splitlines()[0]


def _write(file: BinaryIO, write: Callable[[BinaryIO], object]) -> None:
    """PyTorch's zip writer turns an OSError of the file into a RuntimeError of its own: the first is the true one."""
    try:
        write(file)
    except RuntimeError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise cause from None


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
