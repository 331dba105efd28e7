"""The table that all figures of a segmenter are computed from: a row an image, and below it a row a lesion.

`segmentation.csv` has the columns `image_id`, `patient_id` (salted hash), `split` ("val" or "test"), `lesion` (empty =
the row is of the image; else the number of the lesion in it, from 1), `area` (pixels of the truth), `drawn` (pixels
drawn; of a lesion: those of the drawn parts that touch it), `both` (pixels of both), `dice`, `surface` (empty = left
out of the mean), `false_parts`, `false_area` (drawn parts that touch no lesion, and their pixels; of images), and
`keep_rate` (share of the cells seen; of images), in this order. Any further columns hold text to divide the lesions
by, such as grade or tooth.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
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

    Raises:
        MimError: Columns of different lengths, an unknown split, or an image named twice.
    """

    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    overlaps: Sequence[Overlap]
    keep_rate: Sequence[float]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

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

    def __len__(self) -> int:
        return len(self.image_id)

    def of(self, split: str) -> Self:
        """Take the images of one split."""
        images = [place for place, name in enumerate(self.split) if name == split]
        kept = set(images)
        lesions = [place in kept for place, own in enumerate(self.overlaps) for _ in own.lesions]
        columns = {
            name: [value for value, keep in zip(values, lesions, strict=True) if keep]
            for name, values in self.columns.items()
        }
        return type(self)(
            [self.image_id[place] for place in images],
            [self.patient_id[place] for place in images],
            [self.split[place] for place in images],
            [self.overlaps[place] for place in images],
            [self.keep_rate[place] for place in images],
            columns,
        )

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS, *self.columns])
        place = 0
        for image, patient, split, own, keep in zip(
            self.image_id, self.patient_id, self.split, self.overlaps, self.keep_rate, strict=True
        ):
            counts = (own.area, own.drawn, own.both, _text(own.dice), _text(own.surface))
            named = (image, patient, split)
            nothing = ("",) * len(self.columns)
            writer.writerow((*named, "", *counts, own.false_parts, own.false_area, repr(float(keep)), *nothing))
            for number, lesion in enumerate(own.lesions, 1):
                counts = (lesion.area, lesion.drawn, lesion.both, _text(lesion.dice), _text(lesion.surface))
                further = (values[place] for values in self.columns.values())
                writer.writerow((*named, number, *counts, "", "", "", *further))
                place += 1
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        heading, rows = read_table(path, "a table of segmentations", COLUMNS)
        images: list[_Row] = []
        further: list[list[str]] = []
        for number, row in enumerate(rows, 1):
            try:
                if row[3] == "":
                    images.append(_Row.parse(row))
                    continue
                if not images or images[-1].names != tuple(row[:3]) or int(row[3]) != len(images[-1].lesions) + 1:
                    raise ValueError("lesions must stand below their image, counted from 1")
                area, drawn, both = map(int, row[4:7])
                images[-1].lesions.append(LesionOverlap(_number(row[7]), _number(row[8]), area, drawn, both))
                further.append(row[12:])
            except ValueError as error:
                raise MimError(f"{path}: row {number} (image {row[0]!r}): {error}") from error
        try:
            return cls(
                image_id=[image.names[0] for image in images],
                patient_id=[image.names[1] for image in images],
                split=[image.names[2] for image in images],
                overlaps=[image.overlap() for image in images],
                keep_rate=[image.keep_rate for image in images],
                columns={name: [row[place] for row in further] for place, name in enumerate(heading[len(COLUMNS) :])},
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
