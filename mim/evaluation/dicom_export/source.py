"""The DICOM object that a film was read from: what a derived object inherits from it, without its pixels."""

from collections.abc import Iterable
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pydicom.valuerep import DA, TM

from mim.errors import MimError

_UNICODE = "ISO_IR 192"  # PS3.3 C.12.1.1.2
_IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_MAY_BE_EMPTY = (  # type 2 of the patient and study modules (PS3.3 C.7.1.1, C.7.2.1)
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)


_TIMES = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}


class UnfitSource(MimError):  # noqa: N818  (a verdict on a file, listed and counted)
    """Nothing can be derived from a file; the message never quotes what may name a patient."""


def read_source(path: Path) -> FileDataset:
    """Reads all of a DICOM file but its pixels.

    Raises:
        UnfitSource: It is no DICOM file, or lacks what a reference to it needs.
    """
    try:
        source = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError, EOFError, AttributeError, KeyError, TypeError) as error:
        raise UnfitSource("no DICOM file, so there is nothing to reference") from error
    missing = [name for name in _IDENTIFYING if not source.get(name)]
    if missing:
        raise UnfitSource(f"has no {missing[0]}, so it cannot be referenced")
    invalid = [name for name in _IDENTIFYING if name.endswith("UID") and not UID(str(source[name].value)).is_valid]
    if invalid:
        raise UnfitSource(f"its {invalid[0]} is no valid UID, so readers would refuse a reference to it")
    for name in _MAY_BE_EMPTY:
        if name not in source:
            setattr(source, name, "")
    for name, kind in _TIMES.items():
        try:
            kind(str(source.get(name) or ""))
        except ValueError:  # such as 00000000, which cannot be handed on
            setattr(source, name, "")
    return source


def character_set(source: Dataset, texts: Iterable[str]) -> str | None:
    """The character set of what is derived: that of the source, or Unicode.

    Unicode where names of classes have letters that the source's may lack, and where the source has several, as in
    Japan, or one that is not a defined term: highdicom refuses these.

    Args:
        source: What it is derived from.
        texts: What is written beside what is taken over from the source.
    """
    from highdicom.enum import SpecificCharacterSetValues

    own = source.get("SpecificCharacterSet") or None
    known = own is None or own in [term.value for term in SpecificCharacterSetValues]
    return own if known and all(text.isascii() for text in texts) else _UNICODE


def frames_of(source: Dataset) -> int | None:
    """Number of frames of a multi-frame object; None for one that has no frames to be numbered."""
    frames = source.get("NumberOfFrames")
    return None if frames in (None, "") else int(frames)
