"""How long it takes to find copies among perceptual hashes, against comparing all with all.

    python benchmarks/copies.py --hashes 20000 200000

Hashes are drawn with the same bits preferred in all of them, as films of one kind prefer them, and a thousand copies
with up to 32 bits changed are planted. One core.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mim.data.duplicates import NEAR, find_pairs

_PLANTED = 1000
_COMPARE_ALL_UP_TO = 50_000
_ROWS = 256


def draw(count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], set[tuple[int, int]]]:
    preferred = rng.beta(2, 2, 256)
    bits = (rng.random((count, 256)) < preferred).astype(np.uint8)
    first = rng.choice(count // 2, _PLANTED, replace=False)
    second = count // 2 + rng.choice(count // 2, _PLANTED, replace=False)
    bits[second] = bits[first]
    for place in second:
        bits[place, rng.choice(256, rng.integers(0, NEAR + 1), replace=False)] ^= 1
    return np.packbits(bits, axis=1), set(zip(first.tolist(), second.tolist(), strict=True))


def compare_all(packed: NDArray[np.uint8]) -> set[tuple[int, int]]:
    words = packed.view(np.uint64)
    found: set[tuple[int, int]] = set()
    for start in range(0, len(words), _ROWS):
        apart = np.bitwise_count(words[start : start + _ROWS, None] ^ words[None, start:]).sum(axis=2)
        found.update((start + int(i), start + int(j)) for i, j in np.argwhere(apart <= NEAR) if i < j)
    return found


def timed(function: Callable[[], set[tuple[int, int]]]) -> tuple[set[tuple[int, int]], float]:
    start = time.perf_counter()
    return function(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hashes", type=int, nargs="+", default=[20_000, 200_000])
    for count in parser.parse_args().hashes:
        packed, planted = draw(count, np.random.default_rng(0))
        hashes = [row.tobytes().hex() for row in packed]
        found, seconds = timed(lambda hashes=hashes: {tuple(pair) for pair in find_pairs(hashes).tolist()})
        said = f"{count} hashes: {seconds:.1f} s, {len(planted & found)} of {_PLANTED} planted copies found"
        if count <= _COMPARE_ALL_UP_TO:
            every, longer = timed(lambda packed=packed: compare_all(packed))
            said += (
                f"; all with all: {longer:.1f} s ({longer / seconds:.0f} times), {len(every)} pairs for {len(found)}"
            )
        print(said)


if __name__ == "__main__":
    main()
