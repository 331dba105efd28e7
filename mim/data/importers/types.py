"""What every importer gives, whatever it reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mim.data.radiograph_types import one_line

ProblemKind = Literal[
    "outside",  # a box reaches more than a pixel beyond its image
    "empty-box",  # no width or no height, or corners the wrong way round
    "duplicate-box",  # the same class in the same place twice
    "unknown-class",  # a class that the annotations do not name, or that --classes does not
    "image-without-file",  # annotations of an image that is not in the folder
    "file-without-label",  # an image that no annotation names
    "image-twice",  # two entries for one image that do not agree
    "other-size",  # the annotations were made on an image of another size
    "unreadable-image",  # the size of the image cannot be told
    "malformed",  # a line, an entry or a file that does not follow its format
]

Xyxy = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found: a file, and a line, row or entry of it (from 1; None: the file as a whole)."""

    file: str
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with an annotation: of which kind, where, on which image, and a line of detail."""

    kind: ProblemKind
    place: Place
    image: str
    detail: str


@dataclass(frozen=True, slots=True)
class ImportedBox:
    """A box.

    Attributes:
        category: Name of its class.
        xyxy: Left, top, right, bottom in pixels of the image; the corner of the first pixel is (0, 0).
        place: Where it was found.
        segmentation: Its pixels as COCO has them: polygons, or run lengths with a size; None where there are none.
        attributes: What else is known of it, such as the tooth.
    """

    category: str
    xyxy: Xyxy
    place: Place
    segmentation: Any = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedImage:
    """What the annotations say of one image.

    Attributes:
        name: The image, as the annotations name it.
        place: Where it was found.
        labels: Labels of the image as a whole, by column.
        boxes: Its boxes.
        size: (width, height) in pixels that the annotations give.
        patient_id: The patient, where the annotations say so.
        split: train, val or test, where they say so.
        site: Where it was taken, where they say so.
        date: When it was taken (yyyymmdd), where they say so.
        unsure: Something on it could not be understood: a class that was not found may be there all the same.
    """

    name: str
    place: Place
    labels: Mapping[str, str] = field(default_factory=dict)
    boxes: tuple[ImportedBox, ...] = ()
    size: tuple[int, int] | None = None
    patient_id: str = ""
    split: str = ""
    site: str = ""
    date: str = ""
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Imported:
    """The common result of all importers.

    Attributes:
        images: In the order of the source.
        problems: What could not be read.
        classes: Classes of boxes or folders; each becomes a column of 0 and 1.
        columns: Columns of `ImportedImage.labels`.
        has_boxes: Whether the format can hold boxes.
    """

    images: Sequence[ImportedImage]
    problems: Sequence[Problem] = ()
    classes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    has_boxes: bool = True


def plain(name: object) -> str:
    """Make a name of the annotations fit for one line and a cell; what is no text or number gives an empty one."""
    return one_line(str(name)) if isinstance(name, str | int) and not isinstance(name, bool) else ""
