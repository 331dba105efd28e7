"""Files under way: what of each is to be predicted, what is left out and why, and what was said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data import ManifestRow
from mim.data.given_files import ReadFile
from mim.data.store import FilmLevels
from mim.evaluation.box_names import name_boxes
from mim.evaluation.pictures import mask_picture, png
from mim.stages.made_for import MadeFor
from mim.stages.predict_answers import Answer, FoundBox
from mim.stages.predict_options import PredictOptions
from mim.stages.predict_records import is_called

OVERLAYS = "overlays"

Box = tuple[float, float, float, float]


@dataclass(eq=False)
class Reading:
    """A file under way: its films that are to be predicted, and what of it is left out."""

    name: str
    sha256: str
    skipped: list[dict[str, Any]] = field(default_factory=list)
    differs: dict[int, dict[str, str]] = field(default_factory=dict)  # by frame
    parts: list[tuple[ManifestRow, FilmLevels]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def waits(self) -> int:
        """How many of its films have no answer yet."""
        return len(self.parts) - len(self.answers)

    def skip(self, frame: int | None, reason: str, detail: str) -> None:
        """Leaves a frame out, or the whole file."""
        self.skipped.append(
            {"file": self.name, "sha256": self.sha256, "frame": frame, "reason": reason, "detail": detail}
        )


def take_apart(name: str, read: ReadFile, made_for: MadeFor | None, options: PredictOptions) -> Reading:
    """Takes what was read of a file apart into what is to be predicted and what is not."""
    file = Reading(name, read.sha256)
    for item in read.decoded.skipped:
        file.skip(item.frame, item.reason, item.detail)
    refused: set[int] = set()
    for row, levels in zip(read.decoded.rows, read.decoded.films, strict=True):
        if row.frame not in file.differs and row.frame not in refused:
            differs = {} if made_for is None else made_for.differences(row)
            if not_allowed := [name for name in differs if name not in options.allow]:
                file.skip(row.frame, not_allowed[0], "; ".join(differs[name] for name in not_allowed))
                refused.add(row.frame)
            else:
                file.differs[row.frame] = dict(differs)
        if row.frame not in refused:
            file.parts.append((row, levels))
    return file


def draw(options: PredictOptions, model: Mapping[str, Any], file: Reading, place: int) -> str | None:
    """Draws a film with what was not seen of it and what was found; gives the name of the picture, None = none wanted.

    Of boxes those are framed that reach the threshold; without one, all of them. Of pixels each connected part is
    framed, and named by its class where there are several.
    """
    if options.output is None or not options.overlays:
        return None
    (row, levels), answer = file.parts[place], file.answers[place]
    pixels = levels.full.astype(np.float32) / np.float32(np.iinfo(levels.full.dtype).max)
    height, width = pixels.shape
    shown = [box for box in answer.boxes if is_called(box.score, model) is not False]
    boxes = [_in_pixels(box, height, width) for box in shown]
    around = [(name, box) for name, mask in answer.pixels.items() for box in _around(mask, height, width)]
    tile = "" if row.tile is None else f"-{row.tile}"
    name = f"{OVERLAYS}/{file.sha256[:16]}-{row.frame}{tile}.png"
    framed = [*boxes, *(box for _, box in around)]
    picture = mask_picture(pixels, answer.visible, framed, side=options.overlay_side)
    scale = picture.shape[1] / width, picture.shape[0] / height
    picture = name_boxes(picture, boxes, [f"{box.label} {box.score:.2f}" for box in shown], scale)
    if len(answer.scores) > 1:  # of one class there is nothing to tell apart
        picture = name_boxes(picture, [box for _, box in around], [name for name, _ in around], scale)
    path = options.output / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png(picture))  # not synced: it can be drawn again, and there may be very many
    return name


def _in_pixels(box: FoundBox, height: int, width: int) -> Box:
    x1, y1, x2, y2 = box.box
    return x1 * width, y1 * height, x2 * width, y2 * height


def _around(mask: NDArray[np.bool_], height: int, width: int) -> Sequence[Box]:
    """Boxes around the connected parts of a mask of any size, in pixels of a picture of (height, width)."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    across, down = width / mask.shape[1], height / mask.shape[0]
    return [(x * across, y * down, (x + w) * across, (y + h) * down) for x, y, w, h, _ in stats[1:count].tolist()]
