"""Mutations that know nothing of the format. Each is a function of (bytes, generator), and gives bytes."""

from collections.abc import Callable, Sequence

import numpy as np

Random = np.random.Generator
Mutation = Callable[[bytes, Random], bytes]

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 12, 13, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 127, 128, 255, 256, 257, 1000, 1024),
    *(4096, 14_000, 16_384, 20_000, 32_767, 32_768, 65_534, 65_535, 65_536, 100_000, 1 << 20, 1 << 24, 200_000_000),
    *((1 << 28) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1),
)


def number(random: Random, size: int, order: str = "little") -> bytes:
    """A number that tends to break things, in `size` bytes."""
    value = int(random.choice(NUMBERS)) if random.random() < 0.8 else int(random.integers(0, 1 << 32))
    return (value % (1 << 8 * size)).to_bytes(size, order)


def pick(random: Random, values: Sequence[int]) -> int:
    return int(values[int(random.integers(len(values)))])


def replace(data: bytes, start: int, new: bytes) -> bytes:
    return data[:start] + new + data[start + len(new) :]


def find_all(data: bytes, pattern: bytes) -> list[int]:
    found, start = [], data.find(pattern)
    while start >= 0 and len(found) < 1000:
        found.append(start)
        start = data.find(pattern, start + 1)
    return found


def _place(data: bytes, random: Random) -> int:
    """Somewhere, in the first kilobyte as often as in all the rest."""
    return int(random.integers(max(1, min(len(data), 1024) if random.random() < 0.5 else len(data))))


def flip_bits(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(int(random.choice([1, 1, 2, 8, 64]))):
        if out:
            out[_place(data, random)] ^= 1 << int(random.integers(8))
    return bytes(out)


def overwrite(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.choice([1, 2, 4, 8, 64, 512]))
    fill = [b"\0" * length, b"\xff" * length, random.bytes(length)][int(random.integers(3))]
    return replace(data, start, fill)


def write_number(data: bytes, random: Random) -> bytes:
    size, order = int(random.choice([1, 2, 4, 8])), str(random.choice(["little", "big"]))
    return replace(data, _place(data, random), number(random, size, order))


def cut_off(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def cut_out(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    return data[:start] + data[start + int(random.choice([1, 2, 4, 17, 256])) :]


def repeat(data: bytes, random: Random) -> bytes:
    start, length = _place(data, random), int(random.choice([1, 4, 16, 128, 1024]))
    return data[:start] + data[start : start + length] * int(random.choice([2, 3, 100, 2000])) + data[start + length :]


def insert(data: bytes, random: Random) -> bytes:
    start = _place(data, random)
    return data[:start] + random.bytes(int(random.choice([1, 2, 4, 64, 4096]))) + data[start:]


def append(data: bytes, random: Random) -> bytes:
    return data + random.bytes(int(random.choice([1, 100, 100_000])))


BLIND: tuple[Mutation, ...] = (
    *(flip_bits, overwrite, write_number, cut_off, cut_out, repeat, insert, append),
    *(flip_bits, overwrite, write_number),
)
