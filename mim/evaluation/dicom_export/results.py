"""Records of predictions.json, brought to the pixels of the image as it is stored in its DICOM object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.dicom_export.source import UnfitSource
from mim.evaluation.runs_of_cells import from_runs

Cells = npt.NDArray[np.bool_]

_POSITIVE = ("1", "1.0", "true", "yes", "positive", "present")


@dataclass(frozen=True)
class Algorithm:
    """What made the predictions.

    Attributes:
        name: of the software.
        version: of the software.
        checkpoint: hash of the weights.
        parameters: what else decided, name to value.
    """

    name: str
    version: str
    checkpoint: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundRegion:
    """A box that was found: x1, y1, x2, y2 in columns and rows of the stored image, from its upper left corner."""

    box: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True)
class ClassResult:
    """What was said of one of several classes: its name, its probability, and whether it was called (None = not)."""

    name: str
    score: float
    present: bool | None


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was said of one frame.

    Attributes:
        frame: from 0.
        finding: name of what the score is about; None = there is no score of one class.
        score: probability of it, from 0 to 1.
        present: whether it was called so at the threshold; None = there was none.
        keep_rate: share of the cells that the network saw, from 0 to 1.
        visible: bool (Rows, Columns), what the network saw; None = there was no masker.
        pixels: by name, bool (Rows, Columns).
        regions: boxes.
        classes: of several classes that are called each for itself, what was said of each.
    """

    frame: int
    finding: str | None
    score: float | None
    present: bool | None
    keep_rate: float
    visible: Cells | None = None
    pixels: Mapping[str, Cells] = field(default_factory=dict)
    regions: Sequence[FoundRegion] = ()
    classes: Sequence[ClassResult] = ()


def algorithm_of(model: Mapping[str, Any]) -> Algorithm:
    """What made the predictions, of `model` in predictions.json."""
    own = model.get("thresholds", {})
    parameters = {
        "task": f"{model['task']} of {model['target'] or ', '.join(model['classes'])}"[:1024],
        "backbone": str(model["backbone"]),
        "input masker": str(model["masker"]),
        "threshold": _thresholds(own) if own else _threshold(model["threshold"]),
        "intended use": "research; not a medical device",
    }
    return Algorithm("mim", str(model["version"]), str(model["checkpoint"]), parameters)


def _threshold(threshold: Mapping[str, Any]) -> str:
    value = threshold["value"]
    return "none" if value is None else f"{value:.6g} ({threshold['source']})"


def _thresholds(thresholds: Mapping[str, Mapping[str, Any]]) -> str:
    return "; ".join(f"{name} {_threshold(own)}" for name, own in thresholds.items())[:1024]


def finding_of(model: Mapping[str, Any]) -> str | None:
    """What the score is about: the label column, or the positive class where that has a name of its own."""
    positive = model["positive"]
    if positive is None:
        return None
    return str(model["target"] or positive) if str(positive).casefold() in _POSITIVE else str(positive)


def results_of(film: Mapping[str, Any], model: Mapping[str, Any], rows: int, columns: int) -> FrameResult:
    """Bring a film of predictions.json to the pixels of its stored image.

    Boxes and regions in the record are in pixels of the film as it was read, made square where the stored ones are not.

    Args:
        film: One of `films`.
        model: `model` of the same file.
        rows: Of the stored image.
        columns: Of the stored image.

    Raises:
        UnfitSource: The film cannot be of an image of this size.
        MimError: The record cannot be understood.
    """
    try:
        width, height = int(film["width"]), int(film["height"])
        # pixels are made square along one axis, so the other keeps its number
        if columns != width and rows != height:
            raise UnfitSource(
                f"an image of {columns} x {rows} pixels, the film that was predicted has {width} x {height}"
            )
        across, down = columns / width, rows / height
        masked = any(part["visible"] is not None for part in film["parts"])
        visible = np.zeros((rows, columns), np.bool_) if masked else None
        pixels: dict[str, Cells] = {}
        regions = []
        for part in film["parts"]:
            left, top, right, bottom = part["region"]
            area = (left * across, top * down, right * across, bottom * down)
            if visible is not None and part["visible"] is not None:
                _paint(visible, from_runs(part["visible"]), area)
            for name, runs in part["pixels"].items():
                _paint(pixels.setdefault(str(name), np.zeros((rows, columns), np.bool_)), from_runs(runs), area)
            for found in part["boxes"]:
                if found.get("called") is False:  # below the threshold: not what a reader is told
                    continue
                x1, y1, x2, y2 = map(float, found["box"])
                box = _within((x1 * across, y1 * down, x2 * across, y2 * down), rows, columns)
                regions.append(FoundRegion(box, str(found["label"]), float(found["score"])))
        call, score = film["call"], film["score"]
        return FrameResult(
            frame=int(film["frame"]),
            finding=finding_of(model),
            score=None if score is None else float(score),
            present=None if call is None else call == "positive",
            keep_rate=float(film["keep_rate"]),
            visible=visible,
            pixels=pixels,
            regions=regions,
            classes=_classes(film),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise MimError(f"a film of predictions.json cannot be understood ({type(error).__name__})") from error


def _classes(film: Mapping[str, Any]) -> list[ClassResult]:
    return [
        ClassResult(str(name), float(film["scores"][name]), None if call is None else call == "positive")
        for name, call in film.get("calls", {}).items()
    ]


def _paint(target: Cells, cells: Cells, area: tuple[float, float, float, float]) -> None:
    """Add a mask (gh, gw) that lies over an area, left, top, right, bottom in pixels, by the middles of pixels."""
    columns, across = _under(area[0], area[2], target.shape[1], cells.shape[1])
    rows, down = _under(area[1], area[3], target.shape[0], cells.shape[0])
    target[rows, columns] |= cells[np.ix_(down, across)]


def _under(first: float, last: float, pixels: int, cells: int) -> tuple[slice, npt.NDArray[np.intp]]:
    """Which pixels have their middle between two borders, and which cell lies under each of these."""
    middles = np.arange(pixels) + 0.5
    inside = np.flatnonzero((middles >= first) & (middles < last))
    share = (middles[inside] - first) / (last - first)
    found = np.minimum((share * cells).astype(np.intp), cells - 1)
    return (slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)), found


def _within(box: tuple[float, float, float, float], rows: int, columns: int) -> tuple[float, float, float, float]:
    x1, x2 = (min(max(value, 0.0), float(columns)) for value in (box[0], box[2]))
    y1, y2 = (min(max(value, 0.0), float(rows)) for value in (box[1], box[3]))
    return x1, y1, x2, y2
