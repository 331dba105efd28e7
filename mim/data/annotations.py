"""Lesions of a COCO file, joined to the films of a prepared dataset."""

import difflib
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mim.data.grades import order_grades
from mim.data.importers.coco import categories as read_categories
from mim.data.importers.coco import key_of, parse_coco
from mim.data.importers.files import read_json
from mim.data.importers.types import ImportedBox, ImportedImage, plain
from mim.data.manifest import ManifestRow
from mim.data.matching import FilmFinder, locate
from mim.data.outlines import Outline, Shares, fill_box, outline_area, parse_outline
from mim.data.radiograph import MAX_PIXELS
from mim.data.regions import Box, map_box
from mim.data.store import PreparedDataset
from mim.errors import MimError

logger = logging.getLogger(__name__)

_UNNAMED = "lesion"  # the category of a file that names none
_GRADE_NAMES = ("grade", "severity", "icdas")
_TOOTH_NAMES = ("tooth", "tooth_fdi", "fdi", "tooth_number")
_SETTING = "(data.boxes)"


@dataclass(frozen=True, slots=True)
class Lesion:
    """One annotation, where it lies on a stored film: on the whole film, or on the part of it that is stored.

    Attributes:
        box: x1, y1, x2, y2 as shares of the width and height of the stored film, cut at its border.
        category: Name of its class.
        label: Place of that class in `Annotations.categories`.
        grade: How severe it is, as the file says (attribute grade, severity or icdas); empty where it does not.
        severity: Place of the grade in `Annotations.grades`, 0 = the mildest; None where grade or order is not known.
        tooth: Number of the tooth, as the file says (attribute tooth, tooth_fdi, fdi or tooth_number); else empty.
        area: In pixels of the whole film before it was reduced: of the outline where there is one, else of the box;
            that of a lesion that reaches beyond a part is of the whole lesion.
        outline: Its polygons or run lengths; None where only the box is known.
    """

    box: Box
    category: str
    label: int
    grade: str
    severity: int | None
    tooth: str
    area: float
    outline: Outline | None

    def draw(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Give the pixels of the lesion at a size (height, width) of the stored film: (height, width) bool."""
        return draw_lesions((self,), size)


@dataclass(frozen=True, slots=True)
class Annotations:
    """The lesions on the films of a dataset.

    Attributes:
        path: The COCO file.
        lesions: By the film's number in the dataset; a film that is not there has none.
        categories: Classes that lesions may be of, in the order of the file.
        grades: Grades in their order, the mildest first; empty where the order is not known.
    """

    path: Path
    lesions: Mapping[int, tuple[Lesion, ...]]
    categories: tuple[str, ...]
    grades: tuple[str, ...]

    def of(self, film: int) -> tuple[Lesion, ...]:
        """Give the lesions of a film by its number in the dataset."""
        return self.lesions.get(film, ())


def draw_lesions(lesions: Iterable[Lesion], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw lesions together: their outlines, or filled boxes where there is none.

    A lesion that is smaller than a pixel keeps the pixel that holds most of it.

    Args:
        lesions: Of one film.
        size: (height, width) of the stored film in pixels, at any scale.

    Returns:
        (height, width), True where there is a lesion.
    """
    canvas = np.zeros(size, np.bool_)
    for lesion in lesions:
        if lesion.outline is None:
            fill_box(canvas, lesion.box)
        else:
            lesion.outline.draw_on(canvas)
    return canvas


def read_annotations(
    dataset: PreparedDataset,
    source: Path,
    coco: str,
    categories: Sequence[str] | None = None,
    grades: Sequence[str] | None = None,
) -> Annotations:
    """Read the boxes of a COCO file, with their polygons or run lengths, classes, grades and teeth.

    Boxes count pixels of the whole film; where the file says that its image has another size, they are scaled to the
    film. Those that reach beyond it are cut at its border, with a warning where it is by more than a pixel. Those that
    hardly touch a stored part of a film are left out of it (`mim.data.regions.map_box`).

    Args:
        dataset: The films.
        source: The folder of films (data.path).
        coco: The file, relative to `source`.
        categories: Which classes are wanted; None = all of the file.
        grades: The order of grades, the mildest first; None = as `mim.data.grades.order_grades` finds it.

    Raises:
        MimError: The file cannot be read or is not COCO, an annotation is malformed or lies outside its image, a
            wanted class or a found grade is not known, or no image of the file is in the dataset.
    """
    path = locate(dataset, source, coco)
    images, classes = _read(path)
    if categories is not None:
        classes = _choose(path, classes, categories)
    finder = FilmFinder(dataset, source, path)
    found: dict[int, list[Lesion]] = defaultdict(list)
    absent = scaled = 0
    cut: list[int | None] = []
    for image in images:
        films = finder.find(image.name)
        absent += not films
        scaled += any(image.size is not None and image.size != _size(dataset.rows[film]) for film in films)
        for box in image.boxes:
            if box.category not in classes:
                continue
            if films and _reaches_out(box, image.size or _size(dataset.rows[films[0]])):
                cut.append(box.place.row)
            for film in films:
                lesion = _place(path, box, image, dataset.rows[film], classes.index(box.category))
                if lesion is not None:
                    found[film].append(lesion)
    _tell(path, len(images), absent, scaled)
    if cut:
        logger.warning(
            "%s: %d boxes reach beyond their film by more than a pixel and are cut at its border (the first is "
            "annotation %s); were they drawn at another size? python -m mim.data.import_labels lists them",
            *(path, len(cut), cut[0]),
        )
    order = _order(path, found, grades)
    places = {grade: place for place, grade in enumerate(order)}
    graded = {
        film: tuple(replace(lesion, severity=places.get(lesion.grade)) for lesion in lesions)
        for film, lesions in found.items()
    }
    return Annotations(path, graded, classes, order)


def _read(path: Path) -> tuple[Sequence[ImportedImage], tuple[str, ...]]:
    """Images with their boxes, and all classes, of a file in which everything is as it should be."""
    try:
        content = read_json(path)
        names = read_categories(path, content, "categories") if "categories" in content else {}

        def describe(annotation: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
            known = names.get(key_of(annotation.get("category_id"))) if names else _UNNAMED
            return known, _attributes(annotation.get("attributes"))

        read = parse_coco(path, content, describe, ())
    except MimError as error:
        raise MimError(f"{error} {_SETTING}") from error
    if read.problems:
        first = read.problems[0]
        raise MimError(
            f"{path}, entry {first.place.row}: {first.detail} {_SETTING}; python -m mim.data.import_labels lists all "
            "that is wrong with a file"
        )
    return read.images, tuple(dict.fromkeys(names.values())) or (_UNNAMED,)


def _attributes(written: object) -> dict[str, str]:
    """Attributes that are texts or whole numbers, by their names in small letters."""
    if not isinstance(written, dict):
        return {}
    return {str(name).casefold(): plain(value) for name, value in written.items() if plain(value)}


def _choose(path: Path, classes: tuple[str, ...], wanted: Sequence[str]) -> tuple[str, ...]:
    for name in wanted:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(classes)}"
            raise MimError(f"{path} has no category {name!r} (data.lesion_categories): {hint}")
    if not wanted:
        raise MimError(f"data.lesion_categories is empty: name categories of {path}, or give null for all of them")
    return tuple(dict.fromkeys(wanted))


def _reaches_out(box: ImportedBox, size: tuple[int, int]) -> bool:
    """Whether a box ends beyond an image, width and height, by more than the pixel that rounding may cost."""
    x1, y1, x2, y2 = box.xyxy
    return min(x1, y1) < -1 or x2 > size[0] + 1 or y2 > size[1] + 1


def _place(path: Path, box: ImportedBox, image: ImportedImage, row: ManifestRow, label: int) -> Lesion | None:
    """Carry an annotation over to a stored film; None where it hardly touches it."""
    film = _size(row)
    size = image.size or film
    scale = (film[0] / size[0], film[1] / size[1])
    left, right = (min(max(side, 0.0), float(size[0])) * scale[0] for side in box.xyxy[::2])
    top, bottom = (min(max(side, 0.0), float(size[1])) * scale[1] for side in box.xyxy[1::2])
    where = f"{path}, annotation {box.place.row}"
    if left >= right or top >= bottom:
        raise MimError(f"{where}: its bbox has no area within its image {_SETTING}")
    part = map_box((left, top, right, bottom), row.crop)
    if part is None:
        return None
    wide, high = film if row.crop is None else (row.crop.width, row.crop.height)
    try:
        if size[0] * size[1] > MAX_PIXELS:
            raise ValueError(f"an image of more than {MAX_PIXELS:,} pixels")
        outline = parse_outline(box.segmentation, size, _stored_part(row))
    except (ValueError, OverflowError) as error:
        raise MimError(f"{where}: {error} {_SETTING}") from error
    area = (right - left) * (bottom - top) if outline is None else outline_area(outline, (wide, high))
    return Lesion(
        box=(part[0] / wide, part[1] / high, part[2] / wide, part[3] / high),
        category=box.category,
        label=label,
        grade=_first(box.attributes, _GRADE_NAMES),
        severity=None,
        tooth=_first(box.attributes, _TOOTH_NAMES),
        area=area,
        outline=outline,
    )


def _size(row: ManifestRow) -> tuple[int, int]:
    return row.width, row.height


def _stored_part(row: ManifestRow) -> Shares:
    """The part of a film that is stored, as shares of the whole film."""
    if row.crop is None:
        return 0.0, 0.0, 1.0, 1.0
    left, top, right, bottom = row.crop
    return left / row.width, top / row.height, right / row.width, bottom / row.height


def _first(attributes: Mapping[str, str], names: Sequence[str]) -> str:
    return next((attributes[name] for name in names if name in attributes), "")


def _order(path: Path, found: Mapping[int, Sequence[Lesion]], given: Sequence[str] | None) -> tuple[str, ...]:
    try:
        return order_grades((lesion.grade for lesions in found.values() for lesion in lesions), given)
    except ValueError as error:
        raise MimError(f"{path}: {error} (data.grades)") from error


def _tell(path: Path, images: int, absent: int, scaled: int) -> None:
    if images and absent == images:
        raise MimError(f"{path}: none of its {images} images is a film of the dataset {_SETTING}")
    if absent:
        logger.info("%s: %d of its %d images are not in the dataset", path, absent, images)
    if scaled:
        logger.warning(
            "%s: %d images have another size there than the films: what is annotated was scaled to the films",
            *(path, scaled),
        )
