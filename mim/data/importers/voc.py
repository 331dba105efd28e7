"""Pascal VOC: an XML file for each image (Everingham et al., 2010), as labelImg, CVAT and Label Studio write it."""

import math
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from mim.data.importers.files import Films, list_files, read_text
from mim.data.importers.safe_xml import parse_xml
from mim.data.importers.types import Imported, ImportedBox, ImportedImage, Place, Problem, Xyxy, plain
from mim.errors import MimError


def read_voc(source: Path, films: Films, first_pixel: int = 0) -> Imported:
    """Read every XML file of a folder and of those in it. A file without objects: nothing was found on the image.

    Args:
        source: The folder.
        films: The images; where a file names none of them, the one with the file's own name is taken.
        first_pixel: What the first pixel is called. The original VOC counts from 1 and includes the last pixel;
            today's programs write corners from 0.

    Raises:
        MimError: The folder is missing or holds no XML.
    """
    images: list[ImportedImage] = []
    problems: list[Problem] = []
    for name, path in list_files(source, ".xml"):
        try:
            root = parse_xml(read_text(path))
            if root.tag != "annotation":
                raise ValueError("its root is not <annotation>")
        except (ValueError, MimError) as error:
            problems.append(Problem("malformed", Place(name), "", plain(str(error)).replace(str(path), name)))
            continue
        images.append(_image(name, root, films, first_pixel, problems))
    if not images and not problems:
        raise MimError(f"{source} holds no .xml file: is it the folder of the VOC annotations?")
    classes = tuple(sorted({box.category for image in images for box in image.boxes}))
    return Imported(images, problems, classes)


def _image(name: str, root: Element, films: Films, first_pixel: int, problems: list[Problem]) -> ImportedImage:
    written = plain((root.findtext("filename") or "").strip())
    image = films.find(written) or films.by_stem(name) or written or PurePosixPath(name).stem
    boxes = []
    unsure = False
    for number, entry in enumerate(root.findall("object"), start=1):
        place = Place(name, number)
        category = plain((entry.findtext("name") or "").strip())
        try:
            if not category:
                raise ValueError("no name")
            boxes.append(ImportedBox(category, _xyxy(entry.find("bndbox"), first_pixel), place))
        except ValueError as error:
            problems.append(Problem("malformed", place, image, f"object: {error}"))
            unsure = True
    return ImportedImage(image, Place(name), boxes=tuple(boxes), size=_size(root.find("size")), unsure=unsure)


def _xyxy(box: Element | None, first_pixel: int) -> Xyxy:
    if box is None:
        raise ValueError("no bndbox")
    left, top, right, bottom = (_number(box, name) for name in ("xmin", "ymin", "xmax", "ymax"))
    return left - first_pixel, top - first_pixel, right, bottom


def _number(parent: Element, name: str) -> float:
    try:
        number = float(parent.findtext(name) or "")
    except ValueError:
        raise ValueError(f"{name} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is not finite")
    return number


def _size(size: Element | None) -> tuple[int, int] | None:
    """The size written, or None: many programs leave 0 there."""
    if size is None:
        return None
    try:
        width, height = int(_number(size, "width")), int(_number(size, "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None
