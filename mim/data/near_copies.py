"""Test films that look like a film that was learnt from: the nearest of them, and the list."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Protocol

from mim.data.duplicates import NEAR, find_pairs
from mim.files import write_atomically


class HashedFilm(Protocol):
    """What is needed of a film here."""

    @property
    def image_id(self) -> str:
        """Salted hash of its path."""

    @property
    def patient_id(self) -> str:
        """Salted hash of its patient; may be empty."""

    @property
    def content(self) -> str:
        """Hash that knows it again however it is stored."""

    @property
    def perceptual_hash(self) -> str:
        """Hash that differs little between copies; empty where there is none."""


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A test film that is a copy of a film that was met, or nearly one.

    Attributes:
        image_id: Salted hash of the test film.
        patient_id: Salted hash of its patient.
        met_in: Where the other was met: `pretraining` or `training`.
        other_image_id: Salted hash of the nearest film that was met.
        other_patient_id: Salted hash of its patient; empty = not known.
        distance: Bits in which their perceptual hashes differ, of 256.
        same_pixels: Whether both show the same to the last of 32 x 32 grey values.
        others: How many films that were met are as near as a copy.
    """

    image_id: str
    patient_id: str
    met_in: str
    other_image_id: str
    other_patient_id: str
    distance: int
    same_pixels: bool
    others: int


def find_near_copies(
    test: Sequence[HashedFilm], met: Mapping[str, Sequence[HashedFilm]], distance: int = NEAR
) -> list[NearCopy]:
    """Find the test films that look like films that were met.

    Args:
        test: Films of the test set.
        met: Films by where they were met.
        distance: Bits that the hashes of copies may differ in.

    Returns:
        At most one row for each test film and place, in the order of both: the film there that is nearest to it.
    """
    found = []
    for place, films in met.items():
        by_hash: dict[str, list[HashedFilm]] = defaultdict(list)
        for film in films:
            if film.perceptual_hash:
                by_hash[film.perceptual_hash].append(film)
        near = _near_hashes({film.perceptual_hash for film in test} - {""}, set(by_hash), distance)
        for film in test:
            hashes = near.get(film.perceptual_hash, ())
            if hashes:
                others = [other for value in hashes for other in by_hash[value]]
                found.append(_nearest(film, place, others))
    return found


def save_near_copies(path: Path, copies: Sequence[NearCopy]) -> None:
    """Write near_copies.csv: a row for each of them; the headings alone where there are none."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([field.name for field in fields(NearCopy)])
    for copy in copies:
        writer.writerow([int(value) if isinstance(value, bool) else value for value in astuple(copy)])
    write_atomically(path, table.getvalue())


def _near_hashes(test: set[str], met: set[str], distance: int) -> dict[str, list[str]]:
    """The hashes that were met within a distance of each hash of the test, where there are any."""
    near: dict[str, list[str]] = defaultdict(list)
    for value in test & met:
        near[value].append(value)
    hashes = sorted(test | met)
    for first, second in find_pairs(hashes, distance).tolist():
        for one, other in ((hashes[first], hashes[second]), (hashes[second], hashes[first])):
            if one in test and other in met:
                near[one].append(other)
    return near


def _nearest(film: HashedFilm, place: str, others: Sequence[HashedFilm]) -> NearCopy:
    def rank(other: HashedFilm) -> tuple[int, bool, str]:
        return _differing(film, other), other.content != film.content, other.image_id

    nearest = min(others, key=rank)
    return NearCopy(
        image_id=film.image_id,
        patient_id=film.patient_id,
        met_in=place,
        other_image_id=nearest.image_id,
        other_patient_id=nearest.patient_id,
        distance=_differing(film, nearest),
        same_pixels=nearest.content == film.content,
        others=len(others),
    )


def _differing(one: HashedFilm, other: HashedFilm) -> int:
    return (int(one.perceptual_hash, 16) ^ int(other.perceptual_hash, 16)).bit_count()
