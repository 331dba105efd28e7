"""What mim shows is what DCMTK shows, to 1/255 in every pixel."""

import warnings

import dcmtk
import numpy as np
import pytest
import reference_renderer
from dicom_factory import save
from dicom_matrix import LOSSLESS, NATIVE, dataset_in, film_of, matrix, with_fields
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from mim.data.radiograph import UnreadableRadiograph, read_radiograph

pytestmark = pytest.mark.skipif(not dcmtk.is_installed(), reason="DCMTK is not installed (apt-get install dcmtk)")

STEP = 1 / 255
# DCMTK 3.6.7 decodes neither JPEG 2000 nor JPEG-LS of 7 bits, so it is given these films decoded by pydicom.
DECODED_FOR_DCMTK = {
    "693_J2KI.dcm",
    "JLSL_08_07_0_1F.dcm",
    "JPEG2000.dcm",
    "MR_small_jp2klossless.dcm",
    "RG1_J2KI.dcm",
    "RG3_J2KI.dcm",
    "RG3_J2KR.dcm",
}
MONOCHROME = {
    *DECODED_FOR_DCMTK,
    *(f"CR_tiny_{number}.dcm" for number in (6154, 6247, 6278)),
    *("CT_small.dcm", "JLSL_16_15_1_1F.dcm", "JPEG-LL.dcm", "JPEG-lossy.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm"),
    *("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_jpeg_ls_lossless.dcm"),
    *("bad_sequence.dcm", "eCT_Supplemental.dcm", "emri_small.dcm", "fo_CR-ModalitySequenceLUT.dcm"),
    *("fo_GH133.dcm", "fo_HasFragmentSequence.dcm", "fo_OutOfBoundsOverlay.dcm"),
    *("image_dfl.dcm", "mlut_18.dcm", "vlut_04.dcm"),
}


def readable(folder):
    """The monochrome films of a folder, by mim's verdict, and what mim shows of their first frames."""
    for path in sorted(folder.glob("*.dcm")):
        try:
            yield path, read_radiograph(path)
        except UnreadableRadiograph:
            continue


def window_of_frame(dataset, frame):
    """Black and white of a window in functional groups (C.7.6.16), of which DCMTK 3.6.7 sees the rescale only."""
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        return None
    for group in (dataset.PerFrameFunctionalGroupsSequence[frame], dataset.SharedFunctionalGroupsSequence[0]):
        if "FrameVOILUTSequence" in group:
            window = group.FrameVOILUTSequence[0]
            centre, half = float(window.WindowCenter) - 0.5, (float(window.WindowWidth) - 1) / 2
            return centre - half, centre + half
    return None


def ends_of(path, frame):
    """Black and white in modality values, for a film without LUT and window."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path)
        values = dataset.pixel_array
    if dataset.BitsStored < 8:
        return reference_renderer.stored_range(dataset)
    values = values[frame] if values.ndim == 3 else values
    low, high = np.quantile(values, [0.005, 0.995], method="inverted_cdf")
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


def assert_agreement(path, shown, seen, padding=None):
    assert seen is not None, path.name
    assert shown.shape == seen.shape
    if padding is not None:  # C.7.5.1.1.2: padding is no part of the image; mim paints it black, DCMTK as any pixel
        assert (shown[padding] == 0).all()
        shown, seen = shown[~padding], seen[~padding]
    assert np.abs(shown - seen).max() <= STEP, path.name


def test_every_real_monochrome_film(shared_data, tmp_path):
    compared = set()
    for path, radiograph in readable(shared_data / "dicom"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = dcmread(path)
            if path.name in DECODED_FOR_DCMTK:
                dataset.decompress(generate_instance_uid=False)
                target = save(dataset, tmp_path / path.name)
                assert dataset.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
            else:
                target = tmp_path / path.name
                target.symlink_to(path)
        for frame in {0, radiograph.meta.frames - 1}:
            ends = window_of_frame(dataset, frame)
            has_no_ends = (
                ends is None and dataset.get("WindowCenter") is None and dataset.get("Modality") in ("CT", "MR", "NM")
            )
            # Without a window DCMTK divides n bits by 2^n, not by 2^n - 1: over 7 bits, more than a step.
            if has_no_ends or dataset.BitsStored < 8:
                # JPEG of 12 bits is not decoded by pydicom.
                twelve_bits = path.name == "JPEG-lossy.dcm"
                ends = ends_of(dcmtk.decode_jpeg(path, tmp_path / "decoded") if twelve_bits else path, frame)
            seen = dcmtk.render(target, dcmtk.voi_options(dataset, ends), frame)
            shown = read_radiograph(path, frame).pixels if frame else radiograph.pixels
            assert_agreement(path, shown, seen)
        compared.add(path.name)
    assert compared == MONOCHROME


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_stage(tmp_path, bits, signed):
    film = film_of(bits, signed)
    encoded = dataset_in("explicit", film, bits, tmp_path)
    # DCMTK rounds modality values to integers, the standard does not (C.11.1.1.2): over 8 bits, that shows.
    for _name, _photometric, fields in matrix(bits, signed, fractions=bits > 8):
        dataset = with_fields(encoded, fields)
        path = save(dataset, tmp_path / "film.dcm")
        by_percentile = "PresentationIntentType" in fields
        ends = reference_renderer.ends_without_window(dataset, film) if by_percentile else None
        padded = reference_renderer.padding_range(dataset)
        padding = None if padded is None else (film >= padded[0]) & (film <= padded[1])
        seen = dcmtk.render(path, dcmtk.voi_options(dataset, ends))
        assert_agreement(path, read_radiograph(path).pixels, seen, padding)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_every_syntax(tmp_path, bits, signed):
    film = film_of(bits, signed)
    for syntax in (*NATIVE, *LOSSLESS):
        if syntax == "jpeg-2000":  # which DCMTK does not read
            continue
        fields = next(f for _, _, f in matrix(bits, signed, ["rescale-linear"], fractions=bits > 8))
        dataset = with_fields(dataset_in(syntax, film, bits, tmp_path), fields)
        path = save(dataset, tmp_path / "film.dcm")
        assert_agreement(path, read_radiograph(path).pixels, dcmtk.render(path, dcmtk.voi_options(dataset)))
