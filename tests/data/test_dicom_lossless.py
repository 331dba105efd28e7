import lossless_jpeg
import numpy as np
import pydicom
import pytest
from dicom_factory import FILM, SIGNED_FILM, make_dataset, reason_of, save
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLossless, JPEGLosslessSV1

from mim.data.dicom_lossless import decode_lossless_jpeg
from mim.data.radiograph import count_frames, read_radiograph

WILD = np.random.default_rng(0).integers(0, 1 << 16, (16, 24)).astype(np.uint16)
FILMS = {8: (FILM >> 4).astype(np.uint8), 12: FILM, 16: WILD}


def decode(encoded, film=FILM, *, signed=False):
    return decode_lossless_jpeg(encoded, *film.shape, 8 * film.itemsize, signed=signed)


def write(path, *encoded, film=FILM, bits=12, syntax=JPEGLosslessSV1):
    dataset = make_dataset(film if len(encoded) == 1 else np.stack([film] * len(encoded)), bits)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(list(encoded))
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return save(dataset, path)


@pytest.mark.parametrize("precision", FILMS)
@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_predictor_and_precision_is_exact(predictor, precision):
    film = FILMS[precision]
    np.testing.assert_array_equal(decode(lossless_jpeg.encode(film, precision, predictor=predictor), film), film)


@pytest.mark.parametrize("predictor", [1, 4, 7])
def test_restarts_and_point_transform(predictor):
    encoded = lossless_jpeg.encode(FILM, 12, predictor=predictor, shift=2, restart_rows=3)
    assert b"\xff\xd3" in encoded
    np.testing.assert_array_equal(decode(encoded), FILM >> 2 << 2)


@pytest.mark.parametrize(("bits", "precision"), [(12, 12), (12, 16), (16, 16)])
def test_signed_samples_keep_their_sign(tmp_path, bits, precision):
    stored = SIGNED_FILM.view(np.uint16) & ((1 << precision) - 1)
    encoded = lossless_jpeg.encode(stored, precision)
    decoded = decode(encoded, signed=True)
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded.view(np.uint16), stored)
    shown = read_radiograph(write(tmp_path / "film.dcm", encoded, film=SIGNED_FILM, bits=bits)).pixels
    lowest = -(1 << bits - 1)
    np.testing.assert_allclose(shown, (SIGNED_FILM.astype(np.float64) - lowest) / ((1 << bits) - 1), atol=1e-7)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
def test_frames_of_a_file(tmp_path, syntax):
    encoded = [lossless_jpeg.encode(film, 12) for film in (FILM, FILM[::-1])]
    path = write(tmp_path / "film.dcm", *encoded, syntax=syntax)
    assert count_frames(path) == 2
    np.testing.assert_allclose(read_radiograph(path, 1).pixels, FILM[::-1] / 4095, atol=1e-7)


def test_pydicom_decodes_the_same(tmp_path):
    path = write(tmp_path / "film.dcm", lossless_jpeg.encode(WILD, 16), film=WILD, bits=16)
    np.testing.assert_array_equal(pydicom.dcmread(path).pixel_array, WILD)
    np.testing.assert_allclose(read_radiograph(path).pixels, WILD / 65535, atol=1e-7)


def test_padding_after_the_end_is_no_fault(tmp_path):
    whole = lossless_jpeg.encode(FILM, 12)
    for padding in (1, 500):
        shown = read_radiograph(write(tmp_path / "film.dcm", whole + bytes(padding))).pixels
        np.testing.assert_allclose(shown, FILM / 4095, atol=1e-7)


def test_a_codestream_cut_off_is_refused(tmp_path):
    whole = lossless_jpeg.encode(FILM, 12)
    for length in (len(whole) // 2, len(whole) - 10):
        assert decode(whole[:length]) is None
        assert reason_of(write(tmp_path / "film.dcm", whole[:length])) == "truncated"


def test_a_whole_codestream_without_its_end_mark_is_read(tmp_path):
    whole = lossless_jpeg.encode(FILM, 12)
    np.testing.assert_allclose(read_radiograph(write(tmp_path / "film.dcm", whole[:-2])).pixels, FILM / 4095, atol=1e-7)


def test_another_process_size_or_container_is_left_to_others():
    whole = lossless_jpeg.encode(FILM, 12)
    assert decode(whole, FILM[:, 1:]) is None
    assert decode(whole, FILM.astype(np.uint8)) is None
    assert decode(whole, FILM.astype(np.uint32)) is None
    for marker in (0xC0, 0xC1, 0xC2, 0xCB):  # baseline, extended, progressive, arithmetic
        assert decode(whole.replace(b"\xff\xc3", bytes([0xFF, marker]), 1)) is None
    assert decode(b"") is None
    assert decode(b"\xff\xd8\xff\xd9") is None


def test_a_size_hidden_behind_a_bare_marker_allocates_nothing():
    # A marker without a length moves the frame header for those who take the next bytes as one.
    whole = lossless_jpeg.encode(FILM, 12)
    huge = lossless_jpeg.segment(0xC3, b"\x0c\xff\xff\xff\xff\x01\x01\x11\x00")
    assert decode(whole[:2] + b"\xff\x01" + huge + whole[2:]) is None


def test_broken_entropy_coded_data_never_raises():
    whole = lossless_jpeg.encode(FILM, 12)
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(2, len(whole) - 2, 3):
            broken[place] = rng.integers(256)
        decoded = decode(bytes(broken))
        assert decoded is None or (decoded.shape, decoded.dtype) == (FILM.shape, np.uint16)
