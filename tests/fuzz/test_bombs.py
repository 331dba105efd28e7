"""Small files that claim to be huge are refused before anything of that size is allocated."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fuzz_corpus import drawn, png_chunk
from PIL import Image

from mim.data.build import FILE_LIMITS, build
from mim.data.decode import DecodedFile, DecodeOptions, decode_file, unreadable
from mim.data.prepare import main
from mim.data.processes import Limits, map_in_processes
from mim.data.scan import scan
from mim.data.store import PreparedDataset

SIDE = 12_000  # below the largest film that is read


def bombs() -> Iterator[tuple[str, bytes]]:
    head = struct.pack(">LLBBBBB", SIDE, SIDE, 16, 0, 0, 0, 0)
    zeros = zlib.compress(bytes(1 << 20))
    chunks = ((b"IHDR", head), (b"IDAT", zeros), (b"IEND", b""))
    yield "png", b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    for name in ("jpeg", "jpeg progressive"):
        jpeg = drawn()[name]
        frame = max(jpeg.find(b"\xff\xc0\x00"), jpeg.find(b"\xff\xc2\x00"))
        yield name, jpeg[: frame + 5] + struct.pack(">HH", SIDE, SIDE) + jpeg[frame + 9 :]
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint8)).save(buffer, "TIFF", compression="tiff_lzw", strip_size=1 << 30)
    tiff = buffer.getvalue()
    yield "tiff", tiff
    for name, data in drawn().items():
        marked = [data.find(mark) for mark in (b"\xff\xc0\x00", b"\xff\xc3\x00", b"\xff\xf7\x00", b"\xff\x4f\xff\x51")]
        if name.startswith("dicom") and (max(marked) > 0 or "RLE" in name) and "Extended" not in name:
            yield name, _claimed(data, marked)


def _claimed(data: bytes, marked: list[int]) -> bytes:
    out = bytearray(data)
    for element in (b"\x28\x00\x10\x00US", b"\x28\x00\x11\x00US"):
        out[out.find(element) + 8 : out.find(element) + 10] = struct.pack("<H", SIDE)
    for place in (place for place in marked[:3] if place > 0):
        out[place + 5 : place + 9] = struct.pack(">HH", SIDE, SIDE)
    if marked[3] > 0:
        for offset in (8, 24):
            out[marked[3] + offset : marked[3] + offset + 8] = struct.pack(">LL", SIDE, SIDE)
    return bytes(out)


def deflated(zeros: int) -> bytes:
    """A deflated DICOM file with so many bytes of zeros behind its header."""
    film = drawn()["dicom Deflated Explicit VR Little Endian"]
    start = film.find(b"1.2.840.10008.1.2.1.99") + 22
    for body in range(start, len(film)):  # where the file meta ends
        try:
            header = zlib.decompressobj(-zlib.MAX_WBITS).decompress(film[body:])
        except zlib.error:
            continue
        if header.startswith(b"\x08\x00"):
            break
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return film[:body] + press.compress(header) + press.compress(bytes(zeros)) + press.flush()


def reasons(files: dict[str, bytes], folder: Path, limits: Limits) -> dict[str, str]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    decoded = map_in_processes(
        partial(decode_file, options=DecodeOptions(folder, 512, 8, bytes(32))),
        files,
        workers=1,
        limits=limits,
        failed=lambda image, failure: unreadable(image, failure, ""),
        preload=["mim.data.decode"],
    )
    return {item.image: ", ".join(skipped.reason for skipped in item.skipped) for item in decoded}


def test_bombs_are_refused_with_hardly_any_memory(tmp_path: Path) -> None:
    files = dict(bombs())
    assert len(files) >= 11
    found = reasons(files, tmp_path, Limits(seconds=FILE_LIMITS.seconds, memory=48 << 20))
    assert found == dict.fromkeys(files, "too-large")


def test_a_deflated_bomb_is_not_unpacked(tmp_path: Path) -> None:
    files = {"bomb": deflated(600 << 20), "film": deflated(0)}
    found = reasons(files, tmp_path, Limits(seconds=FILE_LIMITS.seconds, memory=256 << 20))
    assert found == {"bomb": "too-large", "film": ""}


@pytest.mark.parametrize("name", ["dicom frames", "dicom RLE Lossless 3", "dicom JPEG baseline, extended offsets"])
def test_billions_of_frames_are_refused_at_once(name: str, tmp_path: Path) -> None:
    data = drawn()[name]
    start = data.find(b"\x28\x00\x08\x00IS")
    frames = b"2147483646"
    data = data[: start + 6] + struct.pack("<H", len(frames)) + frames + data[start + 10 :]
    assert reasons({"film": data}, tmp_path, FILE_LIMITS) == {"film": "truncated"}


def hang_or_decode(image: str, options: DecodeOptions) -> DecodedFile:
    while image == "endless":
        pass
    return decode_file(image, options)


def test_a_preparation_goes_on_past_files_that_take_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    large = np.random.default_rng(0).integers(0, 255, (5000, 5000), np.uint8)
    Image.fromarray(large).save(films / "huge.png", compress_level=1)
    for name in ("a", "endless", "z"):
        (films / name).write_bytes(drawn()["png gray"])
    monkeypatch.setattr("mim.data.build.decode_file", hang_or_decode)
    options = DecodeOptions(films, 512, 8, bytes(32))
    build(scan(films), tmp_path / "out", options, 2, limits=Limits(seconds=3, memory=64 << 20))
    dataset = PreparedDataset.open(tmp_path / "out")
    assert [row.image for row in dataset.rows] == ["a", "z"]
    skipped = {item["image"]: (item["reason"], item["detail"]) for item in dataset.report["skipped"]}
    assert skipped == {
        "endless": ("timeout", "it took longer than 3 s (--file-seconds)"),
        "huge.png": ("out-of-memory", "it needed more than 0.0625 GiB (--file-memory)"),
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), FILE_LIMITS),
        (("--file-seconds", "60", "--file-memory", "7.5"), Limits(60.0, 7680 << 20)),
    ],
)
def test_limits_are_set_on_the_command_line(
    arguments: tuple[str, ...], expected: Limits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "film").write_bytes(drawn()["png gray"])
    met = []

    def watch(*given: object) -> None:
        met.extend(item for item in given if isinstance(item, Limits))
        build(*given)

    monkeypatch.setattr("mim.data.prepare.build", watch)
    assert main([str(films), "--output", str(tmp_path / "out"), "--workers", "1", *arguments]) == 0
    assert met == [expected]


@pytest.mark.parametrize("value", ["0", "-1", "inf", "nan"])
def test_limits_must_be_numbers_above_0(value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--output", str(tmp_path / "out"), f"--file-memory={value}"])
    assert "--file-seconds and --file-memory must be finite and above 0" in capsys.readouterr().err
