"""Masks: a PNG for each image whose pixels are classes."""

import re
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mim.data.importers.files import Films, list_files
from mim.data.importers.types import Imported, ImportedBox, ImportedImage, Place, Problem, plain
from mim.data.radiograph_types import MAX_PIXELS
from mim.errors import MimError

_MOST_PARTS = 10_000


def read_masks(source: Path, films: Films, rule: str, classes: tuple[str, ...]) -> Imported:
    """Read every PNG of a folder and of those in it. Each connected part of a class becomes one box with its pixels.

    With one class a mask is binary: 0 is background, one other value (1 or 255, say) the class. With more, its values
    are indices: 0 is background, 1 the first class. An empty mask: nothing was found on the image.

    Args:
        source: The folder.
        films: The images.
        rule: What a mask is called, with `{stem}` for the name of its image without extension: `{stem}_mask.png`.
        classes: Names of the classes.

    Raises:
        MimError: The folder is missing or holds no mask, or the rule has no `{stem}`.
    """
    if rule.count("{stem}") != 1 or "/" in rule or not rule.lower().endswith(".png"):
        raise MimError(f"{rule}: a rule for masks must hold {{stem}} once, no folder, and end in .png (--mask-name)")
    if not classes:
        raise MimError("masks do not name their classes: give --classes NAME, or NAME,NAME,... in the order of values")
    before, after = rule.split("{stem}")
    pattern = re.compile(re.escape(before) + "(.+)" + re.escape(after))
    images: list[ImportedImage] = []
    problems: list[Problem] = []
    for name, path in list_files(source, rule[-4:]):
        matched = pattern.fullmatch(PurePosixPath(name).name)
        image = (
            None if matched is None else films.by_stem((PurePosixPath(name).parent / f"{matched[1]}.png").as_posix())
        )
        if image is None:
            problems.append(Problem("image-without-file", Place(name), "", f"no image fits this mask by {rule}"))
            continue
        try:
            mask = _read(path)
            size = (mask.shape[1], mask.shape[0])
            boxes = _boxes(mask, classes, Place(name))
            images.append(ImportedImage(image, Place(name), boxes=boxes, size=size))
        except ValueError as error:
            problems.append(Problem("malformed", Place(name), image, plain(str(error))))
            images.append(ImportedImage(image, Place(name), unsure=True))
    if not images and not problems:
        raise MimError(f"{source} holds no .png file: is it the folder of the masks?")
    return Imported(images, problems, classes)


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """Return COCO's uncompressed run lengths: column by column, beginning with the zeros."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return [int(run) for run in (runs if not flat[0] else np.concatenate([[0], runs]))]


def _read(path: Path) -> NDArray[np.uint8]:
    """The values of a binary or indexed PNG (H, W); anything else raises ValueError."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"more than {MAX_PIXELS:,} pixels")
            if file.mode not in ("1", "L", "P"):
                raise ValueError(f"mode {file.mode}: save it as 8-bit grey or indexed colour, one value a class")
            file.load()
            return np.asarray(file).astype(np.uint8)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"not a readable PNG ({type(error).__name__})") from None


def _boxes(mask: NDArray[np.uint8], classes: tuple[str, ...], place: Place) -> tuple[ImportedBox, ...]:
    values = [int(value) for value in np.unique(mask) if value]
    if len(classes) == 1:
        if len(values) > 1:
            raise ValueError(f"{len(values)} values beside 0 for one class: name all classes, or save it without grey")
        found = [(classes[0], value) for value in values]
    else:
        if values and values[-1] > len(classes):
            raise ValueError(f"value {values[-1]}, but there are {len(classes)} classes")
        found = [(classes[value - 1], value) for value in values]
    boxes = []
    for category, value in found:
        count, parts, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=8)
        if count > _MOST_PARTS:
            raise ValueError(f"{count - 1} separate parts of one class: it is no mask")
        for part in range(1, count):
            left, top, width, height = (int(number) for number in stats[part, :4])
            whole = np.zeros(mask.shape, dtype=np.bool_)
            window = (slice(top, top + height), slice(left, left + width))
            whole[window] = parts[window] == part
            pixels = {"size": list(mask.shape), "counts": run_lengths(whole)}
            xyxy = (float(left), float(top), float(left + width), float(top + height))
            boxes.append(ImportedBox(category, xyxy, place, pixels))
    return tuple(boxes)
