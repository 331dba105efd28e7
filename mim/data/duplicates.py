"""Films that are copies of each other, byte for byte or nearly: a perceptual hash and the pairs it finds."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.manifest import ManifestRow

HASH_SIDE = 32
NEAR = 32
"""Hamming distance up to which two hashes are those of copies.

Of 4,120 chest and 423 panoramic films, copies that were compressed anew (JPEG quality 30), halved, made brighter or
given another contrast stayed within 22 of 256 bits; the nearest two different films differed in 46.
"""

_FREQUENCIES = 16
_FLAT = 1e-6  # spread of the frequencies of a film without any detail, but for rounding
_WORDS = 4
_TABLES = 64
_TABLE_BITS = 16
_BLOCK = 1 << 20


def perceptual_hash(tiny: NDArray[np.float32]) -> str:
    """Hash how a film looks, so that copies of other size, compression or brightness get nearly the same hash.

    The signs of the 16 x 16 lowest frequencies of the discrete cosine transform against their median, those of mere
    rows or columns left out; after C. Zauner, "Implementation and benchmarking of perceptual image hash functions",
    2010, with 256 bits instead of 64: at 64 the chest films of two children may be nearer than two copies of one.

    Args:
        tiny: (32, 32), the film reduced by area.

    Returns:
        64 hexadecimal digits; empty for a film of one even grey, or of rows or columns alone, which looks like any
        other such film.
    """
    lowest = cv2.dct(tiny)[1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1].ravel()
    if np.ptp(lowest) < _FLAT:
        return ""
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()


def find_pairs(hashes: Sequence[str], distance: int = NEAR) -> NDArray[np.int64]:
    """Find the hashes that differ in at most `distance` bits.

    Hashes are sorted into 64 tables by 16 of their bits each (locality-sensitive hashing, Indyk and Motwani 1998), and
    only those that meet in a table are compared. Of two hashes that differ in k of 256 bits, all 64 tables miss with
    probability (1 - (1 - k / 256)^16)^64: once in 3,000 for k = 32, once in 30 million for k = 22.

    Args:
        hashes: From `perceptual_hash`; equal ones count as one.
        distance: In bits.

    Returns:
        (P, 2): places i < j in `hashes` of each pair, sorted; of equal hashes only the first is compared with others,
        and each further one is paired with the first.
    """
    words = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint64).reshape(-1, _WORDS)
    if len(words) < 2:
        return np.empty((0, 2), dtype=np.int64)
    different, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
    places = np.arange(len(words))
    leaders = first[inverse.reshape(-1)]
    equal = np.stack([leaders, places], axis=1)[leaders != places]
    bits = np.unpackbits(different.view(np.uint8), axis=1)
    rng = np.random.default_rng(0)
    found = [
        _near(different, first, block, distance)
        for _ in range(_TABLES)
        for block in _meetings(bits[:, rng.choice(bits.shape[1], _TABLE_BITS, replace=False)])
    ]
    return np.unique(np.concatenate([equal, *found]).astype(np.int64), axis=0)


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Films that are copies of each other.

    Attributes:
        rows: Their places in the manifest, sorted; of a file with several frames or tiles that of the first.
        exact: Whether all of them have the same stored pixels.
        across_patients: Whether they are of more than one patient; films of no known patient count as one each.
    """

    rows: tuple[int, ...]
    exact: bool
    across_patients: bool


def find_copies(rows: Sequence[ManifestRow], distance: int = NEAR) -> list[CopyGroup]:
    """Group the films of a manifest that are copies of each other: chains of pairs, those of equal pixels included.

    Frames of one file that look alike are no copies; of each file a group holds the first frame alone.
    """
    films: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        films[row.image, row.frame].append(number)
    places = list(films.values())
    hashed = [number for number, place in enumerate(places) if rows[place[0]].perceptual_hash]
    pairs = find_pairs([rows[places[number][0]].perceptual_hash for number in hashed], distance)
    groups = _chains(((hashed[first], hashed[second]) for first, second in pairs.tolist()))
    found = []
    for group in groups:
        of_files = {rows[places[number][0]].image: places[number] for number in reversed(group)}
        if len(of_files) > 1:
            found.append(_group(rows, sorted(of_files.values())))
    return found


def report_copies(rows: Sequence[ManifestRow], groups: Sequence[CopyGroup], distance: int = NEAR) -> dict[str, Any]:
    """What `report.json` says of copies: counts of films beyond the first of each group, and the groups by image_id."""
    surplus = {
        "exact": sum(len(group.rows) - 1 for group in groups if group.exact),
        "near": sum(len(group.rows) - 1 for group in groups if not group.exact),
        "across_patients": sum(len(group.rows) - 1 for group in groups if group.across_patients),
    }
    listed = [
        {
            "films": [rows[number].image_id for number in group.rows],
            "exact": group.exact,
            "across_patients": group.across_patients,
        }
        for group in groups
    ]
    return {"distance": distance, **surplus, "groups": listed}


def copies_between(first: Mapping[int, str], second: Mapping[int, str], distance: int = NEAR) -> set[int]:
    """Find who of `first` has a copy in `second`; both map a number to its perceptual hash."""
    numbers = [*first, *second]
    known = [place for place, value in enumerate((*first.values(), *second.values())) if value]
    values = [*first.values(), *second.values()]
    pairs = find_pairs([values[place] for place in known], distance).tolist()
    met: set[int] = set()
    for group in _chains((known[one], known[other]) for one, other in pairs):
        if group[-1] >= len(first):
            met.update(numbers[place] for place in group if place < len(first))
    return met


def _group(rows: Sequence[ManifestRow], films: Sequence[Sequence[int]]) -> CopyGroup:
    pixels = {tuple(rows[number].sha256 for number in film) for film in films}
    patients = {rows[film[0]].patient_id or f"film {film[0]}" for film in films}
    return CopyGroup(tuple(film[0] for film in films), len(pixels) == 1, len(patients) > 1)


def _chains(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share a member; each group sorted, groups by their first member."""
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while parent.setdefault(number, number) != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for first, second in pairs:
        one, other = sorted((root(first), root(second)))
        parent[other] = one
    groups: dict[int, list[int]] = defaultdict(list)
    for number in sorted(parent):
        groups[root(number)].append(number)
    return [groups[number] for number in sorted(groups)]


def _meetings(bits: NDArray[np.uint8]) -> Iterator[NDArray[np.int64]]:
    """Yield the pairs (P, 2) of rows that are equal, in blocks of bounded size."""
    keys = np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint16).ravel()
    order = np.argsort(keys, kind="stable")
    ends = np.searchsorted(keys[order], keys[order], side="right")
    followers = ends - np.arange(len(order)) - 1  # how many equal ones come after each
    done = np.concatenate([[0], np.cumsum(followers)])
    start = 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(done, done[start] + _BLOCK, side="right")) - 1)
        count = followers[start:stop]
        first = np.repeat(np.arange(start, stop), count)
        within = np.arange(len(first)) - np.repeat(done[start:stop] - done[start], count)
        yield np.stack([order[first], order[first + 1 + within]], axis=1)
        start = stop


def _near(
    words: NDArray[np.uint64], places: NDArray[np.int64], pairs: NDArray[np.int64], distance: int
) -> NDArray[np.int64]:
    """Keep the pairs whose words differ in at most `distance` bits, as sorted places."""
    differing = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(axis=1, dtype=np.int64)
    return np.sort(places[pairs[differing <= distance]], axis=1)
