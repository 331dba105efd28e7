import io
import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from mim.data.radiograph import UnreadableRadiograph, count_frames, file_format, read_radiograph

GRAY8 = np.arange(0, 240, dtype=np.uint8).reshape(12, 20)
GRAY12 = (GRAY8.astype(np.uint16) * 17) + 15  # 15 .. 4078
GRAY16 = GRAY8.astype(np.uint16) * 257


def encode(picture, kind, **options):
    file = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(file, format=kind, **options)
    return file.getvalue()


def with_sbit(png, bits):
    chunk = b"sBIT" + bytes([bits])
    return png[:33] + struct.pack(">L", 1) + chunk + struct.pack(">L", zlib.crc32(chunk)) + png[33:]


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "film.bin"  # an extension that says nothing
        path.write_bytes(content)
        return path

    return write


def reason_of(path, frame=0):
    with pytest.raises(UnreadableRadiograph) as caught:
        read_radiograph(path, frame)
    assert str(caught.value).startswith(f"{path.name}: {caught.value.reason}: ")
    assert "\n" not in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_eight_bits(write, kind):
    radiograph = read_radiograph(write(encode(GRAY8, kind)))
    assert radiograph.pixels.dtype == np.float32
    np.testing.assert_allclose(radiograph.pixels, GRAY8 / 255, atol=1e-7)
    meta = radiograph.meta
    assert (meta.format, meta.bits, meta.frames) == (kind.lower(), 8, 1)
    assert (meta.modality, meta.spacing_mm, meta.patient_id, meta.study_id, meta.series_order) == (None,) * 5


@pytest.mark.parametrize(
    ("options", "kind"),
    [({}, "PNG"), ({}, "TIFF"), ({"compression": "tiff_lzw"}, "TIFF"), ({"big_tiff": True}, "TIFF")],
)
def test_sixteen_bits_are_scaled_by_what_they_hold(write, kind, options):
    for film, top, bits in ((GRAY16, 65535, 16), (GRAY12, 4095, 12), (GRAY12 * 2, 8191, 13), (GRAY12 * 9, 65535, 16)):
        radiograph = read_radiograph(write(encode(film, kind, **options)))
        np.testing.assert_allclose(radiograph.pixels, film / top, atol=1e-6)
        assert radiograph.meta.bits == bits


@pytest.mark.parametrize(("bits", "top"), [(14, 16383), (10, 4095), (16, 65535)])
def test_significant_bits_of_a_png(write, bits, top):
    radiograph = read_radiograph(write(with_sbit(encode(GRAY12, "PNG"), bits)))
    np.testing.assert_allclose(radiograph.pixels, GRAY12 / top, atol=1e-6)


def test_largest_sample_of_a_tiff_declares_its_bits(write):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 16383
    radiograph = read_radiograph(write(encode(GRAY12, "TIFF", tiffinfo=tags)))
    assert radiograph.meta.bits == 14
    np.testing.assert_allclose(radiograph.pixels, GRAY12 / 16383, atol=1e-6)


@pytest.mark.parametrize("film", [GRAY8, GRAY12])
def test_white_is_zero(write, film):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 0
    content = encode(film, "TIFF", tiffinfo=tags)
    with Image.open(io.BytesIO(content)) as image:
        assert image.tag_v2[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] == 0
        pillow_turns = image.mode == "L"
        stored = 255 - np.asarray(image) if pillow_turns else np.asarray(image)
    top = 255 if pillow_turns else 4095
    np.testing.assert_allclose(read_radiograph(write(content)).pixels, 1 - stored / top, atol=1e-6)


def test_one_bit_and_palette_gray_and_alpha(write):
    bits = GRAY8 > 100
    radiograph = read_radiograph(write(encode(bits, "PNG")))
    np.testing.assert_array_equal(radiograph.pixels, bits)
    assert radiograph.meta.bits == 1
    palette = Image.fromarray(GRAY8).convert("P")
    alpha = Image.merge("LA", (Image.fromarray(GRAY8), Image.fromarray(255 - GRAY8)))
    for picture in (palette, alpha, alpha.convert("RGBA"), Image.fromarray(GRAY8).convert("RGB")):
        radiograph = read_radiograph(write(encode(picture, "PNG")))
        np.testing.assert_allclose(radiograph.pixels, GRAY8 / 255, atol=1e-7)


def test_jpeg_noise_between_channels_is_gray_but_more_is_colour(write):
    channels = np.stack([GRAY8, GRAY8 + 6, GRAY8 + 12], axis=-1)
    np.testing.assert_allclose(read_radiograph(write(encode(channels, "PNG"))).pixels, (GRAY8 + 6) / 255, atol=1e-6)
    channels[0, 0, 2] += 1
    assert reason_of(write(encode(channels, "PNG"))) == "colour"
    smooth = np.stack([np.linspace(0, 200, 64, dtype=np.uint8)] * 64)
    gray = read_radiograph(write(encode(np.stack([smooth] * 3, axis=-1), "JPEG"))).pixels
    np.testing.assert_allclose(gray, smooth / 255, atol=0.02)


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "YCbCr"])
def test_real_colour_is_refused(write, mode):
    red = Image.new("RGB", (20, 20), (200, 30, 30)).convert(mode)
    assert reason_of(write(encode(red, "TIFF" if mode == "YCbCr" else "JPEG"))) == "colour"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(write, kind, orientation):
    film = np.full((16, 32), 20, dtype=np.uint8)
    film[:8, :8] = 220  # bright in the top left corner
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    shown = read_radiograph(write(encode(film, kind, exif=exif))).pixels
    corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert shown.shape == ((16, 32) if orientation < 5 else (32, 16))
    assert shown[corner[orientation]] > 0.8
    assert (shown > 0.5).mean() == pytest.approx(64 / 512, abs=0.01)


def test_sixteen_bit_tiff_is_turned_upright(write):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    shown = read_radiograph(write(encode(GRAY12, "TIFF", exif=exif))).pixels
    np.testing.assert_allclose(shown, np.rot90(GRAY12, -1) / 4095, atol=1e-6)


def test_pages_of_a_tiff(write):
    pages = [GRAY8, GRAY8[:6], GRAY8[:, :5]]
    images = [Image.fromarray(page) for page in pages]
    path = write(encode(images[0], "TIFF", save_all=True, append_images=images[1:]))
    assert count_frames(path) == 3
    for frame, page in enumerate(pages):
        radiograph = read_radiograph(path, frame)
        assert radiograph.meta.frames == 3
        np.testing.assert_allclose(radiograph.pixels, page / 255, atol=1e-7)
    assert reason_of(path, 3) == "frame-out-of-range"
    assert reason_of(write(encode(GRAY8, "PNG")), 1) == "frame-out-of-range"


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_truncated(write, kind, options):
    film = np.random.default_rng(0).integers(0, 256, (200, 200)).astype(np.uint8)
    content = encode(film, kind, **options)
    assert reason_of(write(content[: len(content) // 2])) == "truncated"


def test_broken(write):
    assert reason_of(write(b"\x89PNG\r\n\x1a\n" + bytes(100))) == "undecodable"
    assert reason_of(write(b"\xff\xd8\xff" + bytes(100))) == "undecodable"
    assert reason_of(write(b"II*\x00" + bytes(100))) == "undecodable"
    content = bytearray(encode(GRAY8, "PNG"))
    content[content.find(b"IDAT") + 8] ^= 0xFF
    assert reason_of(write(bytes(content))) == "undecodable"


def test_bomb_is_refused_before_it_is_inflated(write):
    header = b"IHDR" + struct.pack(">LLBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + header + struct.pack(">L", zlib.crc32(header))
    body = b"IDAT" + zlib.compress(bytes(1000))
    png += struct.pack(">L", len(body) - 4) + body + struct.pack(">L", zlib.crc32(body))
    assert reason_of(write(png)) == "too-large"


def test_own_limit_holds_where_pillow_has_none(write, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    header = b"IHDR" + struct.pack(">LLBBBBB", 20000, 20000, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">L", 13) + header + struct.pack(">L", zlib.crc32(header))
    assert (
        reason_of(write(png + struct.pack(">L", 0) + b"IDAT" + struct.pack(">L", zlib.crc32(b"IDAT")))) == "too-large"
    )


def test_float_and_wide_integers_are_no_films(write):
    assert reason_of(write(encode(GRAY8.astype(np.float32), "TIFF"))) == "unsupported-object"
    assert reason_of(write(encode(GRAY8.astype(np.int32), "TIFF"))) == "unsupported-object"


def test_sixteen_bits_in_several_channels_are_not_silently_narrowed(write):
    rows = b"".join(b"\0" + row.astype(">u2").repeat(3).tobytes() for row in GRAY16)
    chunks = [
        (b"IHDR", struct.pack(">LLBBBBB", 20, 12, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n"
    for name, body in chunks:
        png += struct.pack(">L", len(body)) + name + body + struct.pack(">L", zlib.crc32(name + body))
    assert reason_of(write(png)) == "undecodable"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "MPO"])
def test_other_pictures_are_not_radiographs(write, kind):
    options = {"save_all": True, "append_images": [Image.fromarray(GRAY8)]} if kind == "MPO" else {}
    assert reason_of(write(encode(GRAY8, kind, **options))) == "not-an-image"


def test_text_empty_missing_and_folder(write, tmp_path):
    assert reason_of(write(b"image,label\nfilm.png,1\n")) == "not-an-image"
    assert reason_of(write(b"%PDF-1.7 " + bytes(200))) == "not-an-image"
    assert reason_of(write(b"")) == "empty"
    assert reason_of(tmp_path / "absent.png") == "missing"
    assert reason_of(tmp_path) == "not-an-image"


def test_content_decides_and_not_the_extension(tmp_path):
    path = tmp_path / "film.dcm"
    path.write_bytes(encode(GRAY8, "JPEG"))
    assert file_format(path) == "jpeg"
    assert read_radiograph(str(path)).meta.format == "jpeg"


def test_real_jpegs(shared_data):
    for folder in ("panoramic", "chest"):
        paths = sorted((shared_data / folder).rglob("*.jpg"))[:5]
        assert len(paths) == 5
        for path in paths:
            with Image.open(path) as image:
                expected = np.asarray(image.convert("L")) / 255
            np.testing.assert_allclose(read_radiograph(path).pixels, expected, atol=0.02)
