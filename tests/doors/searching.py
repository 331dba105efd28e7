"""Looks for words in a folder of artefacts, in whatever way they may be written or packed there."""

import base64
import binascii
import gzip
import io
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

_DEEPEST = 4  # packed in packed in packed
_LARGEST = 1 << 26
_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "latin-1")
_ZLIB_HEADS = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
_GZIP_HEAD = re.compile(rb"\x1f\x8b\x08")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}={0,2}")
_PRINTABLE = bytes(int(32 <= byte < 127 or byte in b"\t\n\r") for byte in range(256))
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){6,}")


def found_in(folder: Path, words: Iterable[str], skip: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Which words stand in the names or the content of which files (paths relative to `folder`), whatever their case.

    Args:
        folder: Searched with all that is in it, links by their targets only.
        words: What to look for.
        skip: Names of files that may hold them.
    """
    patterns = {word: _written(word) for word in words}
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        views = [name.encode()]
        if path.is_symlink():
            views.append(os.fsencode(path.readlink()))
        elif path.is_file() and path.name not in skip:
            views += unpacked(path.read_bytes())
        lowered = [view.lower() for view in views]
        found += [(name, word) for word in patterns if any(_stands(patterns[word], view) for view in lowered)]
    return found


def spoken_in(text: str, words: Iterable[str]) -> list[str]:
    """Which words stand in what was printed."""
    return [word for word in words if _stands(_written(word), text.encode().lower())]


def unpacked(data: bytes, depth: int = 0) -> Iterator[bytes]:
    """The bytes, and all that they hold in packed form: zip members, gzip, zlib (hence PNG), base64, hexadecimal."""
    yield data
    if depth == _DEEPEST:
        return
    for packed in (*_members(data), *_deflated(data), *_written_out(data)):
        yield from unpacked(packed, depth + 1)


def _written(word: str) -> tuple[bytes, ...]:
    """The ways to write a word, in small letters."""
    ways = {word.lower().encode(encoding, "ignore") for encoding in _ENCODINGS} | {quote(word).lower().encode()}
    return tuple(sorted(way for way in ways if way))


def _stands(ways: tuple[bytes, ...], text: bytes) -> bool:
    """Whether a word stands in a text of small letters; digits within a longer number do not count."""
    for way in ways:
        start = text.find(way)
        while start >= 0:
            around = text[max(0, start - 1) : start] + text[start + len(way) : start + len(way) + 1]
            if not (way.isdigit() and set(around) & set(b"0123456789")):
                return True
            start = text.find(way, start + 1)
    return False


def _members(data: bytes) -> Iterator[bytes]:
    if data[:4] != b"PK\x03\x04":
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            yield info.filename.encode() + b"\n" + info.comment + b"\n" + archive.read(info)


def _deflated(data: bytes) -> Iterator[bytes]:
    view = memoryview(data)
    for match in _GZIP_HEAD.finditer(data):
        try:
            yield gzip.GzipFile(fileobj=io.BytesIO(view[match.start() :])).read(_LARGEST)
        except (OSError, EOFError, zlib.error):
            continue
    for match in _ZLIB_HEADS.finditer(data):
        start = match.start()
        chunk = data[start - 4 : start] == b"IDAT"
        try:
            yield zlib.decompressobj().decompress(_joined(data, start) if chunk else view[start:], _LARGEST)
        except zlib.error:
            continue


def _joined(data: bytes, start: int) -> bytes:
    """The pixels of a PNG, which may lie in several chunks."""
    parts, place = [], start - 8
    while data[place + 4 : place + 8] == b"IDAT":
        length = int.from_bytes(data[place : place + 4], "big")
        parts.append(data[place + 8 : place + 8 + length])
        place += 12 + length
    return b"".join(parts)


def _written_out(data: bytes) -> Iterator[bytes]:
    if sum(data.translate(_PRINTABLE)) < 0.8 * len(data):
        return  # weights and pixels are not written in letters
    for match in _BASE64.finditer(data):
        text = match[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
        for start in range(4):  # what is encoded may begin anywhere in a longer run of letters
            cut = text[start : start + (len(text) - start) // 4 * 4] if start else text + b"=" * (-len(text) % 4)
            try:
                yield base64.b64decode(cut)
            except binascii.Error:
                continue
    for match in _HEX.finditer(data):
        yield bytes.fromhex(match[0].decode("ascii"))
