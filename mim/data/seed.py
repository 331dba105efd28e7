"""Seeds for everything random in the data plane."""

import hashlib
import operator


def derive_seed(*parts: int | str) -> int:
    """Turn any numbers and words into one 32-bit seed.

    The same parts give the same seed on every machine and in every process; parts that differ in any place, their
    order included, give unrelated seeds.

    Args:
        *parts: For instance the seed of the run, what is drawn, the epoch and the index.

    Returns:
        An integer in [0, 2**32).
    """
    plain = tuple(part if isinstance(part, str) else operator.index(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=4).digest(), "little")
