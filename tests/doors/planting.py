"""Films that say in every place who is on them."""

import csv
import hashlib
from pathlib import Path

import pydicom
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset

from mim.data import read_radiograph

NAME, PATIENT, PHYSICIAN = "Lovelace^Augusta", "PATIENT-4711-XYZ", "Babbage^Charles"
STUDY_UID, SERIES_UID = "1.2.826.0.1.3680043.9.4242.1815.77", "1.2.826.0.1.3680043.9.4242.1815.78"
FOLDER, FILE_STEM = "Somerville_Mary", "Lovelace_Augusta_18151210"
HEADER = {
    "PatientName": NAME,
    "PatientID": PATIENT,
    "OtherPatientNames": "Gordon^Augusta",
    "OtherPatientIDs": "OTHERID-0815",
    "PatientBirthDate": "18151210",
    "PatientBirthName": "Milbanke",
    "PatientAddress": "Cavendish Square 21",
    "PatientTelephoneNumbers": "0049-30-901820",
    "PatientComments": "Zephyrine is her pony",
    "StudyDate": "18430927",
    "SeriesDate": "18430928",
    "AcquisitionDateTime": "18430929112233",
    "ContentTime": "112233.445566",
    "InstitutionName": "Quillforth Infirmary",
    "InstitutionAddress": "Marylebone 7",
    "StationName": "STATION-OBELIX",
    "ReferringPhysicianName": PHYSICIAN,
    "OperatorsName": "Faraday^Michael",
    "AccessionNumber": "ACC-77-QUOLL",
    "StudyID": "STUDY-9931-K",
    "StudyDescription": "bitewing of the countess",
    "SeriesDescription": "left side of the countess",
    "ProtocolName": "protocol-Herschel",
    "ImageComments": "shown to Wheatstone",
    "DeviceSerialNumber": "SERIAL-55512-A",
    "StudyInstanceUID": STUDY_UID,
    "SeriesInstanceUID": SERIES_UID,
    "FrameOfReferenceUID": "1.2.826.0.1.3680043.9.4242.1815.79",
}
SEQUENCE = {"PatientName": "Menabrea^Luigi", "PatientID": "NESTED-3141-Q", "AccessionNumber": "NESTED-ACC-27"}
PRIVATE, OVERLAY, BINARY = "private-Hypatia-Creator", "overlay-Noether-Emmy", "binary-Germain-Sophie"
CELL, CELL_ID, TEXT_CHUNK, EXIF_TEXT = "cell-Kovalevskaya", "CELLID-2718", "chunk-Agnesi-Maria", "exif-Chatelet-Emilie"
BROKEN = "broken-Hopper-Grace"

# What stands in headers, cells and metadata: never to leave the files.
SECRETS = (
    *(part for value in HEADER.values() for part in (value, *value.split("^")) if len(part) >= 6),
    *(part for value in SEQUENCE.values() for part in (value, *value.split("^")) if len(part) >= 6),
    *(PRIVATE, OVERLAY, BINARY, CELL, CELL_ID, TEXT_CHUNK, EXIF_TEXT, BROKEN),
    # A hash without a salt is an id in disguise.
    *(
        hashlib.new(kind, f"{PATIENT}-{number}".encode()).hexdigest()[:16]
        for kind in ("md5", "sha1", "sha256")
        for number in (1, 2)
    ),
)
# What names of files and folders say: only the manifest, and the list of skipped files, may name them.
FILE_NAMES = (FOLDER, FILE_STEM, "Lovelace", "Augusta", "Somerville", "18151210")


def plant_folder(source: Path, target: Path) -> None:
    """Copy a labelled phantom with all of it planted, some films as PNG and JPEG, and broken ones added.

    Args:
        source: Films and labels.csv.
        target: A folder to make.
    """
    folder = target / FOLDER
    folder.mkdir(parents=True)
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    plant_broken(source / rows[0]["image"], folder)
    for number, row in enumerate(rows):
        film, patient = source / row["image"], row["patient_id"].rpartition("-")[2].lstrip("0") or "0"
        kind = {3: "png", 4: "jpg"}.get(number % 10, "dcm")
        place = folder / f"{FILE_STEM}_{number:02d}.{kind}"
        if kind == "dcm":
            plant_header(film, place, patient=f"{PATIENT}-{patient}")
        else:
            plant_picture(film, place)
        row.update(image=f"{FOLDER}/{place.name}", patient_id=f"{CELL_ID}-{patient}", name=CELL, birthday="18151210")
    with (target / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def plant_header(source: Path, target: Path, *, patient: str) -> None:
    """Copy a film with a header full of names, ids and dates, in sequences and private elements too."""
    dataset = pydicom.dcmread(source)
    for keyword, value in HEADER.items():
        setattr(dataset, keyword, value)
    dataset.PatientID = patient
    item, inner = Dataset(), Dataset()
    for keyword, value in SEQUENCE.items():
        setattr(item, keyword, value)
    inner.ReferencedStudySequence = [item]
    dataset.OtherPatientIDsSequence = dataset.RequestAttributesSequence = [inner]
    dataset.SharedFunctionalGroupsSequence = [inner]
    block = dataset.private_block(0x0011, PRIVATE, create=True)
    block.add_new(1, "LO", PRIVATE)
    block.add_new(2, "OB", BINARY.encode())
    dataset.add_new(0x60004000, "LT", OVERLAY)
    dataset.add_new(0x60001500, "LO", OVERLAY)
    dataset.preamble = BINARY.encode().ljust(128, b"\0")
    dataset.save_as(target)


def plant_picture(source: Path, target: Path) -> None:
    """Write a film as PNG with text, or as JPEG with EXIF and a comment."""
    picture = Image.fromarray((read_radiograph(source).pixels * 255).astype("uint8"))
    if target.suffix == ".png":
        text = PngImagePlugin.PngInfo()
        text.add_text("Author", TEXT_CHUNK)
        text.add_text("Comment", f"{TEXT_CHUNK} {NAME}", zip=True)
        picture.save(target, pnginfo=text)
    else:
        exif = Image.Exif()
        exif[0x010E], exif[0x013B] = EXIF_TEXT, NAME  # description, artist
        picture.save(target, exif=exif, comment=EXIF_TEXT.encode())


def plant_broken(source: Path, folder: Path) -> None:
    """Write files that are skipped, each with a name where an error message might quote it."""
    dataset = pydicom.dcmread(source)
    whole = source.read_bytes()
    dataset.PatientName = BROKEN
    for number, keyword in enumerate(("PhotometricInterpretation", "VOILUTFunction", "Modality")):
        setattr(dataset, keyword, BROKEN.upper().replace("-", "_")[:16])
        if keyword == "Modality":
            dataset.PixelData = dataset.PixelData[:10]
        dataset.save_as(folder / f"{FILE_STEM}_broken_{number}.dcm")
    for tag in (b"\x28\x00\x50\x10DS", b"\x28\x00\x53\x10DS"):  # window centre, rescale slope: not numbers
        value = BROKEN.encode().ljust(20)
        element = tag + len(value).to_bytes(2, "little") + value
        place = whole.find(b"\xe0\x7f\x10\x00")
        (folder / f"{FILE_STEM}_number_{tag[2]:x}.dcm").write_bytes(whole[:place] + element + whole[place:])
    (folder / f"{FILE_STEM}.txt").write_text(BROKEN)
    (folder / f"{FILE_STEM}_cut.dcm").write_bytes(whole[: len(whole) // 2])
