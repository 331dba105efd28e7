import cv2
import numpy as np
import pytest
from dicom_factory import FILM, SIGNED_FILM, make_dataset, make_lut, save
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from mim.data.radiograph import read_radiograph


@pytest.fixture
def write(tmp_path):
    return lambda *args, **fields: save(make_dataset(*args, **fields), tmp_path / "film.dcm")


def test_twelve_bits_in_sixteen_fill_the_range(write):
    radiograph = read_radiograph(write())
    np.testing.assert_allclose(radiograph.pixels, FILM / 4095, atol=1e-6)
    meta = radiograph.meta
    assert (meta.format, meta.modality, meta.bits, meta.frames) == ("dicom", "IO", 12, 1)
    assert (meta.patient_id, meta.study_id, meta.series_order) == ("P-17", "1.2.3", 5)


def test_unused_bits_and_the_high_bit(write):
    np.testing.assert_allclose(read_radiograph(write(FILM | 0xF000)).pixels, FILM / 4095, atol=1e-6)
    np.testing.assert_allclose(read_radiograph(write(FILM << 4, HighBit=15)).pixels, FILM / 4095, atol=1e-6)


def test_signed(write):
    np.testing.assert_allclose(read_radiograph(write(SIGNED_FILM)).pixels, FILM / 4095, atol=1e-6)


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16), (24, np.uint32), (30, np.int32)])
def test_other_depths(write, bits, dtype):
    lowest = -(1 << bits - 1) if dtype == np.int32 else 0
    steps = np.linspace(lowest, lowest + (1 << bits) - 1, 12).astype(np.int64).reshape(3, 4)
    shown = read_radiograph(write(steps.astype(dtype), bits)).pixels
    np.testing.assert_allclose(shown, (steps - lowest) / ((1 << bits) - 1), atol=1e-6)


def test_one_bit(write):
    bits = np.array([[1, 0, 0, 1, 1, 0, 1, 0], [0, 1, 1, 0, 0, 1, 0, 1]], dtype=np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    path = write(bits, 1, BitsAllocated=1, PixelData=packed)
    np.testing.assert_array_equal(read_radiograph(path).pixels, bits)


def test_rescale_decides_what_the_window_means(write):
    path = write(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=1000.5, WindowWidth=2001)
    np.testing.assert_allclose(read_radiograph(path).pixels, np.clip((FILM * 2.0 - 1000) / 2000, 0, 1), atol=1e-6)


def test_negative_slope_turns_the_film_over(write):
    np.testing.assert_allclose(
        read_radiograph(write(RescaleSlope=-1, RescaleIntercept=0)).pixels, 1 - FILM / 4095, atol=1e-6
    )


def test_log_angiography_is_shown_without_its_way_back_to_intensity(write):
    path = write(Modality="XA", PixelIntensityRelationship="LOG", RescaleSlope=-1, RescaleIntercept=0)
    np.testing.assert_allclose(read_radiograph(path).pixels, FILM / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # Centre 100, width 50; LINEAR runs from 75 to 124, LINEAR_EXACT from 75 to 125, SIGMOID has 1/2 at 100.
        ("LINEAR", {74: 0.0, 75: 0.0, 99: 24 / 49, 100: 25 / 49, 124: 1.0, 130: 1.0}),
        ("LINEAR_EXACT", {75: 0.0, 80: 0.1, 100: 0.5, 124: 0.98, 125: 1.0}),
        ("SIGMOID", {0: 0.00033535, 75: 0.11920292, 100: 0.5, 125: 0.88079708}),
    ],
)
def test_window_functions_by_hand(write, function, expected):
    values = np.array([sorted(expected)], dtype=np.uint16)
    path = write(values, WindowCenter=[100, 7], WindowWidth=[50, 7], VOILUTFunction=function)
    np.testing.assert_allclose(read_radiograph(path).pixels[0], [expected[v] for v in sorted(expected)], atol=1e-6)


@pytest.mark.parametrize(
    "fields",
    [
        {"WindowCenter": 2000, "WindowWidth": 1500},
        {"WindowCenter": 2000, "WindowWidth": 1},
        {"WindowCenter": 2000.5, "WindowWidth": 1000, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 100, "WindowWidth": 900, "RescaleSlope": 0.684, "RescaleIntercept": -1000},
        {"VOILUTSequence": make_lut(500, np.arange(0, 65536, 32), 16)},
        {"VOILUTSequence": make_lut(0, np.arange(4096)[::-1], 12, "OW"), "WindowCenter": 9, "WindowWidth": 9},
        {"ModalityLUTSequence": make_lut(0, np.arange(0, 65536, 16), 16), "WindowCenter": 30000, "WindowWidth": 9999},
        {"ModalityLUTSequence": make_lut(0, np.arange(0, 65536, 16), 16), "VOILUTSequence": make_lut(9, FILM[3], 10)},
        {"RescaleSlope": 2, "RescaleIntercept": 7, "VOILUTSequence": make_lut(1000, np.arange(1000, 4096), 12)},
    ],
)
def test_one_table_equals_the_stages_of_pydicom(write, fields):
    dataset = make_dataset(**fields)
    shown = read_radiograph(save(dataset, write())).pixels
    windowed = "VOILUTSequence" not in fields
    modality = apply_modality_lut(FILM, dataset)
    if windowed:
        top = 65535 if "ModalityLUTSequence" in fields else 4095
        slope, intercept = fields.get("RescaleSlope", 1), fields.get("RescaleIntercept", 0)
        low, high = intercept, top * slope + intercept
    else:
        modality = modality.astype(np.int64)
        low, high = 0, 2 ** fields["VOILUTSequence"][0].LUTDescriptor[2] - 1
    if not windowed and fields["VOILUTSequence"][0].LUTDescriptor[2] == 10:
        high = (1 << int(FILM[3].max()).bit_length()) - 1  # a descriptor that its own entries contradict
    expected = (apply_voi_lut(modality, dataset).astype(np.float64) - low) / (high - low)
    np.testing.assert_allclose(shown, expected, atol=1e-6)


@pytest.mark.parametrize(("vr", "syntax"), [("US", ImplicitVRLittleEndian), ("OW", ExplicitVRLittleEndian)])
def test_lut_of_signed_values(write, vr, syntax):
    lut = make_lut(-2048, np.arange(4096)[::-1], 12, vr)
    path = write(SIGNED_FILM, syntax=syntax, VOILUTSequence=lut)
    np.testing.assert_allclose(read_radiograph(path).pixels, 1 - FILM / 4095, atol=1e-6)


def test_lut_of_65536_entries_and_of_packed_bytes(write):
    full = make_lut(0, np.arange(65536)[::-1], 16, "OW")
    assert full[0].LUTDescriptor[0] == 0
    np.testing.assert_allclose(
        read_radiograph(write(FILM << 4, 16, VOILUTSequence=full)).pixels, 1 - (FILM << 4) / 65535, atol=1e-6
    )
    packed = make_lut(0, np.arange(256), 8, "OW")
    packed[0].LUTData = np.arange(255, -1, -1, dtype=np.uint8).tobytes()
    film = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_allclose(read_radiograph(write(film, 8, VOILUTSequence=packed)).pixels, 1 - film / 255, atol=1e-6)


def test_monochrome1_is_turned_over_last(write):
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    upright = read_radiograph(write(**window)).pixels
    turned = read_radiograph(write(**window, PhotometricInterpretation="MONOCHROME1")).pixels
    np.testing.assert_allclose(turned, 1 - upright, atol=1e-6)


def test_padding_is_air_and_out_of_the_percentiles(write):
    film = np.random.default_rng(0).integers(1000, 2001, (100, 100)).astype(np.int16)
    film[:50] = -2000
    fields = {"PresentationIntentType": "FOR PROCESSING", "PixelPaddingValue": -2000}
    shown = read_radiograph(write(film, 16, **fields, PhotometricInterpretation="MONOCHROME1")).pixels
    assert (shown[:50] == 0).all()
    low, high = np.percentile(film[50:], [0.5, 99.5], method="inverted_cdf")
    np.testing.assert_allclose(shown[50:], 1 - np.clip((film[50:] - low) / (high - low), 0, 1), atol=1e-6)


def test_padding_range(write):
    fields = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 100, "PhotometricInterpretation": "MONOCHROME1"}
    shown = read_radiograph(write(**fields)).pixels
    np.testing.assert_allclose(shown, np.where(FILM <= 100, 0, 1 - FILM / 4095), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "robust"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, True),
        ({"PresentationIntentType": "FOR PRESENTATION"}, False),
        ({"Modality": "CT"}, True),
        ({"Modality": "DX"}, False),
        ({"Modality": "MR", "WindowCenter": 2048, "WindowWidth": 4096}, False),
    ],
)
def test_range_without_window(write, fields, robust):
    film = np.random.default_rng(0).integers(1000, 2001, (99, 101))
    shown = read_radiograph(write(film.astype(np.uint16), **fields)).pixels
    low, high = np.percentile(film, [0.5, 99.5], method="inverted_cdf") if robust else (0, 4095)
    np.testing.assert_allclose(shown, np.clip((film - low) / (high - low), 0, 1), atol=1e-6)


@pytest.mark.parametrize("value", [0, 700])
def test_constant_film_for_processing(write, value):
    film = np.full((4, 4), value, dtype=np.uint16)
    assert (read_radiograph(write(film, PresentationIntentType="FOR PROCESSING")).pixels == 0).all()


@pytest.mark.parametrize(
    ("fields", "shape", "spacing"),
    [
        ({"PixelSpacing": [0.2, 0.1]}, (32, 24), (0.1, 0.1)),
        ({"ImagerPixelSpacing": [0.1, 0.15]}, (16, 36), (0.1, 0.1)),
        ({"PixelAspectRatio": [3, 2]}, (24, 24), None),
        ({"PixelSpacing": [0.1, 0.1005], "ImagerPixelSpacing": [0.2, 0.1]}, (16, 24), (0.1, 0.1005)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.3, 0.3]}, (16, 24), (0.3, 0.3)),
    ],
)
def test_pixels_become_square(write, fields, shape, spacing):
    radiograph = read_radiograph(write(**fields))
    expected = cv2.resize((FILM / 4095).astype(np.float32), shape[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(radiograph.pixels, expected, atol=1e-6)
    assert radiograph.meta.spacing_mm == (spacing and pytest.approx(spacing))


@pytest.mark.parametrize(("bits", "top"), [(12, 4095), (16, 1023), (8, 1023), (0, 1023)])
def test_lut_output_is_scaled_by_its_bits_unless_they_are_plainly_wrong(write, bits, top):
    lut = make_lut(0, np.arange(0, 1024), bits)
    np.testing.assert_allclose(
        read_radiograph(write(VOILUTSequence=lut)).pixels, np.minimum(FILM, 1023) / top, atol=1e-6
    )
