"""Dice and normalised surface distance of masks, for each image and for each lesion, by MONAI.

- Dice: 2 |A and B| / (|A| + |B|).
- Normalised surface distance (Nikolov et al. 2021; MONAI's surface Dice): share of the border pixels of either mask
  that lie within a tolerance of the other's border.

Where an image has no lesion, neither says how good a mask is. The rule is stated and settable: `skip` leaves such
images out of both means (how many there are, and how often something is drawn in them, is said beside); `score` gives 1
where nothing is drawn and 0 where something is. A lesion is a connected part of the truth (pixels that touch, corners
included); what is drawn for it is every connected part of the prediction that touches it. A lesion that nothing touches
has 0 and 0.
"""

from collections.abc import Mapping, Sequence
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
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section, Table

EmptyTruth = Literal["skip", "score"]
Mask = npt.NDArray[np.bool_]
TITLES: Mapping[str, str] = {
    "dice": "Dice, mean over images",
    "surface": "Normalised surface distance, mean over images",
    "lesion_dice": "Dice, mean over lesions",
    "lesion_surface": "Normalised surface distance, mean over lesions",
    "lesions_touched": "Share of the lesions that are touched",
    "drawn_without_lesion": "Share of the images without lesions in which something is drawn",
}
RULES: Mapping[str, str] = {
    "skip": "Images without lesions are left out of the means over images.",
    "score": "Images without lesions count 1 where nothing is drawn and 0 where something is.",
}


@dataclass(frozen=True)
class Overlap:
    """How well one mask was drawn.

    Attributes:
        dice: Of the image; NaN where it is left out.
        surface: Normalised surface distance of the image; NaN where it is left out.
        lesion_dice: Of each lesion.
        lesion_surface: Of each lesion.
        lesion_area: Pixels of each lesion.
        drawn: Whether anything is drawn in the image.
    """

    dice: float
    surface: float
    lesion_dice: tuple[float, ...]
    lesion_surface: tuple[float, ...]
    lesion_area: tuple[int, ...]
    drawn: bool


def overlap(
    truth: npt.ArrayLike,
    drawn: npt.ArrayLike,
    *,
    tolerance: float = 2.0,
    spacing: tuple[float, float] = (1.0, 1.0),
    empty_truth: EmptyTruth = "skip",
) -> Overlap:
    """Measure one mask, and each lesion in it.

    Args:
        truth: (H, W) True = lesion.
        drawn: (H, W) True = called lesion.
        tolerance: How far apart borders may lie, in the unit of `spacing`.
        spacing: Distance of rows and of columns; (1, 1) = pixels.
        empty_truth: What an image without lesions counts.

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
    if not there.any():
        value = float("nan") if empty_truth == "skip" else float(not called.any())
        return Overlap(value, value, (), (), (), bool(called.any()))
    lesions, count = ndimage.label(there, structure=np.ones((3, 3)))
    parts, _ = ndimage.label(called, structure=np.ones((3, 3)))
    dice, surface = [], []
    for number in range(1, count + 1):
        lesion = lesions == number
        touching = np.unique(parts[lesion])
        own = np.isin(parts, touching[touching > 0])
        if not own.any():
            dice.append(0.0)
            surface.append(0.0)
            continue
        cut = _around(lesion | own)
        dice.append(_dice(lesion[cut], own[cut]))
        surface.append(_surface(lesion[cut], own[cut], tolerance, spacing))
    areas = tuple(int(area) for area in np.bincount(lesions.ravel())[1:])
    if not called.any():
        return Overlap(0.0, 0.0, tuple(dice), tuple(surface), areas, False)
    cut = _around(there | called)
    whole = _dice(there[cut], called[cut]), _surface(there[cut], called[cut], tolerance, spacing)
    return Overlap(*whole, tuple(dice), tuple(surface), areas, True)


def measure_overlaps(overlaps: Sequence[Overlap], patients: Sequence[str], settings: Settings) -> dict[str, Figure]:
    """Mean of images and of lesions, with intervals over patients.

    Args:
        overlaps: One an image.
        patients: Patient of each image.
        settings: How intervals are made.

    Raises:
        MimError: Columns of different lengths.
    """
    if len(overlaps) != len(patients):
        raise MimError(f"segmentation: {len(overlaps)} masks and {len(patients)} patients; give one of each an image")
    image = np.repeat(np.arange(len(overlaps)), [len(own.lesion_dice) for own in overlaps])
    empty = np.array([not own.lesion_dice for own in overlaps], dtype=bool)
    lesion_dice = np.array([value for own in overlaps for value in own.lesion_dice])
    lesion_surface = np.array([value for own in overlaps for value in own.lesion_surface])
    statistics: dict[str, Statistic] = {
        "dice": _mean_known(np.array([own.dice for own in overlaps])),
        "surface": _mean_known(np.array([own.surface for own in overlaps])),
        "lesion_dice": _of_lesions(image, lesion_dice),
        "lesion_surface": _of_lesions(image, lesion_surface),
        "lesions_touched": _of_lesions(image, (lesion_dice > 0).astype(np.float64)),
        "drawn_without_lesion": mean_statistic([own.drawn for own in overlaps], empty),
    }
    reasons = dict.fromkeys(statistics, "there are no lesions" if overlaps else "there are no images")
    if overlaps:
        reasons["drawn_without_lesion"] = "every image has a lesion"
    return measure(statistics, patients, settings, reasons=reasons)


def segmentation_section(
    overlaps: Sequence[Overlap],
    patients: Sequence[str],
    settings: Settings,
    *,
    tolerance: float,
    unit: str = "pixels",
    empty_truth: EmptyTruth = "skip",
) -> Section:
    """Write the figures of masks for the report and for `metrics.json`.

    Args:
        overlaps: What `overlap` gave for each test image.
        patients: Patient of each image.
        settings: How intervals are made.
        tolerance: What they were measured with.
        unit: Unit of the tolerance.
        empty_truth: What they were measured with.
    """
    figures = measure_overlaps(overlaps, patients, settings)
    lesions = sum(len(own.lesion_dice) for own in overlaps)
    empty = sum(not own.lesion_dice for own in overlaps)
    rows = tuple((title, *written(figures[name])) for name, title in TITLES.items())
    text = f"{len(overlaps)} images with {lesions} lesions; {empty} images have none. {RULES[empty_truth]}"
    note = f"Borders within {tolerance:g} {unit} of each other count as met."
    first = () if lesions or not overlaps else (f"Segmentation: the {len(overlaps)} test images hold no lesion.",)
    return Section(
        name="segmentation",
        title="Segmentation of lesions",
        first_lines=first,
        text=(text,),
        tables=(Table("Masks on the test images", ("Figure", "value", "interval"), rows, note),),
        figures={
            "images": len(overlaps),
            "images_without_lesions": empty,
            "lesions": lesions,
            "tolerance": tolerance,
            "unit": unit,
            "empty_truth": empty_truth,
            **{name: as_json(figures[name]) for name in TITLES},
        },
    )


def _around(mask: Mask) -> tuple[slice, slice]:
    """Where a mask is, with one pixel more on each side, so that borders stay borders."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(0, int(own[0]) - 1), int(own[-1]) + 2) for own in (rows, columns))  # type: ignore[return-value]


def _channels(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(mask))[None, None]


def _dice(truth: Mask, drawn: Mask) -> float:
    return float(compute_dice(_channels(drawn).float(), _channels(truth).float())[0, 0])


def _surface(truth: Mask, drawn: Mask, tolerance: float, spacing: tuple[float, float]) -> float:
    values = compute_surface_dice(
        _channels(drawn), _channels(truth), class_thresholds=[tolerance], include_background=True, spacing=spacing
    )
    return float(values[0, 0])


def _mean_known(values: Floats) -> Statistic:
    known = ~np.isnan(values)
    return mean_statistic(np.where(known, values, 0), known)


def _of_lesions(image: Integers, values: Floats) -> Statistic:
    mean = mean_statistic(values)

    def statistic(weights: Integers) -> Floats:
        return mean(np.take(weights, image, axis=1))

    return statistic
