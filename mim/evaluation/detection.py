"""All figures of a detector on one set of images, with intervals over patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Statistic, mean_statistic, ratio_statistic
from mim.evaluation.box_pairs import pair_boxes
from mim.evaluation.coco import SIZES, coco_names, coco_statistic, coco_values
from mim.evaluation.detections import Searched
from mim.evaluation.figures import Figure
from mim.evaluation.froc import RATES, Froc, HitRule, Hits, find_hits, froc_curve, froc_statistic
from mim.evaluation.measuring import measure
from mim.evaluation.metrics import Settings
from mim.evaluation.segmentation import not_too_certain
from mim.evaluation.strata import Measured, Rows, Stratum, strata
from mim.evaluation.threshold import Threshold

RULES = {"iou": HitRule(0.5), "centre": HitRule(None)}
OPERATING_RATE = 1.0
NO_LESIONS = "there are no lesions"
NO_IMAGES = "there are no images"


@dataclass(frozen=True, eq=False)
class FrocFigures:
    """The FROC curve under one rule, and what is read from it.

    Attributes:
        rule: When a mark hits a lesion.
        hits: What each mark is worth.
        curve: At every distinct score.
        rates: False positives an image.
        thresholds: Lowest threshold with at most so many; None where there is none.
        sensitivity: Share of the lesions found there.
        score: Mean sensitivity over the rates, on straight lines between the points.
    """

    rule: HitRule
    hits: Hits
    curve: Froc
    rates: tuple[float, ...]
    thresholds: tuple[float | None, ...]
    sensitivity: tuple[Figure, ...]
    score: Figure


@dataclass(frozen=True, eq=False)
class DetectionFigures:
    """Everything that is said of a detector on one set of images.

    Attributes:
        images: How many were searched, and `lesion_free` of them without a lesion.
        patients: Whose they are.
        lesions: How many there are.
        lesion_patients: Patients who have one.
        coco: AP, AP50, AP75, AR and AR by size.
        froc: By the name of the rule.
        threshold: From the validation images.
        at_threshold: `lesion_sensitivity`, `false_positives_per_image` and `lesion_free_images_without_marks` there.
        strata: Sensitivity for lesions at the threshold by group.
    """

    images: int
    lesion_free: int
    patients: int
    lesions: int
    lesion_patients: int
    coco: Mapping[str, Figure]
    froc: Mapping[str, FrocFigures]
    threshold: Threshold
    at_threshold: Mapping[str, Figure]
    strata: tuple[Stratum, ...]


def measure_detections(
    searched: Searched,
    threshold: Threshold,
    settings: Settings,
    *,
    rules: Mapping[str, HitRule] = RULES,
    rates: Sequence[float] = RATES,
    sizes: Mapping[str, tuple[float, float]] = SIZES,
) -> DetectionFigures:
    """Measure a detector; what these images do not allow is None with the reason.

    Args:
        searched: Images with detections and lesions.
        threshold: Score from which a mark counts at the operating point; `choose_detection_threshold` gives one.
        settings: How intervals are made.
        rules: When a mark hits a lesion; the first rule is that of the operating point and of the groups.
        rates: False positives an image at which sensitivity is read.
        sizes: Least and largest area of each size, in square pixels.
    """
    patients = searched.detections.patient_id
    pairs = pair_boxes(searched)
    names = coco_names(sizes)
    coco = dict.fromkeys(names, Figure(None, None, None, NO_LESIONS if len(searched.detections) else NO_IMAGES))
    if len(searched.lesions):
        reasons = dict.fromkeys(names, "there are no lesions of this size")
        drawn = measure({}, patients, settings, jointly={names: coco_statistic(searched, sizes)}, reasons=reasons)
        values = coco_values(searched, sizes)
        coco = {name: _with_value(drawn[name], values[name]) for name in names}
    froc = {
        name: _froc(find_hits(searched, pairs, rule), rule, rates, patients, settings) for name, rule in rules.items()
    }
    hits = next(iter(froc.values())).hits
    return DetectionFigures(
        images=len(searched.detections),
        lesion_free=len(searched.detections) - len(set(searched.lesions.image_id)),
        patients=len(set(patients)),
        lesions=len(searched.lesions),
        lesion_patients=len(set(searched.lesion_patient)),
        coco=coco,
        froc=froc,
        threshold=threshold,
        at_threshold=_at_threshold(searched, hits, threshold, settings),
        strata=tuple(_strata(searched, hits, threshold, settings, sizes)),
    )


def choose_detection_threshold(
    searched: Searched, *, rule: HitRule = RULES["iou"], rate: float = OPERATING_RATE
) -> Threshold:
    """Choose the lowest score at which these images have at most `rate` false positives each.

    Args:
        searched: The validation images.
        rule: When a mark hits a lesion.
        rate: False positives an image.
    """
    if not len(searched.detections):
        return Threshold(None, "there are no validation images to choose a threshold on")
    curve = froc_curve(find_hits(searched, pair_boxes(searched), rule))
    if not len(curve.thresholds):
        return Threshold(None, "nothing was found in the validation images")
    value, _ = curve.at(rate)
    if value is None:
        return Threshold(None, f"even the highest score makes more than {rate:g} false positives a validation image")
    return Threshold(value)


def found_at(hits: Hits, threshold: float) -> npt.NDArray[np.bool_]:
    """Which lesions are found at a threshold, (K,)."""
    found: npt.NDArray[np.bool_] = hits.lesion_score >= threshold
    return found


def operating_statistics(searched: Searched, hits: Hits, threshold: float) -> dict[str, Statistic]:
    """Figures at a threshold under integer weights of the images."""
    images = len(searched.detections)
    found = np.bincount(hits.lesion_image[found_at(hits, threshold)], minlength=images)
    lesions = np.bincount(hits.lesion_image, minlength=images)
    false = np.bincount(hits.false_image[hits.false_score >= threshold], minlength=images)
    return {
        "lesion_sensitivity": ratio_statistic(found, lesions),
        "false_positives_per_image": mean_statistic(false),
        "lesion_free_images_without_marks": mean_statistic(false == 0, lesions == 0),
    }


def _froc(
    hits: Hits, rule: HitRule, rates: Sequence[float], patients: Sequence[str], settings: Settings
) -> FrocFigures:
    curve = froc_curve(hits)
    names = (*(f"rate {rate:g}" for rate in rates), "score")
    if len(hits.lesion_score):
        figures = measure({}, patients, settings, jointly={names: froc_statistic(hits, rates)})
    else:
        figures = dict.fromkeys(names, Figure(None, None, None, NO_LESIONS if hits.images else NO_IMAGES))
    thresholds = tuple(curve.at(rate)[0] for rate in rates)
    sensitivity = tuple(figures[name] for name in names[:-1])
    return FrocFigures(rule, hits, curve, tuple(rates), thresholds, sensitivity, figures["score"])


def _at_threshold(searched: Searched, hits: Hits, threshold: Threshold, settings: Settings) -> dict[str, Figure]:
    statistics = operating_statistics(searched, hits, threshold.value or 0.0)
    if threshold.value is None:
        return dict.fromkeys(statistics, Figure(None, None, None, threshold.reason))
    reasons = dict.fromkeys(statistics, NO_IMAGES)
    if len(searched.detections):
        reasons |= {"lesion_sensitivity": NO_LESIONS, "lesion_free_images_without_marks": "every image has a lesion"}
    patients = searched.detections.patient_id
    figures = measure(statistics, patients, settings, reasons=reasons)
    with_lesions = set(searched.lesions.image_id)
    healthy = {
        who for who, image in zip(patients, searched.detections.image_id, strict=True) if image not in with_lesions
    }
    for name, whose in (
        ("lesion_sensitivity", set(searched.lesion_patient)),
        ("lesion_free_images_without_marks", healthy),
    ):
        figures[name] = not_too_certain(figures[name], len(whose), settings)
    return figures


def _strata(
    searched: Searched, hits: Hits, threshold: Threshold, settings: Settings, sizes: Mapping[str, tuple[float, float]]
) -> list[Stratum]:
    if threshold.value is None or not len(searched.lesions):
        return []
    found = found_at(hits, threshold.value)
    patients = np.array(searched.lesion_patient, dtype=object)
    area = (searched.lesions.boxes[:, 2:] - searched.lesions.boxes[:, :2]).prod(axis=1)
    columns: dict[str, Sequence[str]] = {"size": [_size(value, sizes) for value in area], **searched.lesions.columns}
    if len(set(searched.lesions.label)) > 1:
        columns["label"] = searched.lesions.label

    def measured(rows: Rows, _: str) -> Measured:
        own = patients[rows].tolist()
        share = measure({"sensitivity": mean_statistic(found[rows])}, own, settings)["sensitivity"]
        return Measured({"lesions": len(own)}, {"sensitivity": not_too_certain(share, len(set(own)), settings)})

    return strata(columns, measured)


def _size(area: float, sizes: Mapping[str, tuple[float, float]]) -> str:
    return next((name for name, (low, high) in sizes.items() if low <= area <= high), "")


def _with_value(figure: Figure, value: float) -> Figure:
    return figure if np.isnan(value) else Figure(value, figure.low, figure.high, figure.reason)
