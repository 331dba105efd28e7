import base64
import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_factory import FILM, LARGE_FILM, SECRET, make_dataset, make_lut, reason_of, save
from dicom_matrix import LOSSLESS, LOSSY, dataset_in
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from mim.data.radiograph import UnreadableRadiograph, count_frames, read_radiograph
from mim.errors import MimError

UNREADABLE = {
    "ExplVR_BigEnd.dcm": "colour",
    "ExplVR_LitEndNoMeta.dcm": "unsupported-object",
    "HTJ2KLossless_08_RGB.dcm": "colour",
    "MR_truncated.dcm": "truncated",
    "OT-PAL-8-face.dcm": "colour",
    "SC_rgb_16bit.dcm": "colour",
    "SC_rgb_expb.dcm": "colour",
    "SC_rgb_jpeg_dcmtk.dcm": "colour",
    "SC_rgb_jpeg_gdcm.dcm": "colour",
    "SC_rgb_rle.dcm": "colour",
    "SC_rgb_small_odd_jpeg.dcm": "colour",
    "SC_ybr_full_422_uncompressed.dcm": "colour",
    "SC_ybr_full_uncompressed.dcm": "colour",
    "examples_palette.dcm": "colour",
    "examples_ybr_color.dcm": "colour",
    "liver_nonbyte_aligned.dcm": "unsupported-object",
    "no_meta.dcm": "not-an-image",  # a stray byte before the first element
    "parametric_map_float.dcm": "unsupported-object",
    "reportsi.dcm": "unsupported-object",
    "rtplan.dcm": "unsupported-object",
}


@pytest.fixture
def write(tmp_path):
    return lambda *args, **fields: save(make_dataset(*args, **fields), tmp_path / "film.dcm")


def test_every_real_file_reads_or_is_refused_by_reason(shared_data):
    files = sorted((shared_data / "dicom").glob("*.dcm"))
    refused = {}
    for path in files:
        try:
            radiograph = read_radiograph(path)
        except UnreadableRadiograph as error:
            refused[path.name] = error.reason
            continue
        assert radiograph.pixels.dtype == np.float32, path.name
        assert radiograph.pixels.ndim == 2, path.name
        assert 0 <= radiograph.pixels.min() < radiograph.pixels.max() <= 1, path.name
    assert len(files) == 49
    assert refused == UNREADABLE


def test_real_monochrome1_film_has_bright_tissue(shared_data):
    shown = read_radiograph(shared_data / "dicom" / "RG3_J2KR.dcm").pixels  # a lower leg, air beside it
    bone, air = shown[800:900, 780:860].mean(), shown[800:900, 560:600].mean()
    assert bone > air + 0.2


def test_real_panoramic_fills_the_range_of_its_misdeclared_lut(shared_data):
    radiograph = read_radiograph(shared_data / "dicom" / "fo_CR-ModalitySequenceLUT.dcm")
    assert radiograph.meta.bits == 10
    assert (radiograph.pixels.min(), radiograph.pixels.max()) == (0, 1)


def test_lossless_syntaxes_of_one_picture_agree(shared_data):
    folder = shared_data / "dicom"
    plain = read_radiograph(folder / "MR_small.dcm").pixels
    for other in ("RLE", "bigendian", "jp2klossless", "jpeg_ls_lossless"):
        np.testing.assert_array_equal(read_radiograph(folder / f"MR_small_{other}.dcm").pixels, plain)


def test_enhanced_object_reads_its_functional_groups(shared_data):
    path = shared_data / "dicom" / "eCT_Supplemental.dcm"
    assert count_frames(path) == 2
    assert read_radiograph(path, 1).meta.spacing_mm == pytest.approx((0.388672, 0.388672))


def test_last_frame_of_a_real_cine_run(shared_data):
    path = shared_data / "dicom" / "fo_HasFragmentSequence.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pydicom.pixels.pixel_array(path, index=95) / 255
    np.testing.assert_allclose(read_radiograph(path, 95).pixels, expected, atol=1e-6)
    assert reason_of(path, 96) == "frame-out-of-range"
    assert reason_of(path, -1) == "frame-out-of-range"


def test_implausible_aspect_ratio_is_refused(write):
    assert reason_of(write(PixelSpacing=[1000, 0.001])) == "invalid-header"


SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_uncompressed_syntaxes(write, syntax):
    path = write(syntax=syntax, VOILUTSequence=make_lut(0, np.arange(4096)[::-1], 12), PixelPaddingValue=4095)
    expected = 1 - FILM / 4095
    np.testing.assert_allclose(read_radiograph(path).pixels, expected, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES[:3])
def test_without_preamble_and_file_meta(tmp_path, syntax):
    dataset = make_dataset(syntax=syntax)
    del dataset.file_meta
    path = tmp_path / "film"
    dataset.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)
    assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_allclose(read_radiograph(path).pixels, FILM / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_frames(tmp_path, syntax):
    films = np.stack([LARGE_FILM, LARGE_FILM[::-1]])
    dataset = make_dataset(films)
    dataset.compress(syntax, generate_instance_uid=False)
    path = save(dataset, tmp_path / "film.dcm")
    assert count_frames(path) == 2
    np.testing.assert_allclose(read_radiograph(path, 1).pixels, LARGE_FILM[::-1] / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_broken_frame_costs_only_itself(tmp_path, syntax):
    dataset = make_dataset(np.stack([LARGE_FILM, LARGE_FILM, LARGE_FILM[::-1]]))
    dataset.compress(syntax, generate_instance_uid=False)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = encapsulate([frames[0], bytes(200), frames[2]])
    path = save(dataset, tmp_path / "film.dcm")
    np.testing.assert_allclose(read_radiograph(path, 2).pixels, LARGE_FILM[::-1] / 4095, atol=1e-6)
    assert reason_of(path, 1) == "undecodable"


def test_of_a_long_run_only_one_frame_is_read(tmp_path):
    dataset = make_dataset(FILM)
    dataset.NumberOfFrames = 1 + (1 << 30) // FILM.nbytes
    path = save(dataset, tmp_path / "film.dcm")
    with path.open("r+b") as file:  # a sparse file: pixels are the last element
        start = path.stat().st_size - FILM.nbytes
        file.seek(start - 4)
        file.write((FILM.nbytes * dataset.NumberOfFrames).to_bytes(4, "little"))
        file.truncate(start + FILM.nbytes * dataset.NumberOfFrames)
        file.seek(start + FILM.nbytes * (dataset.NumberOfFrames - 1))
        file.write(FILM.tobytes())
    tracemalloc.start()
    shown = read_radiograph(path, dataset.NumberOfFrames - 1).pixels
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    np.testing.assert_allclose(shown, FILM / 4095, atol=1e-6)


# A ramp that OpenJPH 0.26 encoded: no package that mim needs writes High-Throughput JPEG 2000.
HTJ2K_RAMP = (
    "/0//UQApQAAAAAAYAAAAEAAAAAAAAAAAAAAAGAAAABAAAAAAAAAAAAABBwEB/1AACAACAAAAAv9SAAwAAgABAAUEBEAB/1wAEyBIUFBQUFBQ"
    "UFBQUFBQSEhI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAHgAAf+TwCXhAId0AMASgKoBB3QAwBJAEwD9J3MAkJAAQjQAwBNA"
    "FQAs+4ALdABIBPkA5HdVAMATwBWARETYp8J1AKIQQojgAPYAAey4AMAq4BaIAAAA8/Cnp6dCeABu27Zt+/8QBJ79knv2Sey8AP/Z"
)


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL])
def test_high_throughput_jpeg_2000(tmp_path, syntax):
    ramp = np.add.outer(np.arange(16) * 8, np.arange(24) * 5).astype(np.uint8)
    dataset = make_dataset(ramp, 8)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([base64.b64decode(HTJ2K_RAMP)])
    np.testing.assert_allclose(read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels, ramp / 255, atol=1e-6)


@pytest.mark.parametrize("bits", [6, 7])
def test_jpeg_ls_of_few_bits(tmp_path, bits):
    film = (np.arange(24 * 16, dtype=np.uint8) % (1 << bits)).reshape(16, 24)
    dataset = make_dataset(film, bits)
    dataset.compress(JPEGLSLossless, generate_instance_uid=False)
    shown = read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels
    np.testing.assert_allclose(shown, film / ((1 << bits) - 1), atol=1e-6)


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSY])
def test_a_codestream_cut_in_half_is_refused(tmp_path, syntax):
    film = np.random.default_rng(0).integers(0, 256, (64, 96)).astype(np.uint8)
    dataset = dataset_in(syntax, film, 8, tmp_path)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    for share in (0.5, 0.9):
        dataset.PixelData = encapsulate([frame[: int(len(frame) * share)]])
        reason = reason_of(save(dataset, tmp_path / "film.dcm"))
        assert reason == ("undecodable" if syntax == "rle" else "truncated")  # RLE has no end that could be missing


def test_twelve_bits_in_jpeg_extended_that_are_cut_or_broken(tmp_path):
    dataset = dataset_in("jpeg-extended", LARGE_FILM, 12, tmp_path)
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "truncated"
    dataset.PixelData = encapsulate([bytes(2) + frame[2:]])
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "undecodable"


def test_frames_are_read_one_by_one(write):
    films = np.stack([FILM, FILM // 2, FILM // 4])
    path = write(films)
    for frame, film in enumerate(films):
        radiograph = read_radiograph(path, frame)
        assert radiograph.meta.frames == 3
        np.testing.assert_allclose(radiograph.pixels, film / 4095, atol=1e-6)
    assert reason_of(path, 3) == "frame-out-of-range"


def test_truncation_anywhere_is_told(tmp_path):
    whole = save(make_dataset(), tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "film.dcm"
    for length in (140, 400, len(whole) - FILM.nbytes - 12, len(whole) - FILM.nbytes, len(whole) - 2):
        path.write_bytes(whole[:length])
        assert reason_of(path) == "truncated", length


def test_truncated_codestream(tmp_path):
    dataset = make_dataset(LARGE_FILM)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    whole = save(dataset, tmp_path / "film.dcm").read_bytes()
    (tmp_path / "film.dcm").write_bytes(whole[:-300])
    assert reason_of(tmp_path / "film.dcm") == "truncated"
    frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 2]])
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "truncated"
    dataset.NumberOfFrames = 1_000_000
    dataset.PixelData = encapsulate([frame])
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "truncated"


def test_extended_offset_table(tmp_path):
    dataset = make_dataset(np.stack([LARGE_FILM, LARGE_FILM[::-1]]))
    dataset.compress(RLELossless, generate_instance_uid=False, encapsulate_ext=True)
    assert "ExtendedOffsetTable" in dataset
    shown = read_radiograph(save(dataset, tmp_path / "film.dcm"), 1).pixels
    np.testing.assert_allclose(shown, LARGE_FILM[::-1] / 4095, atol=1e-6)


def test_broken_and_endless_deflation(write, monkeypatch):
    path = write(syntax=DeflatedExplicitVRLittleEndian)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert reason_of(path) == "truncated"
    path.write_bytes(whole[:-100] + bytes(100))
    assert reason_of(path) in ("undecodable", "truncated")
    path.write_bytes(whole)
    monkeypatch.setattr("mim.data.dicom_file._INFLATED_LIMIT", 500)
    assert reason_of(path) == "too-large"


@pytest.mark.parametrize("head", [b"\x08\x00\x05\x00CS\x0a\x00", b"\x08\x00\x05\x00\x0a\x00\x00\x00", b"\x08\x00"])
def test_a_likely_start_makes_no_dicom(tmp_path, head):
    path = tmp_path / "film"
    path.write_bytes(head + bytes(300))
    assert reason_of(path) == "not-an-image"


def test_a_codestream_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    dataset = make_dataset(LARGE_FILM)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.Rows = 65
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "invalid-header"
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    assert reason_of(save(dataset, tmp_path / "film.dcm")) == "undecodable"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PhotometricInterpretation": "DOE JANE"}, "invalid-header"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "unsupported-object"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2"}, "unsupported-object"),
        ({"Rows": 60000, "Columns": 60000}, "too-large"),
        ({"Rows": 0}, "invalid-header"),
        ({"Rows": None}, "invalid-header"),
        ({"NumberOfFrames": 1000}, "truncated"),
        ({"BitsStored": 17}, "invalid-header"),
        ({"BitsAllocated": 12}, "invalid-header"),
        ({"PixelRepresentation": 2}, "invalid-header"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "invalid-header"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": 0}, "invalid-header"),
        ({"WindowCenter": 100, "WindowWidth": 0}, None),
        ({"WindowCenter": 100}, None),
        ({"InstanceNumber": None, "PatientID": None, "StudyInstanceUID": None, "Modality": None}, None),
    ],
)
def test_odd_headers(write, fields, reason):
    path = write(**fields)
    if reason is not None:
        assert reason_of(path) == reason
    else:
        assert read_radiograph(path).pixels.max() == 1


@pytest.mark.parametrize(
    ("keyword", "vr"), [("WindowWidth", "DS"), ("RescaleSlope", "DS"), ("NumberOfFrames", "IS"), ("PixelSpacing", "DS")]
)
def test_text_in_a_number_is_refused_without_quoting_it(tmp_path, keyword, vr):
    filler = "1234567 "
    dataset = make_dataset(WindowCenter=1, RescaleIntercept=0)
    dataset.add_new(keyword, vr, filler if vr == "IS" else [filler])
    whole = save(dataset, tmp_path / "film.dcm").read_bytes()
    assert filler.strip().encode() in whole
    (tmp_path / "film.dcm").write_bytes(whole.replace(filler.strip().encode(), b"DOE^JAN", 1))
    with pytest.raises(UnreadableRadiograph, match=keyword) as caught:
        read_radiograph(tmp_path / "film.dcm")
    assert caught.value.reason == "invalid-header"
    assert "DOE" not in str(caught.value)


def test_lut_shorter_than_its_descriptor(write):
    lut = make_lut(0, np.arange(10), 12)
    lut[0].LUTDescriptor = [0, 0, 12]  # 65536 entries
    assert reason_of(write(VOILUTSequence=lut)) == "invalid-header"
    lut[0].LUTDescriptor = [10, 0]
    assert reason_of(write(ModalityLUTSequence=lut)) == "invalid-header"


def test_warnings_and_logs_stay_inside(write, caplog, recwarn):
    read_radiograph(write(PatientID=SECRET, InstanceNumber="7", PixelData=FILM.tobytes() + bytes(100)))
    assert not recwarn.list
    assert SECRET not in caplog.text


def test_the_error_survives_a_process_boundary():
    error = UnreadableRadiograph(Path("folder/film.dcm"), "truncated", "two\nlines")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, MimError)
    assert (copy.path, copy.reason, str(copy)) == (error.path, error.reason, "film.dcm: truncated: two lines")
