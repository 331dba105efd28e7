"""A plain encoder of JPEG lossless (ISO/IEC 10918-1, process 14), independent of any library."""

import struct

import numpy as np

CODE_BITS = 5  # one Huffman code of five bits for each of the 17 categories of differences


def encode(film: np.ndarray, precision: int, *, predictor: int = 1, shift: int = 0, restart_rows: int = 0) -> bytes:
    """Encode (H, W) samples from 0 to 2**precision - 1, without their `shift` lowest bits."""
    rows, columns = film.shape
    table = bytes([0] * (CODE_BITS - 1) + [17] + [0] * (16 - CODE_BITS) + list(range(17)))
    scan = struct.pack(">BBBBBB", 1, 1, 0, predictor, 0, shift)
    codestream = b"\xff\xd8" + segment(0xC3, struct.pack(">BHHBBBB", precision, rows, columns, 1, 1, 0x11, 0))
    codestream += segment(0xC4, b"\x00" + table)
    if restart_rows:
        codestream += segment(0xDD, struct.pack(">H", restart_rows * columns))
    codestream += segment(0xDA, scan)
    samples = (film.astype(np.int64) >> shift).tolist()
    step = restart_rows or rows
    for number, start in enumerate(range(0, rows, step)):
        if number:
            codestream += bytes([0xFF, 0xD0 + (number - 1) % 8])
        codestream += entropy_coded(samples[start : start + step], 1 << (precision - shift - 1), predictor)
    return codestream + b"\xff\xd9"


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def entropy_coded(rows: list[list[int]], first: int, predictor: int) -> bytes:
    bits = []
    for y, row in enumerate(rows):
        for x, sample in enumerate(row):
            difference = (sample - predicted(rows, y, x, first, predictor) + 32767) % 65536 - 32767
            category = abs(difference).bit_length()
            bits.append(f"{category:0{CODE_BITS}b}")
            if 0 < category < 16:
                extra = difference if difference > 0 else difference - 1
                bits.append(f"{extra & ((1 << category) - 1):0{category}b}")
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    whole = int(stream, 2).to_bytes(len(stream) // 8, "big")
    return whole.replace(b"\xff", b"\xff\x00")


def predicted(rows: list[list[int]], y: int, x: int, first: int, predictor: int) -> int:
    if y == 0:
        return first if x == 0 else rows[0][x - 1]
    above = rows[y - 1][x]
    if x == 0:
        return above
    left, corner = rows[y][x - 1], rows[y - 1][x - 1]
    return {
        1: left,
        2: above,
        3: corner,
        4: left + above - corner,
        5: left + ((above - corner) >> 1),
        6: above + ((left - corner) >> 1),
        7: (left + above) >> 1,
    }[predictor]
