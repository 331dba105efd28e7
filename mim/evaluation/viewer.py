"""The films that were called wrongly, for the page: each as it is, and with layers that can be taken away."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mim.evaluation.embedding import embed
from mim.evaluation.figures import Confusion
from mim.evaluation.layers import explanation_layer, mask_layer
from mim.evaluation.outlines import Outlines
from mim.evaluation.pictures import Bytes, Case, Cells, film_picture, framed
from mim.evaluation.section import Picture

SCRIPT = Path(__file__).parent / "templates" / "viewer.js"


@dataclass(frozen=True)
class Layer:
    """A transparent picture of the size of the film."""

    kind: Literal["mask", "explanation"]
    picture: Picture


@dataclass(frozen=True)
class Frames:
    """Boxes of one kind, each x, y, width, height in pixels of the film; framed from outside, so that none is covered.

    Attributes:
        kind: `boxes`, what a reader marked, or `marks`, what the model marked wrongly.
        boxes: At least one.
    """

    kind: Literal["boxes", "marks"]
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def said(self) -> str:
        """How many there are, in words."""
        what = "lesion frame" if self.kind == "boxes" else "wrong mark"
        return f"{len(self.boxes)} {what}{'' if len(self.boxes) == 1 else 's'}"


@dataclass(frozen=True)
class ShownCase:
    """One film of the page.

    Attributes:
        image_id: Its name in the predictions.
        patient_id: Salted hash of its patient.
        kind: What is wrong, such as `false negative`.
        score: Probability of the positive class; None = the film has none.
        text: What was seen, and what the layers show.
        film: The film as it is.
        layers: In the order in which they are laid over it.
        frames: By kind; none where there is nothing to frame.
        outlines: By kind; none where there is nothing to outline.
    """

    image_id: str
    patient_id: str
    kind: str
    score: float | None
    text: tuple[str, ...]
    film: Picture
    layers: tuple[Layer, ...]
    frames: tuple[Frames, ...]
    outlines: tuple[Outlines, ...] = ()

    @property
    def title(self) -> str:
        """What is said of it while it is stepped through."""
        return self.kind if self.score is None else f"{self.kind}, score {self.score:.3f}"


@dataclass(frozen=True)
class CaseGroup:
    """One kind of error: its heading, how many of how many are shown, and the films."""

    title: str
    text: str
    cases: tuple[ShownCase, ...]


@dataclass(frozen=True)
class Viewer:
    """All that is stepped through, and which layers there are."""

    groups: tuple[CaseGroup, ...]

    @property
    def cases(self) -> tuple[ShownCase, ...]:
        """All films, in the order of the page."""
        return tuple(case for group in self.groups for case in group.cases)

    @property
    def layers(self) -> tuple[tuple[str, str, str], ...]:
        """Kind, name and key of each layer that a film of the page has."""
        kinds: set[str] = {layer.kind for case in self.cases for layer in case.layers}
        kinds |= {frames.kind for case in self.cases for frames in case.frames}
        kinds |= {outlines.kind for case in self.cases for outlines in case.outlines}
        known = (
            ("mask", "Hidden cells", "M"),
            ("boxes", "Lesion frames", "B"),
            ("marks", "Wrong marks", "W"),
            ("truth", "Lesion outlines", "L"),
            ("drawn", "Drawn by the model", "D"),
            ("explanation", "Explanation", "E"),
        )
        return tuple(layer for layer in known if layer[0] in kinds)


def viewer_of(cases: Sequence[Case], counts: Confusion | None) -> Viewer:
    """Make what the page shows of the worst errors.

    Args:
        cases: Positives are shown as false negatives, negatives as false positives; worst first.
        counts: How many there are of each; None where there is no threshold or no test film.

    Raises:
        MimError: A case that cannot be drawn.
    """
    kinds = (
        ("False negatives", "positive films called negative", 1, counts and counts.false_negatives),
        ("False positives", "negative films called positive", 0, counts and counts.false_positives),
    )
    groups = []
    for title, what, label, total in kinds:
        shown = [case for case in cases if case.label == label]
        if total is None:
            text = "None can be named: there is no threshold or there are no test films."
        elif not total and not shown:
            text = f"There are no {what}."
        else:
            text = f"{len(shown)} of {total} {what} {'is' if len(shown) == 1 else 'are'} shown."
        groups.append(CaseGroup(title, text, tuple(_show(case) for case in shown)))
    return Viewer(tuple(groups))


def script() -> str:
    """The script of the page; it works without a network and asks for nothing."""
    return SCRIPT.read_text(encoding="utf-8").strip()


def script_hash(content: str) -> str:
    """What a content security policy calls an inline script that it lets run (CSP Level 3, 2.3.1)."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}"


def _show(case: Case) -> ShownCase:
    kind = "false negative" if case.label else "false positive"
    grey = film_picture(case.image)
    text, layers = show_mask(case.visible, grey)
    if case.explanation is not None:
        text.append(case.explained_by)
        tint = explanation_layer(case.explanation, grey.shape)
        layers.append(Layer("explanation", embed(tint, f"Explanation. {case.explained_by}")))
    return ShownCase(
        image_id=case.image_id,
        patient_id=case.patient_id,
        kind=kind,
        score=case.score,
        text=tuple(text),
        film=embed(grey, f"Film {case.image_id}, {kind}, as it is"),
        layers=tuple(layers),
        frames=frame("boxes", case.boxes, np.shape(case.image), grey.shape),
    )


def show_mask(visible: Cells | None, picture: Bytes) -> tuple[list[str], list[Layer]]:
    """Say how much the network saw, and draw what it did not; no layer where it saw all.

    Args:
        visible: (gh, gw), True = seen; None = there is no mask.
        picture: What the layer lies over.
    """
    if visible is None:
        return ["No mask: the network saw all of it."], []
    cells = np.asarray(visible, dtype=bool)
    said = f"The network saw {int(cells.sum())} of {cells.size} cells ({cells.mean() * 100:.0f} %)."
    return [said], [Layer("mask", embed(mask_layer(cells, picture.shape), f"Hidden cells are hatched. {said}"))]


def frame(
    kind: Literal["boxes", "marks"],
    boxes: Sequence[Sequence[float]],
    film: tuple[int, ...],
    picture: tuple[int, ...],
) -> tuple[Frames, ...]:
    """Frame boxes of a film on a picture of it; nothing where there are none.

    Args:
        kind: What they are.
        boxes: xyxy in pixels of the film.
        film: (height, width) of it.
        picture: (height, width) of the picture.

    Raises:
        MimError: A box that is not four numbers.
    """
    if not len(boxes):
        return ()
    corners = [framed(box, picture[1] / film[1], picture[0] / film[0]) for box in boxes]
    return (Frames(kind, tuple((x1, y1, x2 - x1, y2 - y1) for x1, y1, x2, y2 in corners)),)
