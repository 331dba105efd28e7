import warnings

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from mim.data.radiograph import UnreadableRadiograph, read_radiograph

SECRET = "DOE^JANE"
FILM = np.linspace(0, 4095, 16 * 24).round().astype(np.uint16).reshape(16, 24)
LARGE_FILM = np.linspace(0, 4095, 64 * 96).round().astype(np.uint16).reshape(64, 96)
SIGNED_FILM = (FILM.astype(np.int32) - 2048).astype(np.int16)


def make_dataset(pixels=FILM, bits=12, syntax=ExplicitVRLittleEndian, **fields):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.3"
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.Modality = "IO"
    dataset.PatientID = "P-17"
    dataset.PatientName = SECRET
    dataset.StudyInstanceUID = "1.2.3"
    dataset.InstanceNumber = 5
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OW"
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    return dataset


def make_lut(first, entries, bits, vr="US"):
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", vr, entries.tolist() if vr == "US" else entries.astype("<u2").tobytes())
    return [item]


def save(dataset, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path, enforce_file_format=True)
    return path


def reason_of(path, frame=0, **options):
    with pytest.raises(UnreadableRadiograph) as caught:
        read_radiograph(path, frame, **options)
    message = str(caught.value)
    assert message.startswith(f"{path.name}: {caught.value.reason}: ")
    assert "\n" not in message
    assert "DOE" not in message
    return caught.value.reason
