"""Films read for once, from files and folders that somebody names: nothing is stored."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mim.data.build import FILE_LIMITS
from mim.data.decode import DecodedFile, DecodeOptions, decode_file, unreadable
from mim.data.processes import Failure, available_cores, map_in_processes
from mim.data.scan import is_note, scan
from mim.errors import MimError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A file to read.

    Attributes:
        name: What it is called in results: as it was given, or the folder as it was given and the path in it.
        path: Where it is, absolute.
    """

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What was read of a file: its films as a preparation stores them, and the SHA-256 of its bytes (empty: unread)."""

    decoded: DecodedFile
    sha256: str


def list_given(paths: Sequence[Path]) -> list[GivenFile]:
    """List files as they are given, and the films of folders in the order of their paths, each file once.

    Of a folder hidden files, prepared datasets and files that are text by their name are left out.

    Raises:
        MimError: There is nothing at a path, or a folder holds no file.
    """
    found: dict[Path, GivenFile] = {}
    for path in paths:
        if path.is_dir():
            try:
                inside = [file for file in scan(path) if not is_note(file)]
            except MimError as error:
                raise MimError(f"{path}: no file in it can be listed; give a folder of films") from error
            if not inside:
                raise MimError(f"{path}: holds no file that could be a film (DICOM, PNG, JPEG, TIFF or NIfTI)")
            files = [path / file.image for file in inside]
        elif path.exists():
            files = [path]
        else:
            raise MimError(f"{path}: there is no such file or folder")
        for file in files:
            found.setdefault(file.absolute(), GivenFile(file.as_posix(), file.absolute()))
    return list(found.values())


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file; empty where it cannot be read, or is a pipe or device without an end."""
    if not path.is_file():
        return ""
    digest = hashlib.sha256()
    with suppress(OSError), path.open("rb") as file:
        while part := file.read(_CHUNK):
            digest.update(part)
        return digest.hexdigest()
    return ""


def read_given(
    files: Sequence[GivenFile], stored: Mapping[str, Any], *, workers: int | None = None
) -> Iterator[ReadFile]:
    """Read files in processes, in order; whatever is wrong with one ends up in its `decoded.skipped`.

    Args:
        files: What to read.
        stored: The options of `DecodeOptions.stored()`: how a preparation would store the films.
        workers: Processes; None = as many as there are cores.

    Raises:
        MimError: The options are not those of this version, or contradict each other.
    """
    if not files:
        return
    try:
        # ids are compared with nothing, so what they are hashed with is forgotten at once
        options = DecodeOptions(root=Path("/"), salt=secrets.token_bytes(32), **stored)
    except TypeError as error:
        raise MimError("the settings of the preparation are of another version of mim") from error
    yield from map_in_processes(
        partial(_read, options=options),
        [str(file.path) for file in files],
        workers=max(1, min(workers or available_cores(), len(files))),
        failed=_failed,
        limits=FILE_LIMITS,
        preload=["mim.data.given_files"],
    )


def _read(path: str, options: DecodeOptions) -> ReadFile:
    return ReadFile(decode_file(path, options), hash_file(Path(path)))


def _failed(path: str, failure: Failure) -> ReadFile:
    return ReadFile(unreadable(path, failure, "reading it did not come to an end"), "")
