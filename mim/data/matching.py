"""Which film of a dataset a row of a CSV means."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mim.data.store import PreparedDataset, is_prepared


class FileFinder:
    """Finds files by what stands in the `image` column of a CSV.

    A name may be a path relative to the CSV's folder, a path relative to the folder of films, an absolute path, or a
    bare file name that only one file has.

    Args:
        images: The files, relative to the folder of films, with forward slashes.
        roots: The folder of films, under each of its names.
        table: The CSV.
    """

    def __init__(self, images: Iterable[str], roots: Iterable[Path], table: Path) -> None:
        self._images = set(images)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in self._images:
            self._by_name[image.rpartition("/")[2]].append(image)
        self._roots = dict.fromkeys(roots)
        self._folders = dict.fromkeys((_normalise(table.parent), table.resolve().parent))

    def find(self, name: str) -> str | None:
        """Return the file that a name means, or None if there is none or more than one."""
        name = name.replace("\\", "/")
        for folder in self._folders:
            for root in self._roots:
                path = _normalise(folder / name)
                if path.is_relative_to(root) and (image := path.relative_to(root).as_posix()) in self._images:
                    return image
        plain = name.removeprefix("./")
        if plain in self._images:
            return plain
        same_name = self._by_name.get(plain, [])
        return same_name[0] if len(same_name) == 1 else None


class FilmFinder:
    """Finds the films of a prepared dataset by what stands in the `image` column of a CSV; see `FileFinder`.

    Args:
        dataset: Where to look.
        source: The folder of films (or the prepared dataset, whose films lay in `dataset.source`).
        table: The CSV.
    """

    def __init__(self, dataset: PreparedDataset, source: Path, table: Path) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(dataset.rows):
            self._numbers[row.image].append(number)
        self._files = FileFinder(self._numbers, roots_of(source, dataset.source), table)

    def find(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the films of a file (one a frame), or nothing if the file is not in the dataset."""
        image = self._files.find(name)
        return () if image is None else tuple(self._numbers[image])


def locate(dataset: PreparedDataset, source: Path, name: Path | str) -> Path:
    """Return the path of labels or boxes: relative to `source`; of a prepared dataset also to what it was made from.

    Of a folder of films it is not looked for elsewhere: the dataset may have been prepared from a copy of the folder.
    """
    path = source / name
    if path.is_file() or not is_prepared(source):
        return path
    made_from = dataset.source / name
    return made_from if made_from.is_file() else path


def folders_of_labels(source: Path, films: Path | None) -> tuple[Path, ...]:
    """Where `labels.csv` is looked for, in this order.

    Args:
        source: The folder of films, or the prepared dataset.
        films: For a prepared dataset, the folder that it was made from.
    """
    beside = () if films is None else (films, films.parent)
    return tuple(dict.fromkeys((source, *beside, source.resolve().parent)))


def roots_of(*folders: Path) -> tuple[Path, ...]:
    """Give folders as they are written and, the first of them, with its links followed."""
    return (_normalise(folders[0]), folders[0].resolve(), *(_normalise(folder) for folder in folders[1:]))


def _normalise(path: Path) -> Path:
    """Make a path absolute and take its `..` away as they are written, without following links."""
    parts: list[str] = []
    for part in path.absolute().parts:
        if part != "..":
            parts.append(part)
        elif len(parts) > 1:
            parts.pop()
    return Path(*parts)
