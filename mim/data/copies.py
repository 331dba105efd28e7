"""Films that are copies of each other, by the hash of what they show."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol, TypeVar

import numpy as np

from mim.data.decode import content_hash

FLAT_CONTENTS = frozenset(content_hash(np.full((32, 32), grey / 255, dtype=np.float32)) for grey in range(256))
"""Hashes of films of one even grey: air, or a failed exposure. Two of them are no copies of each other."""


class Film(Protocol):
    """What is needed of a film here."""

    @property
    def content(self) -> str:
        """Hash that knows the film again however it is stored."""


AnyFilm = TypeVar("AnyFilm", bound=Film)


def copies_of(films: Iterable[AnyFilm]) -> dict[str, list[AnyFilm]]:
    """Group films by content; films of one even grey are left out."""
    found: dict[str, list[AnyFilm]] = defaultdict(list)
    for film in films:
        if film.content not in FLAT_CONTENTS:
            found[film.content].append(film)
    return found
