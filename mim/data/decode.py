"""One file to stored films: what a worker process of the preparation does."""

import errno
import hashlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.crop import Crop, find_crop
from mim.data.duplicates import HASH_SIDE, perceptual_hash
from mim.data.manifest import ManifestRow
from mim.data.privacy import salted_hash
from mim.data.radiograph import ColourPolicy, Radiograph, UnreadableRadiograph, count_frames, read_radiograph
from mim.data.regions import tile_rectangles, whole
from mim.data.store import Film, FilmLevels, half_shape, pixel_type
from mim.errors import MimError

_EDGE = HASH_SIDE // 16


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What decides how a file of `root` is stored.

    Attributes:
        root: The folder of films.
        long_side: Longer side of a stored film or tile in pixels; larger ones are reduced by area, smaller ones kept.
        bits: Bits of a stored pixel, 8 or 16.
        salt: What ids are hashed with.
        voi: Which of several VOI LUTs and windows a DICOM is shown with.
        color: What is done with colour pictures: "skip" or "gray".
        crop: What is taken away around a film (see `mim.data.crop`).
        tile: Side of the windows that a film is cut into, unreduced; None = it stays whole.
        tile_overlap: Pixels by which neighbouring windows overlap.

    Raises:
        MimError: The options contradict each other.
    """

    root: Path
    long_side: int
    bits: int
    salt: bytes
    voi: int = 0
    color: ColourPolicy = "skip"
    crop: Crop = "none"
    tile: int | None = None
    tile_overlap: int = 0

    def __post_init__(self) -> None:
        if self.tile is None and self.tile_overlap:
            raise MimError("data.tile_overlap (--tile-overlap) says nothing without data.tile (--tile): set both")
        if self.tile is not None and self.tile > self.long_side:
            raise MimError(
                f"data.tile {self.tile} is more than data.long_side {self.long_side}, to which tiles would be reduced: "
                f"set data.long_side (--long-side) to {self.tile} or more"
            )
        if self.tile is not None and not 0 <= self.tile_overlap <= self.tile // 2:
            raise MimError(
                f"data.tile_overlap {self.tile_overlap} must be from 0 to half of data.tile, {self.tile // 2}"
            )

    def stored(self) -> dict[str, Any]:
        """All options that decide what is stored, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("root", "salt")}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or one frame of it, that is left out, and why: a short fixed word and a line of detail."""

    image: str
    frame: int | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """The films of one file, each with its row of the manifest, and what of it was left out."""

    image: str
    rows: tuple[ManifestRow, ...]
    films: tuple[FilmLevels, ...]
    skipped: tuple[Skipped, ...]


def decode_file(image: str, options: DecodeOptions) -> DecodedFile:
    """Read all frames of a file; whatever is wrong with it ends up in `skipped`.

    Raises:
        MemoryError: The process may not hold more memory.
    """
    path = options.root / image
    if path.is_dir():
        return unreadable(image, "unreadable-folder", "the folder cannot be listed")
    if not path.is_file():
        return unreadable(image, "not-a-file", "a broken link, or neither a file nor a folder")
    rows: list[ManifestRow] = []
    films: list[FilmLevels] = []
    skipped: list[Skipped] = []
    frame, frames = 0, 1
    while frame < frames:
        number = frame if frames > 1 else None
        try:
            frames = count_frames(path, color=options.color) if frame == 0 else frames
            radiograph = read_radiograph(path, frame, voi=options.voi, color=options.color)
            parts = list(_store(radiograph, image, frame, options))
            rows.extend(row for row, _ in parts)
            films.extend(levels for _, levels in parts)
        except UnreadableRadiograph as error:
            skipped.append(Skipped(image, number, error.reason, error.detail))
        except MemoryError:
            raise
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise MemoryError from error
            skipped.append(Skipped(image, number, "unreadable-file", error.strerror or ""))
        except Exception as error:
            if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
                raise MemoryError from error
            skipped.append(Skipped(image, number, "unexpected-error", _describe(error)))
        frame += 1
    if len(skipped) == frames and len({item.reason for item in skipped}) == 1:
        skipped = [replace(skipped[0], frame=None)]
    return DecodedFile(image, tuple(rows), tuple(films), tuple(skipped))


def unreadable(image: str, reason: str, detail: str) -> DecodedFile:
    """A file of which nothing is kept."""
    return DecodedFile(image, (), (), (Skipped(image, None, reason, detail),))


def reduce_film(pixels: NDArray[np.float32], long_side: int) -> NDArray[np.float32]:
    """Reduce a film by area averaging so that its longer side is at most `long_side`; a smaller one stays as it is.

    Args:
        pixels: (H, W).
        long_side: In pixels.
    """
    height, width = pixels.shape
    scale = long_side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced: NDArray[np.float32] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return reduced


def quantise(pixels: NDArray[np.float32], bits: int) -> Film:
    """Turn [0, 1] into the nearest whole numbers of 8 or 16 bits."""
    film: Film = np.rint(np.clip(pixels, 0, 1) * np.float32(2**bits - 1)).astype(pixel_type(bits), order="C")
    return film


def thumbnail(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce a film to 32 x 32 pixels, for the hashes that know it again however it is stored."""
    tiny: NDArray[np.float32] = cv2.resize(pixels, (HASH_SIDE, HASH_SIDE), interpolation=cv2.INTER_AREA)
    return tiny


def edge_brightness(tiny: NDArray[np.float32]) -> float:
    """Mean of a thumbnail's outermost two pixels on each side, to four decimals."""
    inner = tiny[_EDGE:-_EDGE, _EDGE:-_EDGE]
    return round(float((tiny.sum() - inner.sum()) / (tiny.size - inner.size)), 4)


def content_hash(tiny: NDArray[np.float32]) -> str:
    """Hash a film's thumbnail at 8 bits."""
    return hashlib.sha256(quantise(tiny, 8).tobytes()).hexdigest()


def halve(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce a film (H, W) by area averaging to half its height and width, rounded up."""
    height, width = half_shape(*pixels.shape)
    halved: NDArray[np.float32] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return halved


def _store(
    radiograph: Radiograph, image: str, frame: int, options: DecodeOptions
) -> Iterator[tuple[ManifestRow, FilmLevels]]:
    pixels, meta = radiograph.pixels, radiograph.meta
    height, width = pixels.shape
    tiny = thumbnail(pixels)
    kept = find_crop(pixels, options.crop)
    parts = [kept] if options.tile is None else tile_rectangles(kept, options.tile, options.tile_overlap)
    row = ManifestRow(
        image_id=salted_hash(options.salt, f"{image}#{frame}"),
        image=image,
        frame=frame,
        patient_id=_hash_if_known(options.salt, meta.patient_id),
        study_id=_hash_if_known(options.salt, meta.study_id),
        series_order=meta.series_order,
        width=width,
        height=height,
        bits=meta.bits,
        spacing_mm=meta.spacing_mm,
        modality=meta.modality or "",
        sha256="",
        content=content_hash(tiny),
        perceptual_hash=perceptual_hash(tiny),
        edge_brightness=edge_brightness(tiny),
        burned_in="" if meta.burned_in is None else "yes" if meta.burned_in else "no",
    )
    for number, part in enumerate(parts):
        reduced = reduce_film(pixels[part.slices], options.long_side)
        # Both sizes come from the same floats, so the smaller one is not rounded twice.
        levels = FilmLevels(quantise(reduced, options.bits), quantise(halve(reduced), options.bits))
        stored = replace(row, sha256=pixel_hash(levels.full), crop=None if part == whole(height, width) else part)
        if options.tile is not None:
            stored = replace(stored, tile=number, image_id=salted_hash(options.salt, f"{image}#{frame}#{number}"))
        yield stored, levels


def _hash_if_known(salt: bytes, identifier: str | None) -> str:
    return salted_hash(salt, identifier) if identifier and identifier.strip() else ""


def pixel_hash(film: NDArray[Any]) -> str:
    """Hash stored pixels, their shape and type."""
    digest = hashlib.sha256(f"{film.shape[0]}x{film.shape[1]}x{film.dtype.itemsize}".encode())
    digest.update(film.tobytes())
    return digest.hexdigest()


def _describe(error: Exception) -> str:
    """Say what failed and where, without the message: it could quote a header."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
