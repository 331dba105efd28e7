"""One file to stored films: what a worker process of the preparation does."""

import errno
import hashlib
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.manifest import ManifestRow
from mim.data.privacy import salted_hash
from mim.data.radiograph import ColourPolicy, Radiograph, UnreadableRadiograph, count_frames, read_radiograph
from mim.data.store import Film, FilmLevels, half_shape, pixel_type

_CONTENT_SIDE = 32


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """What decides how a file of `root` is stored; `voi` and `color` as in `mim.data.read_radiograph`."""

    root: Path
    long_side: int
    bits: int
    salt: bytes
    voi: int = 0
    color: ColourPolicy = "skip"


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
            row, levels = _store(radiograph, image, frame, options)
            rows.append(row)
            films.append(levels)
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


def content_hash(pixels: NDArray[np.float32]) -> str:
    """Hash a film reduced to 32 x 32 and 8 bits, so that it is known again however it is stored."""
    tiny = cv2.resize(pixels, (_CONTENT_SIDE, _CONTENT_SIDE), interpolation=cv2.INTER_AREA)
    return hashlib.sha256(quantise(tiny, 8).tobytes()).hexdigest()


def halve(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reduce a film (H, W) by area averaging to half its height and width, rounded up."""
    height, width = half_shape(*pixels.shape)
    halved: NDArray[np.float32] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return halved


def _store(radiograph: Radiograph, image: str, frame: int, options: DecodeOptions) -> tuple[ManifestRow, FilmLevels]:
    pixels, meta = radiograph.pixels, radiograph.meta
    reduced = reduce_film(pixels, options.long_side)
    # Both sizes come from the same floats, so the smaller one is not rounded twice.
    film, half = quantise(reduced, options.bits), quantise(halve(reduced), options.bits)
    height, width = pixels.shape
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
        sha256=_pixel_hash(film),
        content=content_hash(pixels),
    )
    return row, FilmLevels(film, half)


def _hash_if_known(salt: bytes, identifier: str | None) -> str:
    return salted_hash(salt, identifier) if identifier and identifier.strip() else ""


def _pixel_hash(film: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{film.shape[0]}x{film.shape[1]}x{film.dtype.itemsize}".encode())
    digest.update(film.tobytes())
    return digest.hexdigest()


def _describe(error: Exception) -> str:
    """Say what failed and where, without the message: it could quote a header."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
