"""Which film of a dataset a row of a CSV means."""

from collections import defaultdict
from pathlib import Path

from mim.data.store import PreparedDataset


class FilmFinder:
    """Finds films by what stands in the `image` column of a CSV.

    A name may be a path relative to the CSV's folder, a path relative to the folder of films, an absolute path, or a
    bare file name that only one file of the dataset has.

    Args:
        dataset: Where to look.
        source: The folder of films (or the prepared dataset, whose films lay in `dataset.source`).
        table: The CSV.
    """

    def __init__(self, dataset: PreparedDataset, source: Path, table: Path) -> None:
        self._by_path: dict[str, list[int]] = defaultdict(list)
        for number, row in enumerate(dataset.rows):
            self._by_path[row.image].append(number)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for image in self._by_path:
            self._by_name[image.rpartition("/")[2]].append(image)
        self._roots = dict.fromkeys((_normalise(source), source.resolve(), _normalise(dataset.source)))
        self._folders = dict.fromkeys((_normalise(table.parent), table.resolve().parent))

    def find(self, name: str) -> tuple[int, ...]:
        """Return the numbers of the films of a file (one a frame), or nothing if the file is not in the dataset."""
        name = name.replace("\\", "/")
        for folder in self._folders:
            for root in self._roots:
                path = _normalise(folder / name)
                if path.is_relative_to(root) and (image := path.relative_to(root).as_posix()) in self._by_path:
                    return tuple(self._by_path[image])
        plain = name.removeprefix("./")
        if plain in self._by_path:
            return tuple(self._by_path[plain])
        same_name = self._by_name.get(plain, [])
        return tuple(self._by_path[same_name[0]]) if len(same_name) == 1 else ()


def _normalise(path: Path) -> Path:
    """Make a path absolute and take its `..` away as they are written, without following links."""
    parts: list[str] = []
    for part in path.absolute().parts:
        if part != "..":
            parts.append(part)
        elif len(parts) > 1:
            parts.pop()
    return Path(*parts)
