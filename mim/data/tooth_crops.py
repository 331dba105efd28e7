"""Teeth as films of their own: the parts of films around tooth boxes, as views of the stored pixels."""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mim.data.annotations import Annotations, read_annotations
from mim.data.labels import LabelledFilms
from mim.data.manifest import ManifestRow
from mim.data.matching import locate
from mim.data.regions import Rectangle, whole
from mim.data.store import Film, FilmLevels, PreparedDataset
from mim.data.tables import read_table
from mim.errors import MimError

logger = logging.getLogger(__name__)

CLASSES = ("no lesion", "lesion")  # of a tooth, where lesions say it
COLUMN = "tooth"  # of a CSV of labels


class ToothCrops(PreparedDataset):
    """A prepared dataset whose films are teeth: no pixel is copied, a tooth is cut out of its film when it is read.

    A row of the manifest is that of the film, with the tooth as its `crop`; `image_id` is that of the film, a hyphen
    and the tooth.

    Args:
        films: The prepared dataset.
        film: (N,) Which of its films each tooth is on, in ascending order.
        part: (N, 4) left, top, right and bottom of each in pixels of the stored film, even where they begin.
        box: (N, 4) x1, y1, x2, y2 of each tooth itself, as shares of the stored film.
        names: (N,) What each tooth is called, once on a film.
    """

    def __init__(
        self,
        films: PreparedDataset,
        film: NDArray[np.int64],
        part: NDArray[np.int64],
        box: NDArray[np.float64],
        names: Sequence[str],
    ) -> None:
        self.films = films
        self.film = film
        self.part = part
        self.box = box
        self.names = tuple(names)
        for name in ("path", "report", "long_side", "bits", "source", "salt_check"):
            setattr(self, name, getattr(films, name))
        self.rows = _ToothRows(self)

    def __len__(self) -> int:
        return len(self.film)

    def __reduce__(self) -> tuple[Any, ...]:
        return ToothCrops, (self.films, self.film, self.part, self.box, self.names)

    def image(self, number: int) -> Film:
        """Return a tooth at its full stored size."""
        return self.levels(number).full

    def levels(self, number: int) -> FilmLevels:
        """Return a tooth at both stored sizes."""
        full, half = self.films.levels(self.film.item(number))
        left, top, right, bottom = self.part[number].tolist()
        small = half[top // 2 : (bottom + 1) // 2, left // 2 : (right + 1) // 2]
        return FilmLevels(full[top:bottom, left:right], small)

    def meant(self, numbers: Sequence[int], cells: Mapping[str, str]) -> tuple[int, ...]:
        """Which of the teeth of a film the row of a CSV means: that under `tooth`; all where it says none."""
        tooth = cells.get(COLUMN, "")
        return tuple(number for number in numbers if not tooth or self.names[number] == tooth)


class _ToothRows(Sequence[ManifestRow]):
    """Rows of teeth, each made when it is asked for."""

    def __init__(self, teeth: ToothCrops) -> None:
        self._teeth = teeth

    def __len__(self) -> int:
        return len(self._teeth)

    @overload
    def __getitem__(self, number: int) -> ManifestRow: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[ManifestRow, ...]: ...

    def __getitem__(self, number: int | slice) -> ManifestRow | tuple[ManifestRow, ...]:
        if isinstance(number, slice):
            return tuple(self[one] for one in range(*number.indices(len(self))))
        position = range(len(self))[number]
        return self._make(self._teeth.films.rows[self._teeth.film.item(position)], position)

    def __iter__(self) -> Iterator[ManifestRow]:
        row, met = None, -1
        for position, film in enumerate(self._teeth.film.tolist()):
            if row is None or film != met:
                row, met = self._teeth.films.rows[film], film
            yield self._make(row, position)

    def _make(self, row: ManifestRow, position: int) -> ManifestRow:
        teeth = self._teeth
        sides = teeth.part[position].tolist()
        high, wide = teeth.films.image(teeth.film.item(position)).shape
        stored = whole(row.height, row.width) if row.crop is None else row.crop
        across, down = stored.width / wide, stored.height / high
        crop = Rectangle(
            *(
                start + round(side * scale)
                for side, start, scale in zip(sides, (stored.left, stored.top) * 2, (across, down) * 2, strict=True)
            )
        )
        content = hashlib.sha256(f"{row.sha256} {sides}".encode()).hexdigest()
        return replace(row, image_id=f"{row.image_id}-{teeth.names[position]}", sha256=content, crop=crop)


def crop_teeth(films: PreparedDataset, source: Path, coco: str, margin: float) -> ToothCrops:
    """Make films of the teeth that a COCO file has boxes of.

    A tooth is called by the box's attribute `tooth` (or `tooth_fdi`, `fdi`, `tooth_number`), else by its category. A
    second box of a tooth on a film is called `<tooth>.2`. Films without a box are left out.

    Args:
        films: The prepared dataset.
        source: The folder of films (data.path).
        coco: The file, relative to `source`.
        margin: What is taken around a box on each side, as a share of its width and height.

    Raises:
        MimError: The file cannot be used, or has no box on any film.
    """
    try:
        boxes = read_annotations(films, source, coco)
    except MimError as error:
        raise MimError(str(error).replace("(data.boxes)", "(data.crops)")) from error
    film, part, box, names = [], [], [], []
    for number in sorted(boxes.lesions):
        met: dict[str, int] = {}
        for tooth in boxes.of(number):
            name = tooth.tooth or tooth.category
            met[name] = met.get(name, 0) + 1
            film.append(number)
            part.append(_around(tooth.box, films.image(number).shape, margin))
            box.append(tooth.box)
            names.append(name if met[name] == 1 else f"{name}.{met[name]}")
    if not film:
        raise MimError(f"{boxes.path}: it has no box on any film (data.crops)")
    without = len(films) - len(set(film))
    logger.info("%s: %d teeth on %d films; %d films without", boxes.path, len(film), len(set(film)), without)
    return ToothCrops(films, np.array(film), np.array(part), np.array(box), names)


def check_tooth_column(teeth: ToothCrops, source: Path, labels_csv: str) -> None:
    """Refuse a CSV whose labels are of whole films.

    Raises:
        MimError: It has no column `tooth`, or cannot be read.
    """
    path = locate(teeth, source, labels_csv)
    if path.is_file() and COLUMN not in read_table(path).columns:
        raise MimError(
            f"{path}: data.target labels teeth where data.crops is set, and there is no column {COLUMN!r}: add one, or "
            "leave data.target out and give data.boxes"
        )


def label_by_lesions(
    teeth: ToothCrops, labelled: LabelledFilms, lesions: Annotations, *, both: bool = True
) -> LabelledFilms:
    """Label teeth by whether the middle of any lesion lies in their box.

    Args:
        teeth: The teeth.
        labelled: Whose they are.
        lesions: What is annotated on the films that the teeth are on.
        both: Whether there must be teeth of both classes, as for training.

    Raises:
        MimError: All teeth are of one class, and both are needed.
    """

    def bears(number: int) -> bool:
        x1, y1, x2, y2 = teeth.box[number].tolist()
        middles = [
            ((lesion.box[0] + lesion.box[2]) / 2, (lesion.box[1] + lesion.box[3]) / 2)
            for lesion in lesions.of(teeth.film.item(number))
        ]
        return any(x1 <= x < x2 and y1 <= y < y2 for x, y in middles)

    films = tuple(replace(film, label=int(bears(film.index))) for film in labelled.films)
    found = {film.label for film in films}
    if both and len(found) == 1:
        which = "every" if found == {1} else "no"
        raise MimError(f"{lesions.path}: {which} tooth of data.crops has a lesion (data.boxes): two classes are needed")
    return replace(labelled, films=films, classes=CLASSES, target=CLASSES[1])


def _around(box: Sequence[float], size: tuple[int, ...], margin: float) -> list[int]:
    """A box with its margin in pixels of the stored film, within it, from even to even pixels."""
    height, width = size
    wide, high = (box[2] - box[0]) * width * margin, (box[3] - box[1]) * height * margin
    starts = ((box[0] * width - wide, width), (box[1] * height - high, height))
    left, top = (int(min(max(0.0, start), side - 1)) // 2 * 2 for start, side in starts)
    right, bottom = (-(-side // 2) * 2 for side in (box[2] * width + wide, box[3] * height + high))
    return [left, top, min(width, max(left + 1, int(right))), min(height, max(top + 1, int(bottom)))]
