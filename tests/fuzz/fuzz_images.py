"""Mutations of PNG, JPEG and TIFF files that leave most of them what they are."""

import struct
import zlib
from functools import cache

from fuzz_bytes import Mutation, Random, find_all, number, pick, replace
from fuzz_corpus import png_chunk

_SIGNATURE = 8
_NAMES = (
    *b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP tEXt zTXt".split(),
    *b"iTXt bKGD pHYs sBIT sPLT hIST tIME eXIf acTL fcTL fdAT".split(),
)
_TIFF_TAGS = (
    *(254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278),
    *(279, 281, 284, 317, 320, 322, 324, 325, 338, 339, 347),
)
_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32809, 32946, 34661, 34676, 34712, 34887, 34925, 50000, 50001)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], _SIGNATURE
    while place + 8 <= len(data) and len(chunks) < 1000:
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)


@cache
def _zeros(mebibytes: int) -> bytes:
    """A zlib stream of so many MiB of zeros."""
    press = zlib.compressobj(9)
    head = press.compress(b"") + press.flush(zlib.Z_FULL_FLUSH)
    raw = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = raw.compress(bytes(1 << 20)) + raw.flush(zlib.Z_FULL_FLUSH)
    adler = (0xFFFFFFFF & ((mebibytes << 20) % 65521) << 16) | 1
    return head + block * mebibytes + b"\x03\x00" + struct.pack(">L", adler)


def change_header(data: bytes, random: Random) -> bytes:
    """Size, depth, colour, interlace of a PNG, with a sum that is right."""
    chunks = _chunks(data)
    for index, (name, content) in enumerate(chunks):
        if name == b"IHDR" and len(content) == 13:
            place = int(random.integers(11))
            if place < 2:
                content = replace(content, 4 * place, number(random, 4, "big"))
            elif place < 4:
                content = struct.pack(">LL", *random.choice([1, 48, 9_000, 14_000, 20_000], 2)) + content[8:]
            else:
                values = (0, 1, 2, 3, 4, 6, 8, 16, 255)
                content = replace(content, min(place + 4, 12), bytes([pick(random, values)]))
            chunks[index] = (name, content)
    return _png(chunks)


def change_chunk(data: bytes, random: Random) -> bytes:
    chunks = _chunks(data)
    if not chunks:
        return data
    index, kind = int(random.integers(len(chunks))), int(random.integers(6))
    name, content = chunks[index]
    if kind == 0:
        del chunks[index]
    elif kind == 1:
        chunks[index:index] = [chunks[index]] * int(random.choice([1, 100, 3000]))
    elif kind == 2:
        chunks.insert(index, chunks.pop(int(random.integers(len(chunks)))))
    elif kind == 3:
        chunks[index] = (name, content[: int(random.integers(len(content) + 1))])
    elif kind == 4:
        size = int(random.choice([0, 1, 8, 26, 300]))
        chunks.insert(index, (_NAMES[int(random.integers(len(_NAMES)))], random.bytes(size)))
    else:
        place = int(random.integers(len(content) + 1))
        chunks[index] = (name, replace(content, place, number(random, int(random.choice([1, 4])), "big")))
    return _png(chunks)


def change_pixels(data: bytes, random: Random) -> bytes:
    """Other filtered rows in an intact zlib stream: too few, too many, rubbish."""
    chunks = _chunks(data)
    for index, (name, content) in enumerate(chunks):
        if name == b"IDAT":
            try:
                rows = zlib.decompress(content)
            except zlib.error:
                return data
            rows = [rows[:100], rows * 3, random.bytes(len(rows)), b"\x05" + rows[1:]][int(random.integers(4))]
            chunks[index] = (name, zlib.compress(rows))
            break
    return _png(chunks)


def png_bomb(data: bytes, random: Random) -> bytes:
    """A small file of a huge picture, or of a huge text or profile."""
    chunks = _chunks(data)
    kind, zeros = int(random.integers(4)), _zeros(int(random.choice([2, 100, 400])))
    if not chunks:
        return data
    if kind == 0:
        side = int(random.choice([4_090, 10_000, 14_000]))
        depth = 16 if random.random() < 0.5 else 8
        head = struct.pack(">LLBBBBB", side, side, depth, 0, 0, 0, int(random.integers(2)))
        return _png([(b"IHDR", head), (b"IDAT", zeros), (b"IEND", b"")])
    name = (b"zTXt", b"iCCP", b"iTXt")[kind - 1]
    content = b"name\0" + (b"\1\0en\0en\0" if name == b"iTXt" else b"\0") + zeros
    chunks[1:1] = [(name, content)] * int(random.choice([1, 3]))
    return _png(chunks)


def _segments(data: bytes) -> list[int]:
    """Where the marker segments before the first scan, and that scan, begin."""
    places, place = [], 2
    while place + 4 <= len(data) and data[place] == 0xFF and len(places) < 100:
        places.append(place)
        if data[place + 1] == 0xDA:
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return places


def change_segment(data: bytes, random: Random) -> bytes:
    places = _segments(data)
    if not places:
        return data
    place, kind = pick(random, places), int(random.integers(5))
    length = 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    if kind == 0:
        return replace(data, place + 4 + int(random.integers(max(1, length - 4))), number(random, 1))
    if kind == 1:
        return replace(data, place + 2, number(random, 2, "big"))
    if kind == 2:
        return data[:place] + data[place + length :]
    if kind == 3:
        return data[:place] + data[place : place + length] * int(random.choice([2, 50, 2000])) + data[place + length :]
    return replace(data, place + 1, bytes([int(random.integers(0xC0, 0xFF))]))


def jpeg_size(data: bytes, random: Random) -> bytes:
    for place in _segments(data):
        if data[place + 1] in (0xC0, 0xC1, 0xC2):
            sides = random.choice([1, 8, 640, 9_000, 14_000, 65_500, 65_535], 2)
            data = replace(data, place + 5, struct.pack(">HH", *(int(side) for side in sides)))
            if random.random() < 0.3:
                data = replace(data, place + 11, bytes([int(random.integers(256))]))
    return data


def repeat_scans(data: bytes, random: Random) -> bytes:
    """Thousands of scans over the same picture, as large as it is claimed to be."""
    places = _segments(data)
    if not places or data[places[-1] + 1] != 0xDA:
        return data
    scans, end = data[places[-1] :], data.rfind(b"\xff\xd9")
    scans = scans[: end - places[-1]] if end > places[-1] else scans
    if random.random() < 0.5:
        data = jpeg_size(data, random)
    return data[: places[-1]] + scans * int(random.choice([2, 100, 2000])) + b"\xff\xd9"


def _directory(data: bytes) -> tuple[str, int, int]:
    """Byte order of a classic TIFF, where its first directory begins, and how many entries that has."""
    order = ">" if data[:2] == b"MM" else "<"
    if len(data) < 8:
        return order, 0, 0
    start = struct.unpack(f"{order}L", data[4:8])[0]
    if start + 2 > len(data):
        return order, start, 0
    return order, start, struct.unpack(f"{order}H", data[start : start + 2])[0]


def change_entry(data: bytes, random: Random) -> bytes:
    order, start, count = _directory(data)
    if count == 0:
        return data
    entry, kind = start + 2 + 12 * int(random.integers(count)), int(random.integers(5))
    side = "little" if order == "<" else "big"
    if kind == 0:
        return replace(data, entry, struct.pack(f"{order}H", pick(random, _TIFF_TAGS)))
    if kind == 1:
        return replace(data, entry + 2, struct.pack(f"{order}H", int(random.integers(20))))
    if kind == 2:
        return replace(data, entry + 4, number(random, 4, side))
    if kind == 3:
        return replace(data, entry + 8, number(random, int(random.choice([2, 4])), side))
    for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 12), 12):
        if data[place : place + 2] == struct.pack(f"{order}H", 259):
            return replace(data, place + 8, struct.pack(f"{order}H", pick(random, _COMPRESSIONS)))
    return data


def tiff_size(data: bytes, random: Random) -> bytes:
    order, start, count = _directory(data)
    for place in range(start + 2, min(start + 2 + 12 * count, len(data) - 12), 12):
        if struct.unpack(f"{order}H", data[place : place + 2])[0] in (256, 257, 278):
            value = int(random.choice([1, 9_000, 14_000, 65_535, 1 << 24, (1 << 32) - 1]))
            data = replace(data, place + 2, struct.pack(f"{order}HLL", 4, 1, value))
    return data


def chain_directories(data: bytes, random: Random) -> bytes:
    """A directory whose next one is itself, or thousands of copies of it."""
    order, start, count = _directory(data)
    place = start + 2 + 12 * count
    if count == 0 or place + 4 > len(data):
        return data
    if random.random() < 0.3:
        return replace(data, place, struct.pack(f"{order}L", pick(random, (start, 0, 4, 8, place, len(data)))))
    directory, out = data[start:place], bytearray(data)
    for _ in range(int(random.choice([2, 20, 100, 5_000]))):
        out[place : place + 4] = struct.pack(f"{order}L", len(out))
        place = len(out) + len(directory)
        out += directory + b"\0\0\0\0"
    return bytes(out)


def swap_magic(data: bytes, random: Random) -> bytes:
    heads = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n")
    return replace(data, 0, heads[int(random.integers(len(heads)))])


def change_exif(data: bytes, random: Random) -> bytes:
    places = find_all(data, b"Exif\0\0")
    return data if not places else replace(data, places[0] + 6 + int(random.integers(30)), number(random, 2))


PNG: tuple[Mutation, ...] = (change_header, change_header, change_chunk, change_chunk, change_pixels)
RARE_PNG: tuple[Mutation, ...] = (png_bomb,)
JPEG: tuple[Mutation, ...] = (change_segment, change_segment, jpeg_size, change_exif)
RARE_JPEG: tuple[Mutation, ...] = (repeat_scans,)
TIFF: tuple[Mutation, ...] = (change_entry, change_entry, change_entry, tiff_size, swap_magic)
RARE_TIFF: tuple[Mutation, ...] = (chain_directories,)
