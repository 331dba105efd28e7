"""A drawn film as a DICOM object (Digital Intra-Oral X-Ray Image Storage - For Presentation, PS3.3 A.26)."""

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

INTRA_ORAL_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.3"
INVERTED_EVERY = 5  # every 5th film is MONOCHROME1
WINDOWED_EVERY = 3  # every 3rd film carries a window
WHITE = 4095


@dataclass(frozen=True)
class FilmIdentity:
    """Which film of the set this is."""

    seed: int
    patient: int
    film: int  # among the films of the patient
    number: int  # among all films of the set

    @property
    def patient_id(self) -> str:
        """The invented id of the patient."""
        return f"PHANTOM-{self.patient:06d}"


def made_up_uid(*parts: object) -> str:
    """Give a UID under the 2.25 root (PS3.5 B.2), a function of the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def film_dataset(pixels: npt.NDArray[np.uint16], identity: FilmIdentity, pixel_mm: float) -> FileDataset:
    """Wrap (H, W) pixels of 0..4095, bright = dense, as a DICOM data set ready to be saved."""
    inverted = identity.number % INVERTED_EVERY == INVERTED_EVERY - 1
    stored = WHITE - pixels if inverted else pixels
    study = (identity.seed, identity.patient)
    instance = made_up_uid("phantom", "instance", *study, identity.film)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = INTRA_ORAL_FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = instance
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    film.SOPClassUID, film.SOPInstanceUID = INTRA_ORAL_FOR_PRESENTATION, instance
    film.StudyInstanceUID = made_up_uid("phantom", "study", *study)
    film.SeriesInstanceUID = made_up_uid("phantom", "series", *study)
    film.PatientID, film.PatientName = identity.patient_id, f"PHANTOM^{identity.patient:06d}"
    film.PatientBirthDate = film.PatientSex = film.StudyTime = film.AccessionNumber = film.StudyID = ""
    film.StudyDate, film.ReferringPhysicianName, film.Manufacturer = "20000101", "", "mim phantom"
    film.SeriesNumber, film.InstanceNumber = 1, identity.film + 1
    film.ImageType, film.Modality, film.ConversionType = ["DERIVED", "PRIMARY"], "IO", "SYN"
    film.ImageComments = "drawn by a program, not a patient"
    film.PresentationIntentType, film.BurnedInAnnotation = "FOR PRESENTATION", "NO"
    film.LossyImageCompression = "00"
    film.ImagerPixelSpacing = film.PixelSpacing = [f"{pixel_mm:.6f}"] * 2
    film.SamplesPerPixel, film.PixelRepresentation = 1, 0
    film.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    film.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    film.PixelIntensityRelationship, film.PixelIntensityRelationshipSign = "LOG", 1 if inverted else -1
    film.RescaleIntercept, film.RescaleSlope, film.RescaleType = "0", "1", "US"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    if identity.number % WINDOWED_EVERY == 0:
        film.WindowCenter, film.WindowWidth = "2048", "3800"
    film.PixelData = stored.astype("<u2").tobytes()
    return film
