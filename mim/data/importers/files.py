"""The films that annotations belong to, and the reading of annotation files that may hold anything."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from mim.data.matching import FileFinder, roots_of
from mim.data.radiograph import UnreadableRadiograph, file_format, read_size
from mim.data.scan import scan
from mim.errors import MimError

TEXT_LIMIT = 16 << 20
"""Bytes of an annotation file for one image."""
JSON_LIMIT = 2 << 30
"""Bytes of an annotation file for a whole set."""
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # what Label Studio puts before the names of uploaded files


class Films:
    """The images of a folder, found by the names that annotations give them.

    Args:
        root: The folder.
        source: The annotations; names in them may be relative to their folder.
        leave_out: Folders within it that hold no films, such as masks.
        no_films: Pattern of the names of files that are no films, such as masks beside them.

    Raises:
        MimError: The folder is missing or holds no image.
    """

    def __init__(
        self, root: Path, source: Path, leave_out: Sequence[Path] = (), no_films: re.Pattern[str] | None = None
    ) -> None:
        self.root = root
        names = (file.image for file in scan(root, leave_out))
        if no_films is not None:
            names = (name for name in names if not no_films.fullmatch(PurePosixPath(name).name))
        self.names = tuple(name for name in names if _is_image(root / name))
        if not self.names:
            raise MimError(f"{root} holds no DICOM, PNG, JPEG or TIFF file (--images)")
        table = source / "x" if source.is_dir() else source
        self._finder = FileFinder(self.names, roots_of(root), table)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._by_name[PurePosixPath(name).name].append(name)
            self._by_stem[PurePosixPath(name).stem].append(name)
        self._by_path_stem = {_without_suffix(name): name for name in reversed(self.names)}
        self._sizes: dict[str, tuple[int, int] | None] = {}

    def find(self, name: str) -> str | None:
        """Return the image that a name means, or None.

        Beside what `FileFinder` finds, a path may begin with folders that are not there (`images/a.png` for `a.png`)
        or lack some, and with the eight digits that Label Studio puts before a name; if only one image fits.
        """
        if not name or "\0" in name:
            return None
        return self._finder.find(name) or self._by_end(name) or self._by_end(_without_upload(name))

    def by_stem(self, path: str) -> str | None:
        """Return the image at a path, extensions aside; else the only one anywhere whose name is that of the path."""
        if image := self._by_path_stem.get(_without_suffix(path)):
            return image
        found = self._by_stem.get(PurePosixPath(path).stem, [])
        return found[0] if len(found) == 1 else None

    def size(self, image: str) -> tuple[int, int] | None:
        """Return (width, height) in pixels, from the header; None where it cannot be told."""
        if image not in self._sizes:
            try:
                self._sizes[image] = read_size(self.root / image)
            except UnreadableRadiograph:
                self._sizes[image] = None
        return self._sizes[image]

    def _by_end(self, name: str) -> str | None:
        parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", ".", ".."))
        if not parts:
            return None
        fitting = [image for image in self._by_name.get(parts[-1], []) if _ends_alike(tuple(image.split("/")), parts)]
        return fitting[0] if len(fitting) == 1 else None


def list_files(source: Path, suffix: str) -> Iterator[tuple[str, Path]]:
    """Give the files of a folder that end so, by their relative path; links out of it are not followed.

    Raises:
        MimError: It is not a folder.
    """
    if not source.is_dir():
        raise MimError(f"{source} is not a folder: give the folder of the {suffix} files")
    root = source.resolve()
    for path in sorted(source.rglob(f"*{suffix}")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and path.resolve().is_relative_to(root):
            yield path.relative_to(source).as_posix(), path


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """Read a text file of no more than `limit` bytes.

    Raises:
        MimError: It cannot be read, is larger, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise MimError(f"{path} is larger than {limit >> 20} MiB: it is not taken for annotations")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise MimError(f"{path} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise MimError(f"{path} is not UTF-8 text") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MimError: It cannot be read, or is something else.
    """
    try:
        content = json.loads(read_text(path, JSON_LIMIT))
    except (ValueError, RecursionError) as error:
        raise MimError(f"{path} is not valid JSON ({_in_short(error)})") from error
    if not isinstance(content, dict):
        raise MimError(f"{path} is no JSON object but a {type(content).__name__}: is it the right file?")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        MimError: It cannot be read, or is something else.
    """
    try:
        content = yaml.safe_load(read_text(path, 1 << 20))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise MimError(f"{path} is not valid YAML ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise MimError(f"{path} is no YAML mapping: is it the right file?")
    return content


def read_names(path: Path) -> tuple[str, ...]:
    """Read names of classes, one a line; empty lines at the end do not count."""
    return tuple(line.strip() for line in read_text(path, 1 << 20).rstrip().splitlines())


def _in_short(error: Exception) -> str:
    return f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else type(error).__name__


def _is_image(path: Path) -> bool:
    try:
        file_format(path)
    except UnreadableRadiograph:
        return False
    return True


def _without_suffix(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def _without_upload(name: str) -> str:
    folder, _, last = name.replace("\\", "/").rpartition("/")
    return f"{folder}/{_UPLOAD.sub('', last, count=1)}"


def _ends_alike(first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether the shorter of two paths is the end of the longer one."""
    length = min(len(first), len(second))
    return first[-length:] == second[-length:]
