"""The one table against the stages of the standard done plainly, in float64, pixel by pixel."""

import numpy as np
import pytest
from dicom_factory import make_dataset, make_lut, save

from mim.data.radiograph import read_radiograph

FORMATS = [  # container, bits stored, high bit
    (8, 5, 4),
    (8, 7, 7),
    (8, 8, 7),
    (16, 10, 9),
    (16, 12, 11),
    (16, 12, 15),
    (16, 13, 13),
    (16, 16, 15),
    (32, 12, 20),
    (32, 20, 19),
]
STAGES = {
    "nothing": {},
    "rescale": {"RescaleSlope": 0.75, "RescaleIntercept": -3},
    "negative slope": {"RescaleSlope": -2, "RescaleIntercept": 7},
    "LINEAR": {"WindowCenter": 40.5, "WindowWidth": 101},
    "LINEAR_EXACT": {"WindowCenter": 12, "WindowWidth": 33.3, "VOILUTFunction": "LINEAR_EXACT"},
    "SIGMOID": {"WindowCenter": 50, "WindowWidth": 120, "VOILUTFunction": "SIGMOID", "RescaleSlope": 0.3},
    "VOI LUT": {"VOILUTSequence": make_lut(3, np.arange(900)[::-1] % 1024, 10)},
    "modality LUT": {"ModalityLUTSequence": make_lut(2, np.arange(700) * 3, 12)},
    "both LUTs": {
        "ModalityLUTSequence": make_lut(0, np.arange(500) * 2, 10),
        "VOILUTSequence": make_lut(5, np.arange(800)[::-1], 10),
    },
    "percentiles": {"PresentationIntentType": "FOR PROCESSING"},
    "padding": {"PixelPaddingValue": 4, "PixelPaddingRangeLimit": 9, "WindowCenter": 20, "WindowWidth": 60},
    "padding and percentiles": {"PixelPaddingValue": 1, "PresentationIntentType": "FOR PROCESSING"},
}


def plainly(values, lowest, highest, fields, inverted):
    """Map (H, W) stored values to [0, 1], stage after stage."""
    shown = values.astype(np.float64)
    ends = np.array([lowest, highest], dtype=np.float64)
    padding = np.zeros(values.shape, dtype=bool)
    if "PixelPaddingValue" in fields:
        first = fields["PixelPaddingValue"]
        padding = (values >= first) & (values <= fields.get("PixelPaddingRangeLimit", first))
    if "ModalityLUTSequence" in fields:
        reached = [looked_up(np.float64(value), fields["ModalityLUTSequence"]) for value in (lowest, highest)]
        shown, ends = looked_up(shown, fields["ModalityLUTSequence"]), np.array(reached)
    else:
        slope, intercept = fields.get("RescaleSlope", 1), fields.get("RescaleIntercept", 0)
        shown, ends = shown * slope + intercept, ends * slope + intercept
    if "VOILUTSequence" in fields:
        shown = looked_up(shown, fields["VOILUTSequence"]) / (2 ** fields["VOILUTSequence"][0].LUTDescriptor[2] - 1)
    elif "WindowCenter" in fields:
        shown = windowed(shown, fields["WindowCenter"], fields["WindowWidth"], fields.get("VOILUTFunction", "LINEAR"))
    else:
        if "PresentationIntentType" in fields:
            ends = np.percentile(shown[~padding], [0.5, 99.5], method="inverted_cdf")
        shown = np.clip((shown - ends.min()) / (ends.max() - ends.min()), 0, 1)
    shown = 1 - shown if inverted else shown
    return np.where(padding, 0, shown).astype(np.float32)


def windowed(values, centre, width, function):
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.minimum(-4 * (values - centre) / width, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return np.where(
        values <= centre - width / 2, 0, np.where(values > centre + width / 2, 1, (values - centre) / width + 0.5)
    )


def looked_up(values, sequence):
    first = sequence[0].LUTDescriptor[1]
    entries = np.array(sequence[0].LUTData, dtype=np.float64)
    return entries[np.clip(np.floor(values) - first, 0, len(entries) - 1).astype(int)]


def film_of(bits, signed, rng):
    """Values over the whole range and, in the lower half, close to zero, where windows and padding are."""
    lowest = -(1 << bits - 1) if signed else 0
    highest = lowest + (1 << bits) - 1
    film = rng.integers(lowest, highest, (20, 30), endpoint=True)
    film[10:] = np.clip(rng.integers(-20, 200, (10, 30)), lowest, highest)
    film[0, :2] = lowest, highest
    return film, lowest, highest


def in_container(film, container, bits, high_bit, rng):
    """Put the stored bits below the high bit and noise into the others."""
    low = high_bit + 1 - bits
    used = ((1 << bits) - 1) << low
    noise = rng.integers(0, 1 << container, film.shape, dtype=np.int64)
    return ((film << low) & used | noise & ~used).astype(f"u{container // 8}")


@pytest.mark.parametrize("stages", STAGES)
@pytest.mark.parametrize(("container", "bits", "high_bit"), FORMATS)
def test_the_table_equals_the_stages_done_plainly(tmp_path, container, bits, high_bit, stages):
    rng = np.random.default_rng(bits)
    for signed in (False, True):
        film, lowest, highest = film_of(bits, signed, rng)
        words = in_container(film, container, bits, high_bit, rng)
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            fields = {**STAGES[stages], "HighBit": high_bit, "PhotometricInterpretation": photometric}
            dataset = make_dataset(words.view(f"i{container // 8}") if signed else words, bits, **fields)
            shown = read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels
            expected = plainly(film, lowest, highest, fields, photometric == "MONOCHROME1")
            np.testing.assert_array_equal(shown, expected, err_msg=f"signed {signed}, {photometric}")


@pytest.mark.parametrize("rubbish", [False, True])
def test_clear_and_rubbish_unused_bits_show_the_same(tmp_path, rubbish):
    rng = np.random.default_rng(0)
    for signed in (False, True):
        film, lowest, highest = film_of(12, signed, rng)
        words = in_container(film, 16, 12, 11, rng) if rubbish else film.astype(np.uint16)
        dataset = make_dataset(words.view(np.int16) if signed else words, 12)
        shown = read_radiograph(save(dataset, tmp_path / "film.dcm")).pixels
        np.testing.assert_array_equal(shown, plainly(film, lowest, highest, {}, inverted=False))
