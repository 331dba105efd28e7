"""Which films are inverted: unlike the other films of their kind, and like their negatives."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 8
"""Films of a kind below which nothing is said of them."""
OPPOSED = -0.1
"""Correlation with the mean of the others below which a film is taken for inverted."""
DARK_CENTRE = -0.03
"""Brightness of the centre over that of the border, of the mean film, below which a whole set may be inverted."""

_BLOCK = 4096
_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Polarity:
    """What was found.

    Attributes:
        inverted: Numbers of the films that look like negatives of the others of their kind.
        dark_centre: Kinds whose mean film is darker in the centre than at its border: all may be inverted.
        unjudged: Films of kinds with too few films.
    """

    inverted: tuple[int, ...]
    dark_centre: tuple[str, ...]
    unjudged: int


def find_inverted(tiny: NDArray[np.uint8], kinds: Sequence[str]) -> Polarity:
    """Compare each film with the mean of the others of its kind.

    Each film is brought to mean 0 and length 1, and its correlation with the mean of the others computed. That mean is
    found with the films that correlate negatively turned over, until none changes: so it is one of films of one
    polarity even if many are inverted, and the polarity of the larger part counts as right. It cannot be told which is
    right by that alone; where the border of the mean film, mostly air, is brighter than its centre, that is said.

    `benchmarks/inverted.py` measures how many it finds and misses.

    Args:
        tiny: (N, side, side), the films reduced to a few pixels.
        kinds: Kind of each film, such as its modality: films are compared with their like.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for number, kind in enumerate(kinds):
        members[kind].append(number)
    inverted: list[int] = []
    dark: list[str] = []
    unjudged = 0
    for kind, own in members.items():
        if len(own) < FEWEST:
            unjudged += len(own)
            continue
        films = tiny[np.array(own)]
        correlation, signs = _correlate(films)
        inverted += [own[place] for place in np.flatnonzero(correlation < OPPOSED)]
        if _centre_over_border(films, signs) < DARK_CENTRE:
            dark.append(kind)
    return Polarity(tuple(sorted(inverted)), tuple(dark), unjudged)


def _correlate(films: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of each film with the mean of the others, all of one polarity, and that polarity: (N,) each."""
    signs = np.ones(len(films))
    total = _sum(films, signs)
    correlation = np.zeros(len(films))
    for _ in range(_ROUNDS):
        along = np.concatenate([block @ total for _, block in _blocks(films)])
        rest = np.sqrt(np.maximum((total**2).sum() - 2 * signs * along + 1, 1e-12))
        correlation = (along - signs) / rest
        turned = np.where(correlation < 0, -1.0, 1.0)
        if (turned == signs).all():
            break
        signs = turned
        total = _sum(films, signs)
    return (correlation, signs) if signs.sum() >= 0 else (-correlation, -signs)


def _sum(films: NDArray[np.uint8], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(films[0].size)
    for start, block in _blocks(films):
        total += signs[start : start + len(block)] @ block
    return total


def _blocks(films: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Films as rows of mean 0 and length 1, some thousands at a time; one of even grey is all 0."""
    for start in range(0, len(films), _BLOCK):
        block = films[start : start + _BLOCK].reshape(-1, films[0].size).astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        length = np.sqrt((block**2).sum(axis=1, keepdims=True))
        yield start, np.divide(block, length, out=np.zeros_like(block), where=length > 0)


def _centre_over_border(films: NDArray[np.uint8], signs: NDArray[np.float64]) -> float:
    """Brightness in [0, 1] of the inner quarter of the mean film over that of its outer sixteenths."""
    right = films[signs > 0].mean(axis=0) / 255
    side = right.shape[0]
    edge, quarter = max(1, side // 16), side // 4
    inner = np.zeros(right.shape, dtype=np.bool_)
    inner[edge:-edge, edge:-edge] = True
    return float(right[quarter:-quarter, quarter:-quarter].mean() - right[~inner].mean())
