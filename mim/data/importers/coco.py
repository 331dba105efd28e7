"""COCO: one JSON file with images, categories and annotations (https://cocodataset.org/#format-data)."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mim.data.importers.files import read_json
from mim.data.importers.types import Imported, ImportedBox, ImportedImage, Place, Problem, ProblemKind, Xyxy, plain
from mim.errors import MimError

# What an annotation is of: its class (None where the file does not name it) and what else is known of it.
Describe = Callable[[Mapping[str, Any]], tuple[str | None, dict[str, str]]]


def read_coco(source: Path) -> Imported:
    """Read boxes, with their polygons or run lengths where there are any.

    An image that is listed and has no annotation is one on which nothing was found.

    Raises:
        MimError: The file cannot be read or is not COCO.
    """
    content = read_json(source)
    names = categories(source, content, "categories")

    def describe(annotation: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
        return names.get(key_of(annotation.get("category_id"))), {}

    return parse_coco(source, content, describe, tuple(names.values()))


def parse_coco(source: Path, content: Mapping[str, Any], describe: Describe, classes: tuple[str, ...]) -> Imported:
    """Read images and annotations; `describe` says of which class an annotation is."""
    problems: list[Problem] = []
    images = _images(source, entries(source, content, "images"), problems)
    boxes: dict[str, list[ImportedBox]] = {key: [] for key in images}
    unsure: set[str] = set()
    for number, annotation in enumerate(entries(source, content, "annotations"), start=1):
        place = Place(source.name, number)
        owner = key_of(annotation.get("image_id"))
        image = plain(images[owner].name) if owner in images else ""
        try:
            xyxy = _xyxy(annotation.get("bbox"))
            segmentation = _segmentation(annotation.get("segmentation"))
            category, attributes = describe(annotation)
        except (ValueError, TypeError, OverflowError) as error:
            problems.append(Problem("malformed", place, image, f"annotation: {plain(str(error))}"))
            unsure.add(owner)
            continue
        if owner not in images:
            problems.append(Problem("image-without-file", place, "", "image_id of the annotation is of no image"))
        elif category is None:
            problems.append(Problem("unknown-class", place, image, "category_id is of no category of the file"))
            unsure.add(owner)
        else:
            boxes[owner].append(ImportedBox(category, xyxy, place, segmentation, attributes))
    found = [
        ImportedImage(image.name, image.place, boxes=tuple(boxes[key]), size=image.size, unsure=key in unsure)
        for key, image in images.items()
    ]
    return Imported(found, problems, classes)


def categories(source: Path, content: Mapping[str, Any], name: str) -> dict[str, str]:
    """Read a list of categories: name by id.

    Raises:
        MimError: There is no such list, or a category has no id or name.
    """
    found = {}
    for category in entries(source, content, name):
        key, own = key_of(category.get("id")), plain(category.get("name"))
        if not key or not own:
            raise MimError(f"{source}: a category without id or name under {name!r}: it is not a COCO file")
        found[key] = own
    return found


def entries(source: Path, content: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Take a list of objects.

    Raises:
        MimError: There is none of that name.
    """
    found = content.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise MimError(f"{source} has no list {name!r}: it is not a COCO file")
    return found


def key_of(identifier: object) -> str:
    """Make an id comparable: files mix 7 and "7"."""
    return plain(identifier)


def _images(source: Path, listed: list[dict[str, Any]], problems: list[Problem]) -> dict[str, ImportedImage]:
    images: dict[str, ImportedImage] = {}
    for number, entry in enumerate(listed, start=1):
        place = Place(source.name, number)
        key, name = key_of(entry.get("id")), entry.get("file_name")
        kind: ProblemKind = "malformed"
        if not key or not isinstance(name, str) or not name:
            problems.append(Problem(kind, place, "", "an image without id or file_name"))
        elif key in images:
            problems.append(Problem(kind, place, plain(name), "two images have this id"))
        else:
            images[key] = ImportedImage(name, place, size=_size(entry.get("width"), entry.get("height")))
    return images


def _size(width: object, height: object) -> tuple[int, int] | None:
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return width, height
    return None


def _xyxy(box: Any) -> Xyxy:
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError("no bbox of four numbers")
    left, top, width, height = _finite(box)
    return left, top, left + width, top + height


def _segmentation(written: Any) -> Any:
    """Polygons, or run lengths, as they are; whatever is neither raises ValueError."""
    if written is None or written == []:
        return None
    if isinstance(written, list):
        if not all(isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0 for part in written):
            raise ValueError("a polygon of less than three points")
        return [_finite(part) for part in written]
    counts = written.get("counts") if isinstance(written, dict) else None
    size = written.get("size") if isinstance(written, dict) else None
    whole = isinstance(counts, str) or (isinstance(counts, list) and all(isinstance(run, int) for run in counts))
    if not whole or not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) for side in size):
        raise ValueError("a segmentation that is neither polygons nor run lengths")
    return {"size": size, "counts": counts}


def _finite(numbers: list[Any]) -> list[float]:
    if any(isinstance(number, bool) or not isinstance(number, int | float) for number in numbers):
        raise ValueError("a coordinate that is no number")
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a coordinate that is not finite")
    return [float(number) for number in numbers]
