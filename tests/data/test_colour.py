import io

import numpy as np
import pytest
from dicom_factory import make_dataset, reason_of, save
from PIL import Image
from pydicom.pixels import convert_color_space
from pydicom.uid import ExplicitVRBigEndian, JPEG2000Lossless, RLELossless

from mim.data.radiograph import UnreadableRadiograph, count_frames, read_radiograph

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (16, 24, 3)).astype(np.uint8)


def luminance(rgb):
    """ITU-R BT.601, written out."""
    red, green, blue = (rgb[..., k].astype(np.float64) for k in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def colour_dataset(pixels, photometric="RGB", planar=0, bits=8, **fields):
    rows, columns = pixels.shape[-3:-1]
    stored = np.moveaxis(pixels, -1, -3) if planar else pixels
    dataset = make_dataset(pixels[..., 0], bits, **fields)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, photometric, planar
    dataset.Rows, dataset.Columns = rows, columns
    dataset.PixelData = np.ascontiguousarray(stored).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    return dataset


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("frames", [1, 3])
def test_rgb(tmp_path, planar, frames):
    pixels = np.stack([np.roll(COLOURS, k, axis=0) for k in range(frames)])
    path = save(colour_dataset(pixels if frames > 1 else pixels[0], planar=planar), tmp_path / "film.dcm")
    assert reason_of(path) == "colour"
    with pytest.raises(UnreadableRadiograph):
        count_frames(path)
    assert count_frames(path, color="gray") == frames
    for frame in range(frames):
        radiograph = read_radiograph(path, frame, color="gray")
        np.testing.assert_allclose(radiograph.pixels, luminance(pixels[frame]) / 255, atol=1e-6)
        assert radiograph.pixels.dtype == np.float32
        assert radiograph.meta.bits == 8


@pytest.mark.parametrize("bits", [12, 16])
def test_rgb_of_more_bits(tmp_path, bits):
    pixels = RNG.integers(0, 1 << bits, (16, 24, 3)).astype(np.uint16)
    path = save(colour_dataset(pixels, bits=bits), tmp_path / "film.dcm")
    shown = read_radiograph(path, color="gray").pixels
    np.testing.assert_allclose(shown, luminance(pixels) / ((1 << bits) - 1), atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_rgb(tmp_path, syntax):
    pixels = RNG.integers(0, 256, (64, 96, 3)).astype(np.uint8)
    dataset = colour_dataset(pixels)
    dataset.compress(syntax, generate_instance_uid=False)
    shown = read_radiograph(save(dataset, tmp_path / "film.dcm"), color="gray").pixels
    np.testing.assert_allclose(shown, luminance(pixels) / 255, atol=1e-6)


def test_ybr_is_its_first_sample(tmp_path):
    """The Y of YBR_FULL is the luminance itself (C.7.6.3.1.2)."""
    ybr = convert_color_space(COLOURS, "RGB", "YBR_FULL")
    shown = read_radiograph(save(colour_dataset(ybr, "YBR_FULL"), tmp_path / "film.dcm"), color="gray").pixels
    np.testing.assert_allclose(shown, ybr[..., 0] / 255, atol=1.5 / 255)


def test_ybr_of_half_the_columns(tmp_path):
    luma = np.linspace(0, 255, 16 * 24).round().astype(np.uint8).reshape(16, 24)
    dataset = colour_dataset(np.repeat(luma[..., None], 3, axis=2), "YBR_FULL_422")
    samples = np.full((16, 12, 4), 128, dtype=np.uint8)  # Y Y B R, without colour
    samples[..., 0], samples[..., 1] = luma[:, ::2], luma[:, 1::2]
    dataset.PixelData = samples.tobytes()
    path = save(dataset, tmp_path / "film.dcm")
    np.testing.assert_allclose(read_radiograph(path, color="gray").pixels, luma / 255, atol=1e-6)
    dataset.PixelData = samples.tobytes()[:-2]
    assert reason_of(save(dataset, path), color="gray") == "truncated"


def palette_dataset(indices, palette, first=0, bits=16, syntax=None):
    dataset = make_dataset(indices, 8, **({} if syntax is None else {"syntax": syntax}))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset["PixelData"].VR = "OB"
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    for colour, entries in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        name = f"{colour}PaletteColorLookupTable"
        dataset.add_new(f"{name}Descriptor", "US", [len(palette) % 65536, first, bits])
        raw = entries.astype(np.uint8).tobytes() if bits == 8 else entries.astype(order).tobytes()
        dataset.add_new(f"{name}Data", "OW", raw)
    return dataset


INDICES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize(("bits", "top"), [(16, 65535), (8, 255)])
def test_palette(tmp_path, bits, top):
    palette = RNG.integers(0, top + 1, (256, 3))
    path = save(palette_dataset(INDICES, palette, bits=bits), tmp_path / "film.dcm")
    assert reason_of(path) == "colour"
    shown = read_radiograph(path, color="gray").pixels
    np.testing.assert_allclose(shown, luminance(palette)[INDICES] / top, atol=1e-6)


def test_palette_in_big_endian_and_one_that_starts_later_and_ends_earlier(tmp_path):
    palette = RNG.integers(0, 65536, (100, 3))
    path = save(palette_dataset(INDICES, palette, first=50, syntax=ExplicitVRBigEndian), tmp_path / "film.dcm")
    expected = luminance(palette)[np.clip(INDICES.astype(int) - 50, 0, 99)] / 65535
    np.testing.assert_allclose(read_radiograph(path, color="gray").pixels, expected, atol=1e-6)


def test_palette_of_bytes_declared_as_words(tmp_path):
    palette = np.stack([np.arange(256), np.arange(256) // 2, np.arange(256) // 4], axis=1)
    path = save(palette_dataset(INDICES, palette, bits=16), tmp_path / "film.dcm")
    expected = luminance(palette)[INDICES] / 255
    np.testing.assert_allclose(read_radiograph(path, color="gray").pixels, expected, atol=1e-6)


def test_broken_palettes_and_unknown_colour_spaces_are_refused(tmp_path):
    path = tmp_path / "film.dcm"
    dataset = palette_dataset(INDICES, RNG.integers(0, 65536, (256, 3)))
    dataset.GreenPaletteColorLookupTableData = bytes(100)
    assert reason_of(save(dataset, path), color="gray") == "invalid-header"
    del dataset.GreenPaletteColorLookupTableData
    assert reason_of(save(dataset, path), color="gray") == "invalid-header"
    for photometric in ("HSV", "CMYK", "YBR_PARTIAL_420"):
        assert reason_of(save(colour_dataset(COLOURS, photometric), path), color="gray") == "colour"
    assert reason_of(save(colour_dataset(COLOURS, "MONOCHROME2"), path), color="gray") == "colour"


def test_the_policy_leaves_gray_films_alone(tmp_path):
    path = save(make_dataset(), tmp_path / "film.dcm")
    np.testing.assert_array_equal(read_radiograph(path, color="gray").pixels, read_radiograph(path).pixels)
    with pytest.raises(ValueError, match="color"):
        read_radiograph(path, color="grey")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_coloured_png_and_tiff(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    path = tmp_path / "picture"
    image.save(path, format="TIFF" if mode == "CMYK" else "PNG")
    assert reason_of(path) == "colour"
    expected = luminance(np.asarray(image.convert("RGB"))) / 255
    np.testing.assert_allclose(read_radiograph(path, color="gray").pixels, expected, atol=1e-6)


def test_coloured_jpeg(tmp_path):
    smooth = np.stack(np.meshgrid(np.linspace(0, 200, 64), np.linspace(50, 250, 48)), axis=-1)
    picture = np.dstack([smooth, np.full((48, 64), 30)]).astype(np.uint8)
    path = tmp_path / "picture.jpg"
    Image.fromarray(picture).save(path, quality=95)
    np.testing.assert_allclose(read_radiograph(path, color="gray").pixels, luminance(picture) / 255, atol=0.02)


def test_gray_within_the_noise_of_jpeg_is_the_same_under_both_policies(tmp_path):
    noisy = np.repeat(COLOURS[..., :1] // 2, 3, axis=2) + RNG.integers(0, 12, COLOURS.shape).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, format="PNG")
    path = tmp_path / "film.png"
    path.write_bytes(file.getvalue())
    np.testing.assert_array_equal(read_radiograph(path, color="gray").pixels, read_radiograph(path).pixels)
