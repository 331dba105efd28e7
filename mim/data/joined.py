"""Films of two datasets as one: those of a run, then those of a test set from elsewhere."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from mim.data.annotations import Annotations, Lesion
from mim.data.manifest import ManifestRow
from mim.data.store import Film, FilmLevels, PreparedDataset

PREFIX = "external-"
"""Before the ids of films from elsewhere: an id is the hash of a path, and files of two folders may be called alike."""


class JoinedFilms(PreparedDataset):
    """Two prepared datasets as one; no pixel is copied.

    The numbers of the second go on after those of the first, and `PREFIX` stands before its ids.

    Args:
        first: What path, report and salt are those of.
        second: The other.
    """

    def __init__(self, first: PreparedDataset, second: PreparedDataset) -> None:
        self.first = first
        self.second = second
        for name in ("path", "report", "long_side", "bits", "source", "salt_check"):
            setattr(self, name, getattr(first, name))
        self.rows = JoinedRows(first.rows, second.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedFilms, (self.first, self.second)

    def image(self, number: int) -> Film:
        """Return a film at its full stored size."""
        films, place = self._find(number)
        return films.image(place)

    def levels(self, number: int) -> FilmLevels:
        """Return a film at both stored sizes."""
        films, place = self._find(number)
        return films.levels(place)

    def meant(self, numbers: Sequence[int], cells: Mapping[str, str]) -> tuple[int, ...]:
        """Refuse to tell: a row of a CSV is of one of the two datasets.

        Raises:
            TypeError: Always.
        """
        raise TypeError("labels are read of each dataset by itself")

    def _find(self, number: int) -> tuple[PreparedDataset, int]:
        place = range(len(self))[number]
        first = len(self.first)
        return (self.first, place) if place < first else (self.second, place - first)


class JoinedRows(Sequence[ManifestRow]):
    """Rows of two manifests, one after the other, with `PREFIX` before the ids of the second.

    Args:
        first: Rows.
        second: Rows.
    """

    def __init__(self, first: Sequence[ManifestRow], second: Sequence[ManifestRow]) -> None:
        self._first = first
        self._second = second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, number: int) -> ManifestRow: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[ManifestRow, ...]: ...

    def __getitem__(self, number: int | slice) -> ManifestRow | tuple[ManifestRow, ...]:
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        place = range(len(self))[number]
        first = len(self._first)
        return self._first[place] if place < first else _from_elsewhere(self._second[place - first])

    def __iter__(self) -> Iterator[ManifestRow]:
        yield from self._first
        yield from map(_from_elsewhere, self._second)


def join_annotations(first: Annotations | None, second: Annotations | None, films: int) -> Annotations | None:
    """Put what is annotated on two datasets together; categories and path are those of the first where there is one.

    Args:
        first: On the first dataset; None = not known.
        second: On the second, of the same categories; None = not known, and then nothing is: of the lesions that are
            measured none would be there.
        films: How many films the first has.
    """
    if second is None:
        return None
    lesions: dict[int, tuple[Lesion, ...]] = {} if first is None else dict(first.lesions)
    lesions |= {number + films: own for number, own in second.lesions.items()}
    return Annotations(second.path, lesions, second.categories, second.grades)


def _from_elsewhere(row: ManifestRow) -> ManifestRow:
    return replace(row, image_id=f"{PREFIX}{row.image_id}")
