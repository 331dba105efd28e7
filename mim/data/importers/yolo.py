"""YOLO: a text file for each image, a line for each box: class, centre, width and height as shares of the image."""

import math
from pathlib import Path, PurePosixPath

from mim.data.importers.files import SPLIT_FOLDERS, Films, list_files, read_names, read_text, read_yaml
from mim.data.importers.types import Imported, ImportedBox, ImportedImage, Place, Problem, Xyxy, plain
from mim.errors import MimError

_NOT_LABELS = {"classes", "names", "labels", "train", "val", "valid", "test", "readme", "requirements"}
_FOLDERS = {"images", "labels", "obj_train_data", "obj_valid_data", "obj_test_data"}


def read_yolo(source: Path, films: Films, classes: Path | None = None) -> Imported:
    """Read every text file of a folder and of those in it, but those with names of classes and lists of images.

    A line is `class x y width height`, or `class x1 y1 x2 y2 x3 y3 ...` for a polygon. An empty file: nothing was
    found on the image. Folders `images` and `labels` may stand beside each other; a folder train, val or test is the
    split.

    Args:
        source: The folder.
        films: The images.
        classes: Names of the classes, one a line, or data.yaml; None: data.yaml, classes.txt or obj.names in `source`.

    Raises:
        MimError: The folder is missing or holds no labels, or nothing names the classes.
    """
    names = _class_names(source, classes)
    by_path = {_bare(name): name for name in films.names}
    images: list[ImportedImage] = []
    problems: list[Problem] = []
    for name, path in list_files(source, ".txt"):
        if PurePosixPath(name).stem.lower() in _NOT_LABELS:
            continue
        image = by_path.get(_bare(name)) or films.by_stem(name)
        if image is None:
            problems.append(Problem("image-without-file", Place(name), "", "no image has the name of this file"))
            continue
        images.append(_image(name, path, image, films, names, problems))
    if not images and not problems:
        raise MimError(f"{source} holds no .txt file with labels: is it the folder of the YOLO annotations?")
    return Imported(images, problems, tuple(names.values()))


def _image(
    name: str, path: Path, image: str, films: Films, names: dict[int, str], problems: list[Problem]
) -> ImportedImage:
    parts = (*PurePosixPath(name).parts[:-1], *PurePosixPath(image).parts[:-1])
    split = next((SPLIT_FOLDERS[part] for part in parts if part in SPLIT_FOLDERS), "")
    size = films.size(image)
    boxes: list[ImportedBox] = []
    unsure = False
    try:
        lines = read_text(path).splitlines()
    except MimError as error:
        problems.append(Problem("malformed", Place(name), image, plain(str(error)).replace(str(path), name)))
        return ImportedImage(image, Place(name), split=split, unsure=True)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = Place(name, number)
        try:
            index, numbers = _parse(line)
        except ValueError as error:
            problems.append(Problem("malformed", place, image, str(error)))
            unsure = True
            continue
        if index not in names:
            problems.append(Problem("unknown-class", place, image, f"class {index} of {len(names)} (the first is 0)"))
            unsure = True
        elif size is not None:
            boxes.append(_box(names[index], numbers, size, place))
    return ImportedImage(image, Place(name), boxes=tuple(boxes), split=split, unsure=unsure or size is None)


def _parse(line: str) -> tuple[int, list[float]]:
    words = line.split()
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise ValueError(f"{len(words)} numbers: neither a box (5) nor a polygon (an odd number from 7)")
    if not (words[0].isascii() and words[0].isdigit() and len(words[0]) < 10):
        raise ValueError("the class is no number")
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError("a coordinate is no number") from None
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a coordinate is not finite")
    return int(words[0]), numbers


def _box(category: str, numbers: list[float], size: tuple[int, int], place: Place) -> ImportedBox:
    wide, high = size
    if len(numbers) == 4:
        x, y, width, height = numbers
        xyxy: Xyxy = (
            (x - width / 2) * wide,
            (y - height / 2) * high,
            (x + width / 2) * wide,
            (y + height / 2) * high,
        )
        return ImportedBox(category, xyxy, place)
    across, down = [x * wide for x in numbers[::2]], [y * high for y in numbers[1::2]]
    polygon = [value for point in zip(across, down, strict=True) for value in point]
    return ImportedBox(category, (min(across), min(down), max(across), max(down)), place, [polygon])


def _class_names(source: Path, given: Path | None) -> dict[int, str]:
    usual = ("data.yaml", "dataset.yaml", "classes.txt", "obj.names")
    path = given or next((source / name for name in usual if (source / name).is_file()), None)
    if path is None:
        raise MimError(f"{source} has none of {', '.join(usual)}: give the names of the classes with --classes FILE")
    listed: object = (
        read_yaml(path).get("names") if path.suffix.lower() in (".yaml", ".yml") else list(read_names(path))
    )
    if isinstance(listed, list):
        listed = dict(enumerate(listed))
    if not isinstance(listed, dict) or not listed:
        raise MimError(f"{path} names no classes (a list or a mapping under names, or one name a line)")
    names = {key: plain(name) for key, name in listed.items() if isinstance(key, int)}
    if len(names) != len(listed) or not all(names.values()):
        raise MimError(f"{path}: classes must be numbered from 0 and have names")
    return names


def _bare(name: str) -> tuple[str, ...]:
    """A path without its extension and without the folders that tell images from labels."""
    path = PurePosixPath(name)
    return (*(part for part in path.parts[:-1] if part not in _FOLDERS), path.stem)
