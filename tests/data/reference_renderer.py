"""The grayscale stages of DICOM PS3.3, pixel by pixel in float64: slow, and sharing no line with mim.

Sections: C.11.1.1.1 (modality LUT), C.11.1.1.2 (rescale), C.11.2.1.1 (VOI LUT), C.11.2.1.2.1 (LINEAR),
C.11.2.1.3.1 (SIGMOID), C.11.2.1.3.2 (LINEAR_EXACT), C.7.6.3.1.2 (MONOCHROME1 and 2), C.7.5.1.1.2 (padding).
"""

import math

import numpy as np


def stored_range(dataset):
    """Smallest and largest value that the stored bits can hold (C.7.6.3.1)."""
    bits = dataset.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def through_table(item, value):
    count, first, _ = item.LUTDescriptor
    count = count or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        data = [int.from_bytes(data[k : k + 2], "little") for k in range(0, 2 * count, 2)]
    place = math.floor(value) - first
    return data[0 if place < 0 else count - 1 if place >= count else place]


def modality_value(dataset, value):
    if dataset.get("ModalityLUTSequence"):
        return through_table(dataset.ModalityLUTSequence[0], value)
    return value * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))


def windowed(value, centre, width, function):
    if function == "SIGMOID":
        return 1 / (1 + math.exp(-4 * (value - centre) / width))
    if function == "LINEAR_EXACT":
        if value <= centre - width / 2:
            return 0
        return 1 if value > centre + width / 2 else (value - centre) / width + 0.5
    if value <= centre - 0.5 - (width - 1) / 2:
        return 0
    return 1 if value > centre - 0.5 + (width - 1) / 2 else (value - (centre - 0.5)) / (width - 1) + 0.5


def as_list(value):
    return [float(v) for v in value] if hasattr(value, "__iter__") else [float(value)]


def alternatives(dataset):
    """The VOI LUTs, then the windows, as functions of a modality value."""
    found = [
        lambda value, item=item: through_table(item, value) / (2 ** item.LUTDescriptor[2] - 1)
        for item in dataset.get("VOILUTSequence", [])
    ]
    if "WindowCenter" in dataset:
        function = dataset.get("VOILUTFunction", "LINEAR")
        for centre, width in zip(as_list(dataset.WindowCenter), as_list(dataset.WindowWidth), strict=True):
            found.append(lambda value, c=centre, w=width: windowed(value, c, w, function))
    return found


def padding_range(dataset):
    if "PixelPaddingValue" not in dataset:
        return None
    first = dataset.PixelPaddingValue
    last = dataset.get("PixelPaddingRangeLimit", first)
    return min(first, last), max(first, last)


def is_padding(dataset, value):
    ends = padding_range(dataset)
    return ends is not None and ends[0] <= value <= ends[1]


def ends_without_window(dataset, stored):
    """What counts as black and white where neither LUT nor window says so (mim's own rule, not the standard's)."""
    if dataset.get("PresentationIntentType") == "FOR PROCESSING" or dataset.get("Modality") in ("CT", "MR", "NM", "PT"):
        values = sorted(modality_value(dataset, int(v)) for v in stored.flat if not is_padding(dataset, int(v)))
        return tuple(values[max(0, math.ceil(share * len(values)) - 1)] for share in (0.005, 0.995))
    lowest, highest = stored_range(dataset)
    inputs = [lowest, highest]
    if dataset.get("ModalityLUTSequence"):
        count, first, _ = dataset.ModalityLUTSequence[0].LUTDescriptor
        inputs += [value for value in range(first, first + (count or 65536)) if lowest <= value <= highest]
    values = [modality_value(dataset, value) for value in inputs]
    return min(values), max(values)


def render(dataset, stored, voi=0):
    """Display values of stored integers (H, W) in [0, 1], float64; padding is 0."""
    stages = alternatives(dataset)
    if stages:
        stage = stages[voi] if voi < len(stages) else stages[0]
    else:
        low, high = ends_without_window(dataset, stored)

        def stage(value):
            return min(1.0, max(0.0, (value - low) / (high - low)))

    turned = dataset.PhotometricInterpretation == "MONOCHROME1"

    def shown(value):
        if is_padding(dataset, value):
            return 0.0
        bright = stage(modality_value(dataset, value))
        return 1 - bright if turned else bright

    table = {int(value): shown(int(value)) for value in np.unique(stored)}
    return np.array([[table[int(value)] for value in row] for row in stored])
