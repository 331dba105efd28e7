"""Input number N of a seed: always the same film, broken in the same ways."""

import numpy as np
from fuzz_bytes import BLIND, Mutation, Random
from fuzz_dicom import DICOM, RARE_DICOM
from fuzz_images import JPEG, PNG, RARE_JPEG, RARE_PNG, RARE_TIFF, TIFF

_SHARE_RARE = 0.015  # of mutations that make files which are large, or slow to read
_SHARE_BLIND = 0.25


def mutant(films: dict[str, bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Return what was done to which film, and the bytes that came of it."""
    random = np.random.default_rng([seed, number])
    name = list(films)[int(random.integers(len(films)))]
    data, said = films[name], [name]
    for _ in range(int(random.choice([1, 1, 1, 2, 2, 3, 6]))):
        mutation = _choose(data, random)
        data = mutation(data, random)
        said.append(mutation.__name__)
    return " / ".join(said), data


def _choose(data: bytes, random: Random) -> Mutation:
    common, rare = _fitting(data)
    draw = random.random()
    fitting = rare if draw > 1 - _SHARE_RARE else common
    chosen = BLIND if draw < _SHARE_BLIND or not fitting else fitting
    return chosen[int(random.integers(len(chosen)))]


def _fitting(data: bytes) -> tuple[tuple[Mutation, ...], tuple[Mutation, ...]]:
    if data.startswith(b"\x89PNG"):
        return PNG, RARE_PNG
    if data.startswith(b"\xff\xd8"):
        return JPEG, RARE_JPEG
    if data[:2] in (b"II", b"MM"):
        return TIFF, RARE_TIFF
    return (DICOM, RARE_DICOM) if len(data) > 32 else ((), ())
