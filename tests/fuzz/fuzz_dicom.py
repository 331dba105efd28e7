"""Mutations of DICOM files that leave most of them a DICOM file."""

import struct
import zlib
from functools import cache

from fuzz_bytes import NUMBERS, Mutation, Random, find_all, number, pick, replace
from pydicom.datadict import tag_for_keyword
from pydicom.uid import AllTransferSyntaxes

from mim.data.dicom_header import FIELDS

_VRS = b"OB OW OF OD OL OV UN SQ UT UC UR US SS UL SL FL FD DS IS CS LO LT PN UI AT AS DA TM ZZ \0\0".split(b" ")
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN", b"SQ", b"UT", b"UC", b"UR")
_TEXTS = (
    *(
        b"nan",
        b"inf",
        b"-inf",
        b"1e308",
        b"-1e308",
        b"1e-320",
        b"0",
        b"-1",
        b"0.0000001",
        b"1\\2\\3",
        b"\\",
        b"",
        b"\0",
    ),
    *(b"999999999999", b"2147483647", b"-2147483648", b"1.5", b"abc", b"\xff\xfe", b"1e5\\1e-5", b"MONOCHROME1"),
    *(b"RGB", b"YBR_FULL", b"PALETTE COLOR", b"SIGMOID", b"LINEAR_EXACT", b"CT", b"SEG", b"DISP", b"FOR PROCESSING"),
)
_TAGS = tuple(tag_for_keyword(keyword) for keyword in (*FIELDS, "LUTDescriptor", "LUTData", "PixelData"))
_DEEP = (10, 300, 1000, 5000, 20_000)
_SEQUENCES = (0x00283000, 0x00283010, 0x52009229, 0x52009230, 0x00081140, 0x00091010)
_PIXELS = {"<": b"\xe0\x7f\x10\x00", ">": b"\x7f\xe0\x00\x10"}


def _pack(tag: int, order: str) -> bytes:
    return struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)


def _order(data: bytes) -> str:
    return ">" if _PIXELS[">"] in data and _PIXELS["<"] not in data else "<"


def _find(data: bytes, random: Random) -> tuple[int, str]:
    """Where an element that the reader looks at begins, or -1; and the byte order."""
    order = _order(data)
    for _ in range(20):
        places = find_all(data, _pack(pick(random, _TAGS), order))
        if places:
            return pick(random, places), order
    return -1, order


def _value(data: bytes, start: int, order: str) -> tuple[int, int, int]:
    """Where the length of an element stands, how many bytes it has, and where the value begins."""
    vr = data[start + 4 : start + 6]
    if vr in _LONG_VRS:
        return start + 8, 4, start + 12
    return (start + 6, 2, start + 8) if vr.isalpha() and vr.isupper() else (start + 4, 4, start + 8)


def change_value(data: bytes, random: Random) -> bytes:
    start, order = _find(data, random)
    if start < 0:
        return data
    place, size, value = _value(data, start, order)
    length = int.from_bytes(data[place : place + size], "little" if order == "<" else "big")
    if length <= 8 and random.random() < 0.7:
        return replace(data, value, number(random, min(length, 4) or 2, "little" if order == "<" else "big"))
    text = _TEXTS[int(random.integers(len(_TEXTS)))]
    return replace(data, value, text[:length].ljust(min(length, 64)))


def resize_value(data: bytes, random: Random) -> bytes:
    start, order = _find(data, random)
    if start < 0:
        return data
    place, size, value = _value(data, start, order)
    length = int.from_bytes(data[place : place + size], "little" if order == "<" else "big")
    text = _TEXTS[int(random.integers(len(_TEXTS)))] * int(random.choice([1, 1, 2, 1000]))
    text = (text + b" " * (len(text) % 2))[:65_534]
    written = len(text).to_bytes(size, "little" if order == "<" else "big")
    return data[:place] + written + data[place + size : value] + text + data[value + min(length, len(data)) :]


def change_length(data: bytes, random: Random) -> bytes:
    start, order = _find(data, random)
    if start < 0:
        return data
    place, size, _ = _value(data, start, order)
    return replace(data, place, number(random, size, "little" if order == "<" else "big"))


def change_vr(data: bytes, random: Random) -> bytes:
    start, _ = _find(data, random)
    return data if start < 0 else replace(data, start + 4, _VRS[int(random.integers(len(_VRS)))].ljust(2))


def remove_element(data: bytes, random: Random) -> bytes:
    start, order = _find(data, random)
    if start < 0:
        return data
    place, size, value = _value(data, start, order)
    length = int.from_bytes(data[place : place + size], "little" if order == "<" else "big")
    return data[:start] + data[value + min(length, len(data)) :]


def change_syntax(data: bytes, random: Random) -> bytes:
    start = data.find(b"\x02\x00\x10\x00UI")
    if start < 0:
        return data
    old = struct.unpack("<H", data[start + 6 : start + 8])[0]
    uid = str(AllTransferSyntaxes[int(random.integers(len(AllTransferSyntaxes)))]).encode()
    uid += b"\0" * (len(uid) % 2)
    return data[: start + 6] + struct.pack("<H", len(uid)) + uid + data[start + 8 + old :]


def _body(data: bytes) -> int:
    """Where the data set begins, behind the file meta."""
    for pattern in (b"\x08\x00\x16\x00", b"\x00\x08\x00\x16", b"\x08\x00\x08\x00", b"\x08\x00\x05\x00"):
        start = data.find(pattern)
        if start >= 0:
            return start
    return min(len(data), 132)


def nest(data: bytes, random: Random) -> bytes:
    """Sequences in sequences, with defined or undefined lengths, closed or not."""
    order, depth = _order(data), pick(random, _DEEP)
    tag = _pack(pick(random, _SEQUENCES), order)
    implicit = random.random() < 0.3
    length = b"\xff\xff\xff\xff" if random.random() < 0.7 else struct.pack(f"{order}L", 0x7FFFFFF0)
    opened = tag + (b"" if implicit else b"SQ\0\0") + length + _pack(0xFFFEE000, order) + b"\xff\xff\xff\xff"
    closed = (_pack(0xFFFEE00D, order) + b"\0\0\0\0" + _pack(0xFFFEE0DD, order) + b"\0\0\0\0") * depth
    place = _body(data)
    return data[:place] + opened * depth + (closed if random.random() < 0.7 else b"") + data[place:]


def crowd(data: bytes, random: Random) -> bytes:
    """Very many elements or items."""
    order, place = _order(data), _body(data)
    count = int(random.choice([100, 3_000, 20_000]))
    if random.random() < 0.5:
        element = _pack(0x00091001, order) + b"LO" + struct.pack(f"{order}H", 0)
        return data[:place] + element * count + data[place:]
    item = _pack(0xFFFEE000, order) + b"\0\0\0\0"
    tag = _pack(pick(random, _SEQUENCES), order)
    return data[:place] + tag + b"SQ\0\0" + struct.pack(f"{order}L", 8 * count) + item * count + data[place:]


def change_fragments(data: bytes, random: Random) -> bytes:
    start = max(data.rfind(_PIXELS["<"] + b"OB"), data.rfind(_PIXELS["<"] + b"OW"))
    items = [place for place in find_all(data, b"\xfe\xff\x00\xe0") if place > start >= 0]
    if not items:
        return data
    place, kind = pick(random, items), int(random.integers(6))
    if kind == 0:
        return replace(data, place + 4, number(random, 4))
    if kind == 1:
        return replace(data, place, number(random, 4))
    if kind == 2:
        return data[:place] + b"\xfe\xff\x00\xe0\0\0\0\0" * int(random.choice([1, 2, 100, 50_000])) + data[place:]
    if kind == 3:
        table = b"".join(number(random, 4) for _ in range(int(random.choice([1, 3, 1000]))))
        length = struct.unpack("<L", data[items[0] + 4 : items[0] + 8].ljust(4, b"\0"))[0]
        head = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(table))
        return data[: items[0]] + head + table + data[items[0] + 8 + min(length, len(data)) :]
    if kind == 4:
        return data.replace(b"\xfe\xff\xdd\xe0\0\0\0\0", b"", 1)
    return replace(data, place + 8 + int(random.integers(64)), number(random, 4, str(random.choice(["little", "big"]))))


def change_codestream(data: bytes, random: Random) -> bytes:
    """Break the marker segments of a JPEG of any kind, or the header of an RLE frame."""
    starts = find_all(data, b"\xff\xd8\xff") + find_all(data, b"\xff\x4f\xff\x51")
    if not starts:
        starts = [place + 8 for place in find_all(data, b"\xfe\xff\x00\xe0")]
    if not starts:
        return data
    start = pick(random, starts)
    if random.random() < 0.5:
        return replace(
            data, start + 2 + int(random.integers(120)), number(random, int(random.choice([1, 2, 4])), "big")
        )
    return replace(
        data, start + int(random.integers(max(1, len(data) - start))), random.bytes(int(random.choice([1, 2, 8])))
    )


def claim_size(data: bytes, random: Random) -> bytes:
    """Other rows and columns in the header and, to agree with it, in the codestreams."""
    order = _order(data)
    rows, columns = (int(random.choice([1, 2, 47, 8_000, 14_000, 30_000, 65_535])) for _ in range(2))
    for tag, value in ((0x00280010, rows), (0x00280011, columns)):
        for start in find_all(data, _pack(tag, order)):
            if start + 10 < len(data):
                place = _value(data, start, order)[2]
                data = replace(data, place, struct.pack(f"{order}H", value))
    for start in find_all(data, b"\xff\x4f\xff\x51"):
        data = replace(data, start + 8, struct.pack(">LL", columns, rows))
        data = replace(data, start + 24, struct.pack(">LL", columns, rows))  # one tile
    for marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
        for start in find_all(data, bytes([0xFF, marker, 0])):
            data = replace(data, start + 5, struct.pack(">HH", rows, columns))
    return data


@cache
def _deflated_zeros(mebibytes: int) -> bytes:
    """Raw deflate of so many MiB of zeros: one block, repeated."""
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return (press.compress(bytes(1 << 20)) + press.flush(zlib.Z_FULL_FLUSH)) * mebibytes


def deflate_bomb(data: bytes, random: Random) -> bytes:
    """The same header, deflated, before hundreds of MiB of pixels."""
    start, body = data.find(b"\x02\x00\x10\x00UI"), _body(data)
    if start < 0 or _order(data) == ">":
        return data
    mebibytes = int(random.choice([1, 60, 380, 511, 513, 700]))
    old = struct.unpack("<H", data[start + 6 : start + 8])[0]
    uid = b"1.2.840.10008.1.2.1.99"
    meta = data[: start + 6] + struct.pack("<H", len(uid)) + uid + data[start + 8 + old : body]
    pixels = data.rfind(_PIXELS["<"])
    header = data[body : pixels if pixels > body else len(data)]
    for tag, value in ((0x00280010, 1024), (0x00280011, int(random.choice([512 * mebibytes % 65_536, 65_535])))):
        for place in find_all(header, _pack(tag, "<")):
            header = replace(header, place + 8, struct.pack("<H", value))
    header += _PIXELS["<"] + b"OW\0\0" + struct.pack("<L", mebibytes << 20)
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = press.compress(header) + press.flush(zlib.Z_FULL_FLUSH)
    return meta + packed + _deflated_zeros(mebibytes) + (b"\x03\x00" if random.random() < 0.8 else b"")


def many_frames(data: bytes, random: Random) -> bytes:
    """A Number of Frames that the file may or may not hold."""
    start = data.find(_pack(0x00280008, "<"))
    if start < 0 or data[start + 4 : start + 6] != b"IS":
        return data
    text = str(int(random.choice(NUMBERS))).encode()
    text += b" " * (len(text) % 2)
    old = struct.unpack("<H", data[start + 6 : start + 8])[0]
    return data[: start + 6] + struct.pack("<H", len(text)) + text + data[start + 8 + old :]


DICOM: tuple[Mutation, ...] = (
    *(change_value, change_value, change_value, resize_value, change_length, change_vr, remove_element, change_syntax),
    *(nest, crowd, change_fragments, change_fragments, change_codestream, change_codestream, claim_size, many_frames),
)
RARE_DICOM: tuple[Mutation, ...] = (deflate_bomb,)
