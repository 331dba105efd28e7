"""Dice and normalised surface distance of masks, for each image and for each lesion, by MONAI.

- Dice: 2 |A and B| / (|A| + |B|).
- Normalised surface distance (Nikolov et al. 2021; MONAI's surface Dice): share of the border pixels of either mask
  that lie within a tolerance of the other's border.

Where an image has no lesion, neither says how good a mask is. The rule is stated and settable: `skip` leaves such
images out of both means (how many there are, and how often something is drawn in them, is said beside); `score` gives 1
where nothing is drawn and 0 where something is. A lesion is one that is given, or else a connected part of the truth
(pixels that touch, corners included); what is drawn for it is every connected part of the prediction that touches it. A
lesion that nothing touches has 0 and 0. One of which at least half the area is drawn is found.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_dice, compute_surface_dice
from scipy import ndimage

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats, Integers, Statistic, mean_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.lesion_recall import exact_interval
from mim.evaluation.measuring import measure
from mim.evaluation.metrics import Settings

EmptyTruth = Literal["skip", "score"]
Mask = npt.NDArray[np.bool_]
FOUND = 0.5
"""Share of a lesion's area that must be drawn for it to count as found."""
RULES: Mapping[str, str] = {
    "skip": "Images without lesions are left out of the means over images.",
    "score": "Images without lesions count 1 where nothing is drawn and 0 where something is.",
}
TOUCHING = np.ones((3, 3))


@dataclass(frozen=True)
class LesionOverlap:
    """How well one lesion was drawn.

    Attributes:
        dice: Of the lesion and all drawn parts that touch it.
        surface: Normalised surface distance of the same.
        area: Pixels of the lesion.
        drawn: Pixels of the drawn parts that touch it.
        both: Pixels of both.
    """

    dice: float
    surface: float
    area: int
    drawn: int
    both: int

    @property
    def covered(self) -> float:
        """Share of the lesion's area that is drawn."""
        return self.both / self.area


@dataclass(frozen=True)
class Overlap:
    """How well one mask was drawn.

    Attributes:
        dice: Of the image; NaN where it is left out.
        surface: Normalised surface distance of the image; NaN where it is left out.
        lesions: One by one.
        area: Pixels of the truth.
        drawn: Pixels drawn.
        both: Pixels of both.
        false_parts: Connected parts of the prediction that touch no lesion.
        false_area: Their pixels.
    """

    dice: float
    surface: float
    lesions: tuple[LesionOverlap, ...]
    area: int
    drawn: int
    both: int
    false_parts: int
    false_area: int


def overlap(
    truth: npt.ArrayLike,
    drawn: npt.ArrayLike,
    *,
    tolerance: float = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    empty_truth: EmptyTruth = "skip",
    lesions: Iterable[npt.ArrayLike] | None = None,
) -> Overlap:
    """Measure one mask, and each lesion in it.

    Args:
        truth: (H, W) True = lesion.
        drawn: (H, W) True = called lesion.
        tolerance: How far apart borders may lie, in the unit of `spacing`.
        spacing: Distance of rows and of columns; (1, 1) = pixels.
        empty_truth: What an image without lesions counts.
        lesions: (H, W) of each lesion, none of them empty, which together are the truth; None = its connected parts.

    Raises:
        MimError: Masks of different or of other than two dimensions, or a setting out of its range.
    """
    there, called = np.asarray(truth, dtype=bool), np.asarray(drawn, dtype=bool)
    if there.ndim != 2 or there.shape != called.shape:
        raise MimError(f"segmentation: masks of shapes {there.shape} and {called.shape}; give two of one (H, W)")
    if tolerance < 0 or min(spacing) <= 0:
        raise MimError(f"segmentation: tolerance {tolerance} and spacing {spacing}; give 0 or more, and above 0")
    if empty_truth not in RULES:
        raise MimError(f"segmentation: empty_truth is {empty_truth!r}; give skip or score")
    parts, count = ndimage.label(called, structure=TOUCHING)
    right = np.unique(parts[there])
    areas = np.bincount(parts.ravel(), minlength=count + 1)
    false = np.setdiff1d(np.arange(1, count + 1), right)
    counted = (int(there.sum()), int(called.sum()), int((there & called).sum()), len(false), int(areas[false].sum()))
    if not there.any():
        value = float("nan") if empty_truth == "skip" else float(not called.any())
        return Overlap(value, value, (), *counted)
    own = tuple(
        _measure_lesion(np.asarray(lesion, dtype=bool), parts, tolerance, spacing)
        for lesion in (_connected(there) if lesions is None else lesions)
    )
    if not called.any():
        return Overlap(0.0, 0.0, own, *counted)
    cut = _around(there | called)
    whole = _dice(there[cut], called[cut]), _surface(there[cut], called[cut], tolerance, spacing)
    return Overlap(*whole, own, *counted)


def measure_overlaps(overlaps: Sequence[Overlap], patients: Sequence[str], settings: Settings) -> dict[str, Figure]:
    """Mean of images and of lesions, with intervals over patients.

    Where a share is 0 or 1 every resample says the same, which is not certainty: its interval is the exact binomial one
    of as many trials as there are patients (`exact_interval`).

    Args:
        overlaps: One an image.
        patients: Patient of each image.
        settings: How intervals are made.

    Raises:
        MimError: Columns of different lengths.
    """
    if len(overlaps) != len(patients):
        raise MimError(f"segmentation: {len(overlaps)} masks and {len(patients)} patients; give one of each an image")
    statistics = overlap_statistics(overlaps)
    reasons = dict.fromkeys(statistics, "there are no lesions" if overlaps else "there are no images")
    if overlaps:
        reasons["drawn_without_lesion"] = "every image has a lesion"
    figures = measure(statistics, patients, settings, reasons=reasons)
    healthy = {patient for patient, own in zip(patients, overlaps, strict=True) if not own.lesions}
    sick = {patient for patient, own in zip(patients, overlaps, strict=True) if own.lesions}
    for name, whose in (("lesions_found", sick), ("lesions_touched", sick), ("drawn_without_lesion", healthy)):
        figures[name] = not_too_certain(figures[name], len(whose), settings)
    return figures


def overlap_statistics(overlaps: Sequence[Overlap]) -> dict[str, Statistic]:
    """The figures of images and of their lesions, by name, for weights of the images."""
    image = np.repeat(np.arange(len(overlaps)), [len(own.lesions) for own in overlaps])
    empty = np.array([not own.lesions for own in overlaps], dtype=bool)
    lesions = [lesion for own in overlaps for lesion in own.lesions]
    return {
        "dice": mean_known(np.array([own.dice for own in overlaps])),
        "surface": mean_known(np.array([own.surface for own in overlaps])),
        **{name: _of_lesions(image, values) for name, values in lesion_values(lesions).items()},
        "drawn_without_lesion": mean_statistic([own.drawn > 0 for own in overlaps], empty),
        "false_parts": mean_statistic([own.false_parts for own in overlaps]),
    }


def not_too_certain(share: Figure, patients: int, settings: Settings) -> Figure:
    """Give a share of 0 or 1 the exact binomial interval of as many trials as there are patients."""
    if share.value not in (0.0, 1.0):
        return share
    return Figure(share.value, *exact_interval(share.value, patients, settings.confidence))


def lesion_values(lesions: Sequence[LesionOverlap]) -> dict[str, Floats]:
    """What is averaged over lesions, by the name of its figure: (K,) each."""
    return {
        "lesion_dice": np.array([own.dice for own in lesions], dtype=np.float64),
        "lesion_surface": np.array([own.surface for own in lesions], dtype=np.float64),
        "lesions_found": np.array([own.covered >= FOUND for own in lesions], dtype=np.float64),
        "lesions_touched": np.array([own.both > 0 for own in lesions], dtype=np.float64),
    }


def _measure_lesion(lesion: Mask, parts: Integers, tolerance: float, spacing: tuple[float, float]) -> LesionOverlap:
    area = int(lesion.sum())
    touching = np.unique(parts[lesion])
    own = np.isin(parts, touching[touching > 0])
    if not own.any():
        return LesionOverlap(0.0, 0.0, area, 0, 0)
    cut = _around(lesion | own)
    lesion, own = lesion[cut], own[cut]
    values = _dice(lesion, own), _surface(lesion, own, tolerance, spacing)
    return LesionOverlap(*values, area, int(own.sum()), int((lesion & own).sum()))


def _connected(there: Mask) -> Iterable[Mask]:
    numbers, count = ndimage.label(there, structure=TOUCHING)
    return (numbers == number for number in range(1, count + 1))


def _around(mask: Mask) -> tuple[slice, slice]:
    """Where a mask is, with one pixel more on each side, so that borders stay borders."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(0, int(own[0]) - 1), int(own[-1]) + 2) for own in (rows, columns))  # type: ignore[return-value]


def _channels(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _dice(truth: Mask, drawn: Mask) -> float:
    return float(compute_dice(_channels(drawn).float(), _channels(truth).float())[0, 0])


def _surface(truth: Mask, drawn: Mask, tolerance: float, spacing: tuple[float, float]) -> float:
    with warnings.catch_warnings():
        # MONAI calls its own function with an argument that it has given up
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        values = compute_surface_dice(
            _channels(drawn), _channels(truth), class_thresholds=[tolerance], include_background=True, spacing=spacing
        )
    return float(values[0, 0])


def mean_known(values: Floats) -> Statistic:
    """Mean of one number an image, over those that have one; NaN = left out."""
    known = ~np.isnan(values)
    return mean_statistic(np.where(known, values, 0), known)


def _of_lesions(image: Integers, values: Floats) -> Statistic:
    mean = mean_statistic(values)

    def statistic(weights: Integers) -> Floats:
        return mean(np.take(weights, image, axis=1))

    return statistic
