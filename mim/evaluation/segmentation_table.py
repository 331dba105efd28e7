"""The table that all figures of a segmenter are computed from: a row an image, and below it a row a lesion.

`segmentation.csv` has the columns `image_id`, `patient_id` (salted hash), `split` ("val" or "test"), `lesion` (empty =
the row is of the image; else the number of the lesion in it, from 1), `area` (pixels of the truth), `drawn` (pixels
drawn; of a lesion: those of the drawn parts that touch it), `both` (pixels of both), `dice`, `surface` (empty = left
out of the mean), `false_parts`, `false_area` (drawn parts that touch no lesion, and their pixels; of images), and
`keep_rate` (share of the cells seen; of images), in this order. Any further columns hold text to divide by: of the
lesions, such as grade or tooth, empty in the rows of images; or of the images, such as site, repeated by their lesions.
Several classes are several such tables in one file (`mim.evaluation.segmentation_classes`).
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from mim.errors import MimError
from mim.evaluation.predictions import SPLITS, check_columns, read_table
from mim.evaluation.segmentation import LesionOverlap, Overlap
from mim.files import write_atomically

COLUMNS = (
    *("image_id", "patient_id", "split", "lesion", "area", "drawn", "both"),
    *("dice", "surface", "false_parts", "false_area", "keep_rate"),
)


@dataclass(frozen=True, eq=False)
class SegmentedImages:
    """How well the masks of M images were drawn, K lesions in all.

    Attributes:
        image_id: (M,) names, each once.
        patient_id: (M,) salted hash of whose image it is.
        split: (M,) "val" or "test".
        overlaps: (M,)
        keep_rate: (M,) share of the cells the encoder saw.
        columns: Further columns of text, each (K,), in the order of the images and of their lesions; "" = not known.
        image_columns: Further columns of text, each (M,); "" = not known.

    Raises:
        MimError: Columns of different lengths or of one name, an unknown split, or an image named twice.
    """

    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    overlaps: Sequence[Overlap]
    keep_rate: Sequence[float]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    image_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("image_id", "patient_id", "split", "overlaps", "keep_rate"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if len(getattr(self, name)) != len(self.image_id):
                raise MimError(f"segmentation: column {name} must have one value an image")
        if len(set(self.image_id)) < len(self.image_id):
            raise MimError("segmentation: an image is named twice; give each one once, with all its lesions")
        if wrong := [name for name in self.split if name not in SPLITS]:
            raise MimError(f"segmentation: split {wrong[0]!r} must be val or test")
        lesions = sum(len(own.lesions) for own in self.overlaps)
        object.__setattr__(self, "columns", check_columns(self.columns, lesions, COLUMNS, "segmentation"))
        taken = (*COLUMNS, *self.columns)
        of_images = check_columns(self.image_columns, len(self.image_id), taken, "segmentation")
        object.__setattr__(self, "image_columns", of_images)

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def lesion_columns(self) -> dict[str, tuple[str, ...]]:
        """All further columns as the lesions have them, each (K,): their own, and those of their images."""
        counts = [len(own.lesions) for own in self.overlaps]
        repeated = {
            name: tuple(value for value, count in zip(values, counts, strict=True) for _ in range(count))
            for name, values in self.image_columns.items()
        }
        return {**{name: tuple(values) for name, values in self.columns.items()}, **repeated}

    def of(self, split: str) -> Self:
        """Take the images of one split."""
        return self.take([place for place, name in enumerate(self.split) if name == split])

    def take(self, places: Sequence[int]) -> Self:
        """Take some images, in this order, with their lesions."""
        first = [0]
        for own in self.overlaps:
            first.append(first[-1] + len(own.lesions))
        lesions = [lesion for place in places for lesion in range(first[place], first[place + 1])]
        return type(self)(
            [self.image_id[place] for place in places],
            [self.patient_id[place] for place in places],
            [self.split[place] for place in places],
            [self.overlaps[place] for place in places],
            [self.keep_rate[place] for place in places],
            {name: [values[lesion] for lesion in lesions] for name, values in self.columns.items()},
            {name: [values[place] for place in places] for name, values in self.image_columns.items()},
        )

    def heading(self) -> list[str]:
        """The names of the columns of the table."""
        return [*COLUMNS, *self.columns, *self.image_columns]

    def rows(self) -> Iterator[list[object]]:
        """The rows of the table: of each image, and below it of its lesions."""
        of_lesions, lesion = list(self.columns.values()), 0
        for place, own in enumerate(self.overlaps):
            named = (self.image_id[place], self.patient_id[place], self.split[place])
            told = [values[place] for values in self.image_columns.values()]
            counts = (own.area, own.drawn, own.both, _text(own.dice), _text(own.surface))
            wrong = (own.false_parts, own.false_area, repr(float(self.keep_rate[place])))
            yield [*named, "", *counts, *wrong, *("" for _ in of_lesions), *told]
            for number, part in enumerate(own.lesions, 1):
                counts = (part.area, part.drawn, part.both, _text(part.dice), _text(part.surface))
                yield [*named, number, *counts, "", "", "", *(values[lesion] for values in of_lesions), *told]
                lesion += 1

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.heading())
        writer.writerows(self.rows())
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        heading, rows = read_table(path, "a table of segmentations", COLUMNS)
        return cls.parse(path, heading, rows, range(1, len(rows) + 1))

    @classmethod
    def parse(cls, path: Path, heading: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> Self:
        """Understand rows of a table.

        Args:
            path: The file, for messages.
            heading: Its columns, beginning with `COLUMNS`.
            rows: Of the table, with as many cells each.
            numbers: Which rows of the file they are.

        Raises:
            MimError: A row that is not valid; the message names file and row.
        """
        images: list[_Row] = []
        of_lesions: list[Sequence[str]] = []
        of_images: list[Sequence[str]] = []
        for number, row in zip(numbers, rows, strict=True):
            try:
                if row[3] == "":
                    images.append(_Row.parse(row))
                    of_images.append(row[12:])
                    continue
                if not images or images[-1].names != tuple(row[:3]) or int(row[3]) != len(images[-1].lesions) + 1:
                    raise ValueError("lesions must stand below their image, counted from 1")
                area, drawn, both = map(int, row[4:7])
                images[-1].lesions.append(LesionOverlap(_number(row[7]), _number(row[8]), area, drawn, both))
                of_lesions.append(row[12:])
            except ValueError as error:
                raise MimError(f"{path}: row {number} (image {row[0]!r}): {error}") from error
        further = list(enumerate(heading[len(COLUMNS) :]))
        told = {name for place, name in further if any(row[place] for row in of_images)}
        try:
            return cls(
                image_id=[image.names[0] for image in images],
                patient_id=[image.names[1] for image in images],
                split=[image.names[2] for image in images],
                overlaps=[image.overlap() for image in images],
                keep_rate=[image.keep_rate for image in images],
                columns={name: [row[place] for row in of_lesions] for place, name in further if name not in told},
                image_columns={name: [row[place] for row in of_images] for place, name in further if name in told},
            )
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


@dataclass(frozen=True, eq=False)
class _Row:
    """The row of an image, and the lesions below it."""

    names: tuple[str, str, str]
    dice: float
    surface: float
    counts: tuple[int, int, int, int, int]  # area, drawn, both, false parts, false area
    keep_rate: float
    lesions: list[LesionOverlap] = field(default_factory=list)

    @classmethod
    def parse(cls, row: Sequence[str]) -> Self:
        area, drawn, both, false_parts, false_area = map(int, (*row[4:7], *row[9:11]))
        counts = (area, drawn, both, false_parts, false_area)
        return cls((row[0], row[1], row[2]), _number(row[7]), _number(row[8]), counts, float(row[11]))

    def overlap(self) -> Overlap:
        return Overlap(self.dice, self.surface, tuple(self.lesions), *self.counts)


def _text(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


def _number(text: str) -> float:
    return float(text) if text else math.nan
