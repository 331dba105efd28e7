"""Masks of several classes, each measured for itself on the same images.

Of one class `segmentation.csv` is the table of `mim.evaluation.segmentation_table`, and `segmentation_thresholds.csv`
that of `mim.evaluation.segmentation_threshold`. Of several both begin with a column more, `class`: all rows of the
first class, then all of the second, in the order of the classes.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from unicodedata import category

from mim.errors import MimError
from mim.evaluation.predictions import UNWRITABLE, read_table
from mim.evaluation.segmentation import Overlap
from mim.evaluation.segmentation_table import COLUMNS, SegmentedImages
from mim.evaluation.segmentation_threshold import PixelCounts
from mim.files import write_atomically

CLASS = "class"


@dataclass(frozen=True, eq=False)
class SegmentedClasses:
    """How well the masks of each class were drawn on the same images.

    Attributes:
        classes: Their names, each once.
        images: One table a class, of the same images in the same order.

    Raises:
        MimError: No class, one named twice or not on one line, or tables of different images.
    """

    classes: Sequence[str]
    images: Sequence[SegmentedImages]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "images", tuple(self.images))
        if not self.classes or len(self.classes) != len(self.images):
            raise MimError(f"segmentation: {len(self.classes)} classes and {len(self.images)} tables; give one of each")
        check_class_names(self.classes)
        for name, own in zip(self.classes[1:], self.images[1:], strict=True):
            if _identity(own) != _identity(self.images[0]):
                raise MimError(f"segmentation: class {name!r} is of other images than {self.classes[0]!r}")

    def __len__(self) -> int:
        return len(self.images[0])

    @property
    def image_id(self) -> Sequence[str]:
        """Names of the images."""
        return self.images[0].image_id

    @property
    def patient_id(self) -> Sequence[str]:
        """Whose image each is."""
        return self.images[0].patient_id

    @property
    def split(self) -> Sequence[str]:
        """The split of each image."""
        return self.images[0].split

    def of_image(self, place: int) -> tuple[Overlap, ...]:
        """What was measured on one image, by class."""
        return tuple(own.overlaps[place] for own in self.images)

    def of(self, split: str) -> Self:
        """Take the images of one split."""
        return type(self)(self.classes, [own.of(split) for own in self.images])

    def take(self, places: Sequence[int]) -> Self:
        """Take some images, in this order."""
        return type(self)(self.classes, [own.take(places) for own in self.images])

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back."""
        if len(self.classes) == 1:
            self.images[0].save(path)
            return
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        heading = list(dict.fromkeys(name for own in self.images for name in own.heading()))
        writer.writerow([CLASS, *heading])
        for name, own in zip(self.classes, self.images, strict=True):
            place = {column: number for number, column in enumerate(own.heading())}
            for row in own.rows():
                writer.writerow([name, *(row[place[column]] if column in place else "" for column in heading)])
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path, classes: Sequence[str]) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.
            classes: Which classes it is of, in their order.

        Raises:
            MimError: No such file, other columns or classes, or a row that is not valid.
        """
        if len(classes) == 1:
            return cls(classes, [SegmentedImages.load(path)])
        heading, rows = read_table(path, "a table of segmentations of several classes", (CLASS, *COLUMNS))
        if other := sorted({row[0] for row in rows} - set(classes)):
            raise MimError(f"{path}: class {other[0]!r} is none of {', '.join(classes)}")
        tables = []
        for name in classes:
            own = [(number, row[1:]) for number, row in enumerate(rows, 1) if row[0] == name]
            parts = [row for _, row in own], [number for number, _ in own]
            tables.append(SegmentedImages.parse(path, heading[1:], *parts))
        try:
            return cls(classes, tables)
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


def check_class_names(classes: Sequence[str]) -> None:
    """Refuse names that a table cannot hold.

    Raises:
        MimError: One is empty, not on one line, or there twice.
    """
    for place, name in enumerate(classes):
        if not name or any(category(sign) in UNWRITABLE for sign in name) or name in classes[:place]:
            raise MimError(f"segmentation: class {name!r}: give each class a name of its own on one line")


def save_thresholds(path: Path, classes: Sequence[str], counts: Sequence[PixelCounts]) -> None:
    """Write what the thresholds were chosen from."""
    if len(classes) == 1:
        counts[0].save(path)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([CLASS, *PixelCounts.heading()])
    for name, own in zip(classes, counts, strict=True):
        writer.writerows([name, *row] for row in own.rows())
    write_atomically(path, text.getvalue())


def _identity(images: SegmentedImages) -> list[tuple[str, str, str]]:
    return list(zip(images.image_id, images.patient_id, images.split, strict=True))
