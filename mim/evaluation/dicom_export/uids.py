"""Unique identifiers that are a function of what they identify, so that the same result is the same object."""

import hashlib


def derived_uid(*parts: object) -> str:
    """A UID under the root 2.25 (PS3.5 B.2) of the hash of some parts."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
