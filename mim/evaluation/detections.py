"""The tables that all figures of a detector are computed from: what was found, and what is there.

`detections.csv` has the columns `image_id`, `patient_id` (salted hash), `split` ("val" or "test"), `x1`, `y1`, `x2`,
`y2` (pixels of the image, x2 and y2 just outside), `score` and `label`. An image in which nothing was found has one row
with the last six empty: every image that was searched stands in the table, with lesions or without.

`lesions.csv` has the columns `image_id`, `x1`, `y1`, `x2`, `y2` and `label`; any further columns hold text to divide
the lesions by, such as severity or tooth.
"""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers
from mim.evaluation.predictions import SPLITS, check_columns, read_table
from mim.files import write_atomically

DETECTION_COLUMNS = ("image_id", "patient_id", "split", "x1", "y1", "x2", "y2", "score", "label")
LESION_COLUMNS = ("image_id", "x1", "y1", "x2", "y2", "label")


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in M images: N boxes.

    Attributes:
        image_id: (M,) names of all images that were searched, each once.
        patient_id: (M,) salted hash of whose image it is.
        split: (M,) "val" or "test".
        image: (N,) int64, place of each box's image among the images.
        boxes: (N, 4) float64, xyxy in pixels of the image.
        score: (N,) float64; NaN = no score.
        label: (N,) name of each box's class.

    Raises:
        MimError: Columns of different lengths, an unknown split, an image named twice, or a box that is not one; the
            message names the image or the box.
    """

    image_id: Sequence[str]
    patient_id: Sequence[str]
    split: Sequence[str]
    image: Integers
    boxes: Floats
    score: Floats
    label: Sequence[str]

    def __post_init__(self) -> None:
        for name in ("image_id", "patient_id", "split", "label"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "image", np.asarray(self.image, dtype=np.int64).reshape(-1))
        object.__setattr__(self, "boxes", check_boxes(self.boxes, "detections"))
        object.__setattr__(self, "score", np.asarray(self.score, dtype=np.float64).reshape(-1))
        if not len(self.image_id) == len(self.patient_id) == len(self.split):
            raise MimError("detections: image_id, patient_id and split must have one value an image each")
        if not len(self.image) == len(self.boxes) == len(self.score) == len(self.label):
            raise MimError("detections: image, boxes, score and label must have one value a box each")
        if len(set(self.image_id)) < len(self.image_id):
            raise MimError("detections: an image is named twice; give each one once, with all its boxes")
        if wrong := [name for name in self.split if name not in SPLITS]:
            raise MimError(f"detections: split {wrong[0]!r} must be val or test")
        if ((self.image < 0) | (self.image >= len(self.image_id))).any():
            raise MimError("detections: a box belongs to no image; its place must be that of an image in the table")
        if np.isinf(self.score).any():
            raise MimError(f"detections: box {int(np.argmax(np.isinf(self.score))) + 1} has an infinite score")

    def __len__(self) -> int:
        return len(self.image_id)

    def keep(self, images: npt.NDArray[np.bool_]) -> Self:
        """Take images (M booleans) with all their boxes."""
        kept = np.flatnonzero(images).tolist()
        inside = np.flatnonzero(images[self.image]).tolist()
        place = np.cumsum(images) - 1
        image, patient, split = ([c[row] for row in kept] for c in (self.image_id, self.patient_id, self.split))
        label = [self.label[row] for row in inside]
        return type(self)(
            image, patient, split, place[self.image[inside]], self.boxes[inside], self.score[inside], label
        )

    def of(self, split: str) -> Self:
        """Take the images of one split."""
        return self.keep(np.array([name == split for name in self.split], dtype=bool))

    def followed_by(self, other: Self) -> Self:
        """Put the images of another table, with all their boxes, after these."""
        return type(self)(
            [*self.image_id, *other.image_id],
            [*self.patient_id, *other.patient_id],
            [*self.split, *other.split],
            np.concatenate([self.image, other.image + len(self)]),
            np.concatenate([self.boxes, other.boxes]),
            np.concatenate([self.score, other.score]),
            [*self.label, *other.label],
        )

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(DETECTION_COLUMNS)
        order = np.argsort(self.image, kind="stable")
        starts = np.searchsorted(self.image[order], np.arange(len(self) + 1))
        for place, names in enumerate(zip(self.image_id, self.patient_id, self.split, strict=True)):
            own = order[starts[place] : starts[place + 1]]
            if not len(own):
                writer.writerow([*names, *[""] * 6])
            for row in own.tolist():
                score = "" if np.isnan(self.score[row]) else repr(float(self.score[row]))
                writer.writerow([*names, *map(repr, self.boxes[row].tolist()), score, self.label[row]])
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        _, rows = read_table(path, "a table of detections", DETECTION_COLUMNS)
        images: dict[str, tuple[str, str]] = {}
        places: dict[str, int] = {}
        boxes: list[list[float]] = []
        found: list[tuple[int, float, str]] = []
        for number, (image, patient, split, *rest) in enumerate(rows, 1):
            if images.setdefault(image, (patient, split)) != (patient, split):
                raise MimError(f"{path}: row {number}: image {image!r} has another patient or split in an earlier row")
            place = places.setdefault(image, len(places))
            if any(rest[:4]):
                boxes.append(_numbers(path, number, rest[:4]))
                found.append((place, _numbers(path, number, [rest[4] or "nan"])[0], rest[5]))
        image_at, score, label = zip(*found, strict=True) if found else ((), (), ())
        patients, splits = zip(*images.values(), strict=True) if images else ((), ())
        try:
            arrays = (np.array(image_at, np.int64), np.array(boxes).reshape(-1, 4), np.array(score), label)
            return cls(tuple(images), patients, splits, *arrays)
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


@dataclass(frozen=True, eq=False)
class Lesions:
    """What is there: K boxes.

    Attributes:
        image_id: (K,) name of each lesion's image.
        boxes: (K, 4) float64, xyxy in pixels of the image.
        label: (K,) name of each lesion's class.
        columns: Further columns of text, each (K,); "" = not known.

    Raises:
        MimError: Columns of different lengths, or a box that is not one.
    """

    image_id: Sequence[str]
    boxes: Floats
    label: Sequence[str]
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_id", tuple(self.image_id))
        object.__setattr__(self, "label", tuple(self.label))
        object.__setattr__(self, "boxes", check_boxes(self.boxes, "lesions"))
        object.__setattr__(self, "columns", check_columns(self.columns, len(self), LESION_COLUMNS, "lesions"))
        if not len(self.image_id) == len(self.boxes) == len(self.label):
            raise MimError("lesions: image_id, boxes and label must have one value a lesion each")

    def __len__(self) -> int:
        return len(self.image_id)

    def rows(self, kept: npt.NDArray[np.bool_]) -> Self:
        """Take lesions (K booleans)."""
        taken = np.flatnonzero(kept).tolist()
        columns = {name: [values[row] for row in taken] for name, values in self.columns.items()}
        image, label = ([column[row] for row in taken] for column in (self.image_id, self.label))
        return type(self)(image, self.boxes[taken], label, columns)

    def followed_by(self, other: Self) -> Self:
        """Put the lesions of another table after these; of further columns those of these, not known of the others."""
        columns = {name: [*values, *[""] * len(other)] for name, values in self.columns.items()}
        boxes = np.concatenate([self.boxes, other.boxes])
        return type(self)([*self.image_id, *other.image_id], boxes, [*self.label, *other.label], columns)

    def save(self, path: Path) -> None:
        """Write a CSV that `load` reads back exactly."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*LESION_COLUMNS, *self.columns])
        corners = ([repr(value) for value in column] for column in self.boxes.T.tolist())
        writer.writerows(zip(self.image_id, *corners, self.label, *self.columns.values(), strict=True))
        write_atomically(path, text.getvalue())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MimError: No such file, other columns, or a row that is not valid; the message names file and row.
        """
        heading, rows = read_table(path, "a table of lesions", LESION_COLUMNS)
        boxes = [_numbers(path, number, row[1:5]) for number, row in enumerate(rows, 1)]
        further = {name: [row[6 + place] for row in rows] for place, name in enumerate(heading[6:])}
        try:
            return cls([row[0] for row in rows], np.array(boxes).reshape(-1, 4), [row[5] for row in rows], further)
        except MimError as error:
            raise MimError(f"{path}: {error}") from error


def join(detections: Detections, lesions: Lesions, trained_on: Collection[str] = ()) -> "Searched":
    """Put detections and lesions together, leave out what cannot be measured, and say so.

    Boxes without a score, and images of patients that were trained on, are left out.

    Args:
        detections: Every image that was searched, with what was found.
        lesions: What is there.
        trained_on: Patients whose images the model was trained on.

    Raises:
        MimError: Lesions of images that were not searched: the tables are of different splits.
    """
    searched = set(detections.image_id)
    if unknown := [image for image in dict.fromkeys(lesions.image_id) if image not in searched]:
        raise MimError(
            f"lesions: {len(unknown)} of their images are not in the table of detections (such as {unknown[0]}): they "
            "are of another split, or images with nothing found were left out of it; give every searched image a row"
        )
    warnings = []
    met = set(trained_on)
    known = np.array([patient in met for patient in detections.patient_id], dtype=bool)
    if known.any():
        people = len({patient for patient in detections.patient_id if patient in met})
        warnings.append(
            f"{people} {'patient was' if people == 1 else 'patients were'} trained on: {known.sum()} of "
            f"{len(known)} images are left out of the figures."
        )
        gone = {detections.image_id[row] for row in np.flatnonzero(known).tolist()}
        detections = detections.keep(~known)
        lesions = lesions.rows(np.array([image not in gone for image in lesions.image_id], dtype=bool))
    unscored = np.isnan(detections.score)
    if unscored.any():
        first = detections.image_id[int(detections.image[np.argmax(unscored)])]
        warnings.append(
            f"{unscored.sum()} of {len(unscored)} detections have no score (the first is in image {first}) and are "
            "left out of the figures; look for a diverged training."
        )
        kept = np.flatnonzero(~unscored).tolist()
        columns = (detections.image[kept], detections.boxes[kept], detections.score[kept])
        label = [detections.label[row] for row in kept]
        detections = Detections(detections.image_id, detections.patient_id, detections.split, *columns, label)
    return Searched(detections, lesions, tuple(warnings))


@dataclass(frozen=True, eq=False)
class Searched:
    """Images with what was found and what is there, and a sentence for each thing that was left out."""

    detections: Detections
    lesions: Lesions
    warnings: tuple[str, ...] = ()

    @property
    def lesion_image(self) -> Integers:
        """(K,) place of each lesion's image among the images."""
        places = {image: place for place, image in enumerate(self.detections.image_id)}
        return np.array([places[image] for image in self.lesions.image_id], dtype=np.int64)

    @property
    def lesion_patient(self) -> list[str]:
        """(K,) patient of each lesion."""
        return [self.detections.patient_id[place] for place in self.lesion_image.tolist()]

    def of(self, split: str) -> Self:
        """Take the images of one split."""
        detections = self.detections.of(split)
        inside = set(detections.image_id)
        kept = np.array([image in inside for image in self.lesions.image_id], dtype=bool)
        return type(self)(detections, self.lesions.rows(kept), self.warnings)


def check_boxes(boxes: npt.ArrayLike, what: str) -> Floats:
    """Boxes as (N, 4) float64.

    Raises:
        MimError: Not four numbers a box, not finite, or without width or height; the message counts boxes from 1.
    """
    corners: Floats = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    for wrong, rule in (
        (~np.isfinite(corners).all(axis=1), "its corners must be finite numbers"),
        ((corners[:, 2:] <= corners[:, :2]).any(axis=1), "x2 must lie above x1 and y2 above y1"),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise MimError(f"{what}: box {row + 1} is {corners[row].tolist()}; {rule}")
    return corners


def _numbers(path: Path, row: int, values: Sequence[str]) -> list[float]:
    try:
        return [float(value) for value in values]
    except ValueError as error:
        raise MimError(f"{path}: row {row}: {', '.join(values)} are not all numbers") from error
