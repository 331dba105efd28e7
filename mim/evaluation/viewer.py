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
from mim.evaluation.pictures import Case, film_picture, framed
from mim.evaluation.section import Picture

SCRIPT = Path(__file__).parent / "templates" / "viewer.js"


@dataclass(frozen=True)
class Layer:
    """A transparent picture of the size of the film."""

    kind: Literal["mask", "explanation"]
    picture: Picture


@dataclass(frozen=True)
class ShownCase:
    """One film of the page.

    Attributes:
        image_id: Its name in the predictions.
        patient_id: Salted hash of its patient.
        kind: `false negative` or `false positive`.
        score: Probability of the positive class.
        text: What was seen, and what the layers show.
        film: The film as it is.
        layers: In the order in which they are laid over it.
        boxes: x, y, width, height in pixels of `film`; framed from outside, so that no lesion is covered.
    """

    image_id: str
    patient_id: str
    kind: str
    score: float
    text: tuple[str, ...]
    film: Picture
    layers: tuple[Layer, ...]
    boxes: tuple[tuple[float, float, float, float], ...]

    @property
    def lesions(self) -> str:
        """How many lesions are framed, in words."""
        return f"{len(self.boxes)} lesion {'frame' if len(self.boxes) == 1 else 'frames'}"


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
        kinds |= {"boxes"} if any(case.boxes for case in self.cases) else set()
        known = (("mask", "Hidden cells", "M"), ("boxes", "Lesion frames", "B"), ("explanation", "Explanation", "E"))
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
    height, width = grey.shape
    across, down = width / np.shape(case.image)[1], height / np.shape(case.image)[0]
    corners = [framed(box, across, down) for box in case.boxes]
    text = ["No mask: the network saw all of it."]
    layers = []
    if case.visible is not None:
        visible = np.asarray(case.visible, dtype=bool)
        text = [f"The network saw {int(visible.sum())} of {visible.size} cells ({visible.mean() * 100:.0f} %)."]
        layers.append(Layer("mask", embed(mask_layer(visible, grey.shape), f"Hidden cells are hatched. {text[0]}")))
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
        boxes=tuple((left, upper, right - left, lower - upper) for left, upper, right, lower in corners),
    )
