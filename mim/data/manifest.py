"""The table of a prepared dataset: one row a film."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from mim.data.regions import Rectangle
from mim.errors import MimError


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """What is known of one film.

    Attributes:
        image_id: Salted hash of `image` and `frame`, and of `tile` where there is one.
        image: The file, relative to the folder that was prepared, with forward slashes.
        frame: Which frame of the file, from 0.
        patient_id: Salted hash of the header's patient id; empty where the file has none.
        study_id: Salted hash of the header's study id; empty where the file has none.
        series_order: The film's place in its series, where the header says so.
        width: Width of the whole film in pixels, before it was cropped, cut into tiles or reduced.
        height: Height of the whole film in pixels, before the same.
        bits: Bits a pixel of the file keeps.
        spacing_mm: Distance of rows and of columns in mm, before the film was reduced.
        modality: DICOM modality; empty where unknown.
        sha256: Hash of the stored pixels, their shape and type.
        content: Hash of the whole film at 32 x 32 pixels, which does not depend on how films are stored.
        crop: The part of the film that is stored, in pixels of the whole film before it was reduced; None = all of it.
        tile: Number of the tile in its frame, from 0, row by row; None where films are not cut into tiles.
        perceptual_hash: 64 hexadecimal digits that differ little between copies (see `mim.data.duplicates`); of the
            whole film.
        burned_in: What the header says of text burnt into the pixels: "yes", "no", or empty.
        edge_brightness: Mean of the outermost sixteenth of the whole film on each side, in [0, 1]. Air is dark, so a
            high value hints at an inverted film.
    """

    image_id: str
    image: str
    frame: int
    patient_id: str
    study_id: str
    series_order: int | None
    width: int
    height: int
    bits: int
    spacing_mm: tuple[float, float] | None
    modality: str
    sha256: str
    content: str
    crop: Rectangle | None = None
    tile: int | None = None
    perceptual_hash: str = ""
    burned_in: str = ""
    edge_brightness: float | None = None


COLUMNS = tuple(field.name for field in fields(ManifestRow))


def write_manifest(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write rows as CSV (UTF-8, comma, one header line); between the numbers of `spacing_mm` and `crop` is a blank."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\r\n")  # else a cell with one of the two alone would not be quoted
        writer.writerow(COLUMNS)
        writer.writerows([_to_text(getattr(row, name)) for name in COLUMNS] for row in rows)


def read_manifest(path: Path) -> tuple[ManifestRow, ...]:
    """Read what `write_manifest` wrote.

    Raises:
        MimError: The file is missing, its columns are not those of a manifest, or a row cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            header = tuple(next(reader, ()))
            if header != COLUMNS:
                raise MimError(f"{path}: columns are {', '.join(header)}, not {', '.join(COLUMNS)}: prepare again")
            return tuple(parse_row(path, reader.line_num, values) for values in reader)
    except OSError as error:
        raise MimError(f"{path}: the manifest cannot be read ({error.strerror})") from error


def _to_text(value: str | float | tuple[float, ...] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(repr(number) for number in value)
    return str(value)


def parse_row(path: Path, line: int, values: list[str]) -> ManifestRow:
    """Turn the cells of a row into the row.

    Args:
        path: The manifest, for the message.
        line: Which row of it, for the message.
        values: Cells in the order of `COLUMNS`.

    Raises:
        MimError: A cell is missing or not what its column holds.
    """
    try:
        cell = dict(zip(COLUMNS, values, strict=True))
        return ManifestRow(
            image_id=cell["image_id"],
            image=cell["image"],
            frame=int(cell["frame"]),
            patient_id=cell["patient_id"],
            study_id=cell["study_id"],
            series_order=int(cell["series_order"]) if cell["series_order"] else None,
            width=int(cell["width"]),
            height=int(cell["height"]),
            bits=int(cell["bits"]),
            spacing_mm=_parse_spacing(cell["spacing_mm"]),
            modality=cell["modality"],
            sha256=cell["sha256"],
            content=cell["content"],
            crop=_parse_crop(cell["crop"]),
            tile=int(cell["tile"]) if cell["tile"] else None,
            perceptual_hash=cell["perceptual_hash"],
            burned_in=cell["burned_in"],
            edge_brightness=float(cell["edge_brightness"]) if cell["edge_brightness"] else None,
        )
    except ValueError as error:
        raise MimError(f"{path}, row {line}: not a row of a manifest ({error}): prepare again") from error


def _parse_spacing(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    row, column = text.split()
    return float(row), float(column)


def _parse_crop(text: str) -> Rectangle | None:
    if not text:
        return None
    left, top, right, bottom = (int(number) for number in text.split())
    return Rectangle(left, top, right, bottom)
