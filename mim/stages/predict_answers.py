"""What a run says of a film: the form that every kind of predictor answers in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mim.data.manifest import ManifestRow
from mim.data.store import FilmLevels


@dataclass(frozen=True, eq=False)
class FoundBox:
    """A box that was found: x1, y1, x2, y2 as shares of the stored film's width and height."""

    box: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True, eq=False)
class Answer:
    """What a run says of one stored film (a whole one, a cropped one, or a tile).

    Attributes:
        scores: probability of each class; of a detector the highest score of a box of each class, or 0.
        visible: what the network saw of it, bool (gh, gw) over the whole of it; None = there is no masker.
        boxes: what was found.
        pixels: by class, bool (h, w) over the whole of it, of any size.
    """

    scores: Mapping[str, float]
    visible: NDArray[np.bool_] | None = None
    boxes: Sequence[FoundBox] = ()
    pixels: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


class Predictor(Protocol):
    """Answers for stored films.

    Attributes:
        positive: the class whose score is called against a threshold; None = there is none.
    """

    positive: str | None

    def __call__(self, films: Sequence[FilmLevels], rows: Sequence[ManifestRow]) -> list[Answer]:
        """Answers for some films, in their order.

        Args:
            films: what a preparation would store of each.
            rows: what it would note of each.
        """
