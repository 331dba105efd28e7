import numpy as np
import pytest
import reference_renderer
from dicom_factory import make_dataset, make_lut, save
from dicom_matrix import BITS, LOSSLESS, LOSSY, NATIVE, dataset_in, film_of, matrix, with_fields

from mim.data.radiograph import read_radiograph

SHORT = ("none", "rescale-linear", "modality-lut-voi-lut")


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS])
def test_every_cell_equals_the_formulas_of_the_standard(tmp_path, syntax, bits, signed):
    film = film_of(bits, signed)
    encoded = dataset_in(syntax, film, bits, tmp_path)
    assert encoded is not None
    # What is shown of decoded values does not depend on how they were encoded, so one syntax runs through all stages.
    for name, photometric, fields in matrix(bits, signed, None if syntax == "explicit" else SHORT):
        dataset = with_fields(encoded, fields)
        shown = read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels
        expected = reference_renderer.render(dataset, film)
        np.testing.assert_allclose(shown, expected, atol=1e-6, err_msg=f"{name}, {photometric}")
        assert shown.dtype == np.float32
        assert shown.max() - shown.min() > 0.4, name


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        ("jpeg-baseline", 8),
        ("jpeg-extended", 8),
        ("jpeg-extended", 12),
        *[("jpeg-ls-near", bits) for bits in BITS],
        *[("jpeg-2000-lossy", bits) for bits in BITS],
    ],
)
def test_lossy_syntaxes_come_close(tmp_path, syntax, bits):
    film = film_of(bits, signed=False)
    dataset = dataset_in(syntax, film, bits, tmp_path)
    shown = read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels
    np.testing.assert_allclose(shown, reference_renderer.render(dataset, film), atol=2.5 / 255)


def test_the_lossy_syntaxes_are_all_tried():
    assert set(LOSSY) == {"jpeg-baseline", "jpeg-extended", "jpeg-ls-near", "jpeg-2000-lossy"}


SEVERAL = {
    "VOILUTSequence": make_lut(0, np.arange(4096)[::-1], 12) + make_lut(1000, np.arange(0, 4096, 4), 12),
    "WindowCenter": [2000, 1000],
    "WindowWidth": [1000, 500],
}


@pytest.mark.parametrize("voi", range(6))
@pytest.mark.parametrize("kinds", [("VOILUTSequence",), ("WindowCenter", "WindowWidth"), tuple(SEVERAL)])
def test_choice_of_one_of_several(tmp_path, voi, kinds):
    film = film_of(12, signed=False)
    dataset = make_dataset(film, 12, **{keyword: SEVERAL[keyword] for keyword in kinds})
    path = save(dataset, tmp_path / "film.dcm")
    np.testing.assert_allclose(
        read_radiograph(path, voi=voi).pixels, reference_renderer.render(dataset, film, voi), atol=1e-6
    )


def test_each_choice_shows_another_picture(tmp_path):
    path = save(make_dataset(film_of(12, signed=False), 12, **SEVERAL), tmp_path / "film.dcm")
    shown = [read_radiograph(path, voi=voi).pixels for voi in range(4)]
    for first in range(4):
        for second in range(first):
            assert np.abs(shown[first] - shown[second]).max() > 0.1
    np.testing.assert_array_equal(read_radiograph(path).pixels, shown[0])
    np.testing.assert_array_equal(read_radiograph(path, voi=4).pixels, shown[0])  # as far as it goes: the first


def test_no_window_is_no_choice(tmp_path):
    path = save(make_dataset(film_of(12, signed=False), 12), tmp_path / "film.dcm")
    np.testing.assert_array_equal(read_radiograph(path, voi=3).pixels, read_radiograph(path).pixels)
    with pytest.raises(ValueError, match="voi"):
        read_radiograph(path, voi=-1)
