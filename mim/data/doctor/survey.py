"""All that the checks need to know of the films of a folder, or of a prepared dataset."""

import secrets
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mim.data.build import FILE_LIMITS
from mim.data.decode import DecodeOptions, Skipped, decode_file
from mim.data.dicom_file import open_dicom
from mim.data.manifest import ManifestRow
from mim.data.privacy import SALT_NAME, load_salt_file, salt_check
from mim.data.processes import Failure, available_cores, map_in_processes
from mim.data.radiograph import UnreadableRadiograph, file_format
from mim.data.scan import scan
from mim.data.store import PreparedDataset, is_prepared
from mim.errors import MimError

SIDE = 32
_NOTES = (".csv", ".tsv", ".json", ".txt", ".md", ".yaml", ".yml", ".xml", ".html", ".names")


@dataclass(frozen=True, slots=True)
class HeaderNotes:
    """What a DICOM header says that the manifest does not hold.

    Attributes:
        burned_in: Burned In Annotation (0028,0301); None where it is absent.
        for_processing: Whether it is an image FOR PROCESSING (0008,0068), not for the eye.
    """

    burned_in: bool | None
    for_processing: bool


@dataclass(frozen=True, slots=True)
class Survey:
    """The films of a dataset.

    Attributes:
        path: The folder.
        source: The folder of films that the prepared dataset was made from; `path` if it is one of films.
        rows: A row a film.
        tiny: (N, 32, 32), the films reduced.
        skipped: What could not be read, text files beside the films aside.
        notes: By file, of those whose header could be read.
        headers_known: Whether headers could be looked into at all.
        salt: What the ids in `rows` were hashed with; None if it is not at hand.
    """

    path: Path
    source: Path
    rows: tuple[ManifestRow, ...]
    tiny: NDArray[np.uint8]
    skipped: tuple[Skipped, ...]
    notes: dict[str, HeaderNotes]
    headers_known: bool
    salt: bytes | None


@dataclass(frozen=True, slots=True)
class _Examined:
    rows: tuple[ManifestRow, ...]
    tiny: tuple[NDArray[np.uint8], ...]
    skipped: tuple[Skipped, ...]
    notes: HeaderNotes | None


def survey(path: Path, workers: int | None = None) -> Survey:
    """Read every film of a folder, in processes, or the manifest and pixels of a prepared dataset. Nothing is written.

    Raises:
        MimError: The folder is missing, empty, damaged, or holds nothing readable.
    """
    found = _survey_prepared(path) if is_prepared(path) else _survey_folder(path, workers)
    if not found.rows:
        raise MimError(f"{path}: no film could be read ({len(found.skipped)} files were tried)")
    return found


def read_notes(path: Path) -> HeaderNotes | None:
    """Look into the header of a DICOM file; None for other files and where it cannot be read."""
    try:
        if file_format(path) != "dicom":
            return None
        with open_dicom(path) as file:
            burned_in = (file.header.text("BurnedInAnnotation") or "").upper()
            intent = (file.header.text("PresentationIntentType") or "").upper()
    except UnreadableRadiograph:
        return None
    return HeaderNotes({"YES": True, "NO": False}.get(burned_in), intent == "FOR PROCESSING")


def _survey_folder(path: Path, workers: int | None) -> Survey:
    files = scan(path)
    salt = secrets.token_bytes(32)  # ids are compared within this process only
    options = DecodeOptions(path.resolve(), 4 * SIDE, 8, salt)
    examined = map_in_processes(
        partial(_examine, options=options),
        (file.image for file in files),
        workers=max(1, min(workers or available_cores(), len(files))),
        failed=_failed,
        limits=FILE_LIMITS,
        preload=["mim.data.decode"],
    )
    shown = tqdm(examined, total=len(files), desc="reading", unit="file", disable=not sys.stderr.isatty())
    results = list(zip(files, shown, strict=True))
    return Survey(
        path=path,
        source=path,
        rows=tuple(row for _, result in results for row in result.rows),
        tiny=_stack(film for _, result in results for film in result.tiny),
        skipped=_without_texts(skipped for _, result in results for skipped in result.skipped),
        notes={file.image: result.notes for file, result in results if result.notes is not None},
        headers_known=True,
        salt=salt,
    )


def _survey_prepared(path: Path) -> Survey:
    dataset = PreparedDataset.open(path)
    first = [number for number, row in enumerate(dataset.rows) if not row.tile]  # of a film in tiles the first
    rows = tuple(dataset.rows[number] for number in first)
    images = dict.fromkeys(row.image for row in rows)
    known = dataset.source.is_dir()
    found = {image: read_notes(dataset.source / image) for image in images} if known else {}
    salt_file = dataset.path.parent / SALT_NAME
    salt = load_salt_file(salt_file) if salt_file.is_file() else None
    return Survey(
        path=path,
        source=dataset.source,
        rows=rows,
        tiny=_stack(_reduce(dataset.image(number)) for number in first),
        skipped=_without_texts(Skipped(**skipped) for skipped in dataset.report.get("skipped", [])),
        notes={image: notes for image, notes in found.items() if notes is not None},
        headers_known=known,
        salt=salt if salt is not None and salt_check(salt) == dataset.salt_check else None,
    )


def _examine(image: str, options: DecodeOptions) -> _Examined:
    decoded = decode_file(image, options)
    tiny = tuple(_reduce(levels.full) for levels in decoded.films)
    return _Examined(decoded.rows, tiny, decoded.skipped, read_notes(options.root / image))


def _failed(image: str, failure: Failure) -> _Examined:
    return _Examined((), (), (Skipped(image, None, failure, "reading it did not come to an end"),), None)


def _reduce(film: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    tiny: NDArray[np.generic] = cv2.resize(film, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    full = np.iinfo(film.dtype).max
    return np.rint(tiny.astype(np.float64) * 255 / full).astype(np.uint8)


def _stack(films: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    found = list(films)
    return np.stack(found) if found else np.empty((0, SIDE, SIDE), dtype=np.uint8)


def _without_texts(skipped: Iterable[Skipped]) -> tuple[Skipped, ...]:
    return tuple(own for own in skipped if not own.image.lower().endswith(_NOTES))


def names_of(rows: Sequence[ManifestRow], numbers: Iterable[int]) -> tuple[str, ...]:
    """Name films by their files, each once."""
    return tuple(dict.fromkeys(rows[number].image for number in numbers))
