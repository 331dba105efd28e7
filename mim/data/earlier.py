"""What an earlier preparation of the same folder has already decoded."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mim.data.decode import DecodedFile, DecodeOptions, Skipped, pixel_hash
from mim.data.privacy import salt_check
from mim.data.scan import SourceFile, is_note, source_key
from mim.data.store import PreparedDataset
from mim.errors import MimError

SOURCES = "sources.npy"

# reasons that lie with rights, disks and limits, not with the file
_MAY_OPEN_NOW = ("missing", "unreadable-file", "timeout", "out-of-memory")


class EarlierDataset:
    """A prepared dataset whose films are taken over where their files have not changed.

    Args:
        path: Its folder.

    Raises:
        MimError: It cannot be opened, or it does not say which files it was made of.
    """

    def __init__(self, path: Path) -> None:
        self.dataset = PreparedDataset.open(path)
        self._keys = _read_sources(path / SOURCES)
        self._known = frozenset(self._keys.tolist())
        self._rows: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(self.dataset.rows):
            self._rows[row.image].append(number)
        self._skipped: dict[str, list[Skipped]] = defaultdict(list)
        for item in self.dataset.report["skipped"]:
            self._skipped[item["image"]].append(Skipped(**item))

    def fits(self, options: DecodeOptions) -> bool:
        """Whether it was made with these options and this salt."""
        made_with = self.dataset.report["options"], self.dataset.salt_check
        return made_with == (options.stored(), salt_check(options.salt))

    def is_current(self, files: Sequence[SourceFile], options: DecodeOptions) -> bool:
        """Whether preparing these files would change nothing; text files do not count."""
        keys = _to_numbers(source_key(file, options.salt) for file in files if not is_note(file))
        return np.array_equal(keys, self._keys) and not any(
            self._may_open_now(file, options.root) for file in files if file.image in self._skipped
        )

    def knows(self, file: SourceFile, options: DecodeOptions) -> bool:
        """Whether the file was met before, has not changed, and could not be opened now if it could not then."""
        return int(source_key(file, options.salt), 16) in self._known and not self._may_open_now(file, options.root)

    def take(self, file: SourceFile) -> DecodedFile | None:
        """Return what was made of a known file; None where the stored pixels are not what they were."""
        numbers = self._rows.get(file.image, [])
        rows = tuple(self.dataset.rows[number] for number in numbers)
        films = tuple(self.dataset.levels(number) for number in numbers)
        if any(pixel_hash(film.full) != row.sha256 for row, film in zip(rows, films, strict=True)):
            return None
        return DecodedFile(file.image, rows, films, tuple(self._skipped.get(file.image, ())))

    def in_words(self, files: Sequence[SourceFile], options: DecodeOptions) -> str:
        """Say how many files will be decoded, and how many are not there any more as they were."""
        keys = {int(source_key(file, options.salt), 16) for file in files if not is_note(file)}
        gone, new = len(self._known - keys), len(keys - self._known)
        again = sum(self._may_open_now(file, options.root) for file in files if file.image in self._skipped)
        tried = f", {again} that could not be read are tried again" if again else ""
        return f"{new} files are new or have changed, {gone} are gone or have changed{tried}"

    def _may_open_now(self, file: SourceFile, root: Path) -> bool:
        if not any(item.reason in _MAY_OPEN_NOW for item in self._skipped.get(file.image, ())):
            return False
        try:
            with (root / file.image).open("rb") as opened:
                opened.read(1)
        except OSError:
            return False
        return True


def save_sources(folder: Path, files: Sequence[SourceFile], salt: bytes) -> None:
    """Write `sources.npy`: salted hashes of path, size and time of change of each file that is no text, in order."""
    keys = _to_numbers(source_key(file, salt) for file in files if not is_note(file))
    np.save(folder / SOURCES, keys, allow_pickle=False)


def _to_numbers(keys: Iterable[str]) -> NDArray[np.uint64]:
    return np.fromiter((int(key, 16) for key in keys), dtype=np.uint64)


def _read_sources(path: Path) -> NDArray[np.uint64]:
    try:
        keys: NDArray[np.uint64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MimError(f"{path} cannot be read, so nothing can be added: prepare into another folder") from error
    if keys.dtype != np.uint64 or keys.ndim != 1:
        raise MimError(f"{path} is not a list of sources, so nothing can be added: prepare into another folder")
    return keys
