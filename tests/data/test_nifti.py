import gzip
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Image

from mim.data import nifti
from mim.data.radiograph import UnreadableRadiograph, count_frames, file_format, read_radiograph

FILM = np.linspace(0, 4095, 12 * 20).round().astype(np.uint16).reshape(12, 20)  # rows, columns


@pytest.fixture
def write(tmp_path):
    def write(film, name="film.nii.gz", image=nibabel.Nifti1Image, **fields):
        """Store a film as SimpleITK, MONAI and nnU-Net do: columns first."""
        stored = image(film.T if film.ndim == 2 else film, np.eye(4), dtype=film.dtype)
        slope, intercept = fields.pop("slope", None), fields.pop("intercept", 0)
        if slope is not None:
            stored.header.set_slope_inter(slope, intercept)
        for keyword, value in fields.items():
            stored.header[keyword] = value
        path = tmp_path / name
        nibabel.save(stored, path)
        if slope is not None:  # nibabel divides by the slope as it saves; here the stored numbers shall stay
            content = (gzip.decompress if name.endswith("gz") else bytes)(path.read_bytes())
            content = content[:352] + (film.T if film.ndim == 2 else film).tobytes(order="F")
            path.write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
        return path

    return write


def reason_of(path, **options):
    with pytest.raises(UnreadableRadiograph) as caught:
        read_radiograph(path, **options)
    return caught.value.reason


@pytest.mark.parametrize("name", ["film.nii", "film.nii.gz", "film.bin"])
@pytest.mark.parametrize("image", [nibabel.Nifti1Image, Nifti2Image])
@pytest.mark.parametrize("axes", [2, 3, 4])
def test_both_versions_compressed_or_not(write, tmp_path, name, image, axes):
    film = FILM if axes == 2 else FILM.T.reshape(20, 12, *[1] * (axes - 2))
    path = write(film, "film.nii.gz" if name == "film.bin" else name, image)
    path = path.rename(tmp_path / name)  # the extension says nothing
    assert file_format(path) == "nifti"
    assert count_frames(path) == 1
    radiograph = read_radiograph(path)
    np.testing.assert_allclose(radiograph.pixels, FILM / 4095, atol=1e-6)
    assert radiograph.pixels.dtype == np.float32
    assert (radiograph.meta.format, radiograph.meta.bits, radiograph.meta.frames) == ("nifti", 12, 1)
    assert radiograph.meta.patient_id is None


def test_the_array_is_that_of_monai(write):
    from monai.data import NibabelReader

    reader = NibabelReader()
    array, _ = reader.get_data(reader.read(write(FILM)))
    np.testing.assert_allclose(read_radiograph(write(FILM)).pixels, np.asarray(array).T / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("film", "low", "high", "bits"),
    [
        (FILM // 16, 0, 255, 8),
        (FILM.astype(np.uint8), 0, 255, 8),
        (FILM, 0, 4095, 12),
        (FILM.astype(np.int16), 0, 4095, 12),
        (FILM.astype(np.int32) * 16, 0, 65535, 16),
        (FILM // 100, 0, 255, 8),
    ],
)
def test_integers_fill_the_bits_they_use(write, film, low, high, bits):
    radiograph = read_radiograph(write(film))
    np.testing.assert_allclose(radiograph.pixels, (film.astype(float) - low) / (high - low), atol=1e-6)
    assert radiograph.meta.bits == bits


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64, np.int64])
def test_signed_values_and_floats_fill_their_percentiles(write, dtype):
    film = np.random.default_rng(0).integers(-3000, 3001, (60, 50)).astype(dtype)
    low, high = np.quantile(film, [0.005, 0.995], method="inverted_cdf")
    radiograph = read_radiograph(write(film))
    np.testing.assert_allclose(radiograph.pixels, np.clip((film - low) / (high - low), 0, 1), atol=1e-6)
    assert radiograph.meta.bits == 8 * np.dtype(dtype).itemsize


def test_values_that_are_no_numbers_are_black_and_do_not_count(write):
    film = (FILM / 4095).astype(np.float32)
    film[0, :3] = np.nan, np.inf, -np.inf
    shown = read_radiograph(write(film)).pixels
    low, high = np.quantile(film[np.isfinite(film)], [0.005, 0.995], method="inverted_cdf")
    assert shown[0, :3].tolist() == [0, 1, 0]
    np.testing.assert_allclose(shown[1:], np.clip((film[1:] - low) / (high - low), 0, 1), atol=1e-6)


@pytest.mark.parametrize("slope", [2.5, -0.5, 1e-6])
def test_slope_and_intercept(write, slope):
    shown = read_radiograph(write(FILM, slope=slope, intercept=-100)).pixels
    np.testing.assert_allclose(shown, FILM / 4095 if slope > 0 else 1 - FILM / 4095, atol=1e-6)


def test_display_range_is_a_window(write):
    shown = read_radiograph(write(FILM, cal_min=1000, cal_max=3000)).pixels
    np.testing.assert_allclose(shown, np.clip((FILM - 1000.0) / 2000, 0, 1), atol=1e-6)
    shown = read_radiograph(write(FILM, slope=2, intercept=10, cal_min=1000, cal_max=3000)).pixels
    np.testing.assert_allclose(shown, np.clip((FILM * 2.0 + 10 - 1000) / 2000, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("units", "sizes", "shape", "spacing"),
    [
        (2, (0.1, 0.1), (12, 20), (0.1, 0.1)),
        (3, (100, 100), (12, 20), (0.1, 0.1)),
        (0, (1, 1), (12, 20), None),
        (2, (0.1, 0.2), (24, 20), (0.1, 0.1)),
        (2, (0.2, 0.1), (12, 40), (0.1, 0.1)),
    ],
)
def test_spacing_and_square_pixels(write, units, sizes, shape, spacing):
    path = write(FILM, "film.nii", pixdim=[1, *sizes, 1, 1, 1, 1, 1], xyzt_units=units)
    radiograph = read_radiograph(path)
    assert radiograph.pixels.shape == shape
    assert radiograph.meta.spacing_mm == (spacing and pytest.approx(spacing))


def test_big_endian(tmp_path):
    header = Nifti1Header(endianness=">")
    header.set_data_dtype(np.uint16)
    path = tmp_path / "film.nii"
    nibabel.save(nibabel.Nifti1Image(FILM.T, np.eye(4), header), path)
    content = path.read_bytes()
    assert content[:4] == b"\0\0\x01\x5c"
    np.testing.assert_allclose(read_radiograph(path).pixels, FILM / 4095, atol=1e-6)


def test_colour_by_policy(write):
    colours = np.zeros((20, 12), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["B"] = 255, np.arange(12)
    path = write(colours)
    assert reason_of(path) == "colour"
    shown = read_radiograph(path, color="gray").pixels
    expected = np.repeat((0.299 * 255 + 0.114 * np.arange(12))[None] / 255, 20, axis=0)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        (np.zeros((20, 12, 3), np.uint8), "unsupported-object"),
        (np.zeros((20, 12, 1, 2), np.uint8), "unsupported-object"),
        (np.zeros((20, 12, 1, 1, 3), np.uint8), "unsupported-object"),
        (np.zeros((20, 12, 1), np.complex64), "unsupported-object"),
    ],
)
def test_volumes_series_and_complex_numbers_are_no_films(write, film, reason):
    assert reason_of(write(film)) == reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"dim": [2, 32767, 32767, 1, 1, 1, 1, 1]}, "too-large"),
        ({"dim": [2, 10000, 10000, 1, 1, 1, 1, 1]}, "truncated"),
        ({"dim": [2, 0, 12, 1, 1, 1, 1, 1]}, "invalid-header"),
        ({"dim": [2, -20, 12, 1, 1, 1, 1, 1]}, "invalid-header"),
        ({"dim": [9, 20, 12, 1, 1, 1, 1, 1]}, "invalid-header"),
        ({"dim": [1, 20, 1, 1, 1, 1, 1, 1]}, "invalid-header"),
        ({"vox_offset": 1e30}, "invalid-header"),
        ({"vox_offset": 12}, "invalid-header"),
        ({"vox_offset": np.nan}, "invalid-header"),
        ({"datatype": 999}, "invalid-header"),
        ({"datatype": 1536, "bitpix": 128}, "unsupported-object"),
        ({"pixdim": [1, 1, 1000, 1, 1, 1, 1, 1]}, "invalid-header"),
        ({"pixdim": [1, np.nan, 0, 1, 1, 1, 1, 1]}, None),
        ({"scl_slope": 2, "scl_inter": np.inf}, "invalid-header"),
        ({"cal_min": np.inf, "cal_max": np.nan}, None),
        ({"xyzt_units": 7}, None),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_hostile_headers(write, tmp_path, fields, reason, compressed):
    whole = write(FILM, "film.nii").read_bytes()
    header = Nifti1Header(whole[:348])
    for keyword, value in fields.items():
        header[keyword] = value
    content = header.binaryblock + whole[348:]
    path = tmp_path / "hostile"
    path.write_bytes(gzip.compress(content, mtime=0) if compressed else content)
    if reason is None:
        np.testing.assert_allclose(read_radiograph(path).pixels, FILM / 4095, atol=1e-6)
    else:
        assert reason_of(path) == reason


def test_a_small_file_cannot_claim_a_large_film(write, tmp_path, monkeypatch):
    whole = write(FILM, "film.nii").read_bytes()
    header = Nifti1Header(whole[:348])
    header["dim"] = [2, 14000, 14000, 1, 1, 1, 1, 1]
    path = tmp_path / "claim"
    path.write_bytes(gzip.compress(header.binaryblock + whole[348:], mtime=0))
    read, asked_for = nifti._read, []
    monkeypatch.setattr(nifti, "_read", lambda path, count: asked_for.append(count) or read(path, count))
    assert reason_of(path) == "truncated"
    assert max(asked_for) <= 540  # bytes of the header


@pytest.mark.parametrize("name", ["film.nii", "film.nii.gz"])
def test_truncated_and_broken(write, tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 65536, (64, 64)).astype(np.uint16)
    whole = write(noise, name).read_bytes()
    path = tmp_path / "cut"
    for share in (0.5, 0.95):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert reason_of(path) == "truncated"
    if name.endswith("gz"):
        path.write_bytes(whole[:2000] + bytes(200) + whole[2200:])
        assert reason_of(path) in ("undecodable", "truncated")


@pytest.mark.parametrize(
    "content", [gzip.compress(b"text" * 500, mtime=0), b"\x1f\x8b\x08" + bytes(50), b"\x5c\x01\0\0" + bytes(400)]
)
def test_what_is_no_nifti(tmp_path, content):
    path = tmp_path / "film.nii.gz"
    path.write_bytes(content)
    assert reason_of(path) == "not-an-image"


def test_second_frame(write):
    path = write(FILM)
    with pytest.raises(UnreadableRadiograph) as caught:
        read_radiograph(path, 1)
    assert caught.value.reason == "frame-out-of-range"


def test_nibabel_is_imported_for_nifti_only_and_monai_and_torch_never(write):
    code = """
import sys
from mim.data import read_radiograph
print([m for m in ('nibabel', 'monai', 'torch') if m in sys.modules])
read_radiograph(sys.argv[1])
print([m for m in ('nibabel', 'monai', 'torch') if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, str(write(FILM))], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "['nibabel']"]
