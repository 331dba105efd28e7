"""Masks: a PNG for each image whose pixels are classes."""

import re
import warnings
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
    pattern = mask_pattern(rule)
    if not classes:
        raise MimError("masks do not name their classes: give --classes NAME, or NAME,NAME,... in the order of values")
    images: list[ImportedImage] = []
    problems: list[Problem] = []
    beside = frozenset(films.names if source.resolve() == films.root.resolve() else ())  # films among their masks
    for name, path in list_files(source, rule[-4:]):
        matched = pattern.fullmatch(PurePosixPath(name).name)
        if matched is None and name in beside:
            continue
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


def run_lengths(part: NDArray[np.bool_], corner: tuple[int, int], size: tuple[int, int]) -> list[int]:
    """Return COCO's uncompressed run lengths of a part of an image: column by column, beginning with the zeros.

    Args:
        part: (h, w), true where the pixels are.
        corner: Row and column of its first pixel in the image.
        size: Rows and columns of the image.
    """
    columns, rows = np.nonzero(part.T)
    places = (corner[1] + columns) * size[0] + corner[0] + rows
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    starts = places[np.concatenate([[0], breaks])] if len(places) else places
    ends = places[np.concatenate([breaks - 1, [-1]])] + 1 if len(places) else places
    edges = np.stack([starts, ends], axis=1).ravel()
    return [int(run) for run in np.diff(np.concatenate([[0], edges, [size[0] * size[1]]]))]


def mask_pattern(rule: str) -> re.Pattern[str]:
    """Turn a rule for names into a pattern whose group is the stem.

    Raises:
        MimError: The rule has no `{stem}`, or names no PNG.
    """
    if rule.count("{stem}") != 1 or "/" in rule or not rule.lower().endswith(".png"):
        raise MimError(f"{rule}: a rule for masks must hold {{stem}} once, no folder, and end in .png (--mask-name)")
    before, after = rule.split("{stem}")
    return re.compile(re.escape(before) + "(.+)" + re.escape(after))


def _read(path: Path) -> NDArray[np.uint8]:
    """The values of a binary or indexed PNG (H, W); anything else raises ValueError."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=["PNG"]) as file:
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
            own = parts[top : top + height, left : left + width] == part
            lengths = run_lengths(own, (top, left), (mask.shape[0], mask.shape[1]))
            pixels = {"size": list(mask.shape), "counts": lengths}
            xyxy = (float(left), float(top), float(left + width), float(top + height))
            boxes.append(ImportedBox(category, xyxy, place, pixels))
    return tuple(boxes)
