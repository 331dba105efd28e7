"""Which files a folder holds, and whether they are still the same."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.data.privacy import salted_hash
from mim.data.store import is_half_made, is_prepared
from mim.errors import MimError

# Labels and notes are edited while the films beside them stay; that is no reason to decode the films again.
_NOTES = (".csv", ".tsv", ".json", ".txt", ".md", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of the source folder: its path relative to it (forward slashes), bytes, and time of change in ns."""

    image: str
    size: int
    modified_ns: int


def scan(source: Path, leave_out: Sequence[Path] = ()) -> tuple[SourceFile, ...]:
    """List every file of a folder and of the folders in it, in the order of their relative paths.

    Hidden files and folders, prepared datasets and half-made ones are left out. A link to a folder is followed unless
    it leads back into `source`, where its files are met anyway.

    Args:
        source: The folder.
        leave_out: Folders to leave out, wherever they lie.

    Raises:
        MimError: The folder is missing, is not a folder, cannot be listed, or holds no files.
    """
    if not source.exists():
        raise MimError(f"{source}: there is no such folder (data.path)")
    if not source.is_dir():
        raise MimError(f"{source} is a file: data.path must be a folder of films")
    root = source.resolve()
    visited = {path.resolve() for path in leave_out} - {root}
    files = sorted(_walk(source, "", root, visited), key=lambda file: file.image)
    if not files:
        raise MimError(f"{source} holds no files (hidden ones do not count): data.path must be a folder of films")
    return tuple(files)


def _walk(folder: Path, prefix: str, root: Path, visited: set[Path]) -> Iterator[SourceFile]:
    visited.add(folder.resolve())
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        if not prefix:
            raise MimError(f"{folder} cannot be listed ({error.strerror})") from error
        yield SourceFile(prefix.rstrip("/"), -1, 0)  # decoding will say why it could not be read
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield _describe(entry, prefix)
            continue
        path = Path(entry.path)
        target = path.resolve()
        leads_back = entry.is_symlink() and target.is_relative_to(root)
        if not (leads_back or target in visited or is_prepared(path) or is_half_made(path)):
            yield from _walk(path, f"{prefix}{entry.name}/", root, visited)


def _describe(entry: os.DirEntry[str], prefix: str) -> SourceFile:
    try:
        status = entry.stat()
    except OSError:  # a broken link is listed all the same, so that decoding counts it as unreadable
        return SourceFile(prefix + entry.name, -1, 0)
    return SourceFile(prefix + entry.name, status.st_size, status.st_mtime_ns)


def is_note(file: SourceFile) -> bool:
    """Whether a file is text by its name, so that a change of it does not change the films."""
    return file.image.lower().endswith(_NOTES)


def source_key(file: SourceFile, salt: bytes) -> str:
    """Hash what tells that a file is still the same: its path, size and time of change; of a text file the path."""
    state = "" if is_note(file) else f"{file.size}\0{file.modified_ns}"
    return salted_hash(salt, f"{file.image}\0{state}")


def fingerprint(files: Sequence[SourceFile], *options: int | str) -> str:
    """Hash the files' paths, sizes and times of change, and the options, to 64 hexadecimal digits.

    Text files (labels, notes) do not count: editing them does not change the films.
    """
    digest = hashlib.sha256(repr(options).encode())
    for file in files:
        if not is_note(file):
            line = f"{file.image}\0{file.size}\0{file.modified_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
