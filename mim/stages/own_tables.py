"""Whether a table beside metrics.json is the one that its figures were computed from."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mim.evaluation import Detections, Lesions, Predictions, SegmentedClasses
from mim.evaluation.class_means import mean_of_classes
from mim.evaluation.coco import coco_values
from mim.evaluation.detections import join
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.predictions import SPLITS
from mim.evaluation.segmentation import overlap_statistics


def gives_figures(content: Mapping[str, Any], predictions: Predictions) -> bool:
    """Whether scores give the number of films, the Brier score and the share of cells seen that are written.

    Args:
        content: Of metrics.json.
        predictions: What stands beside it.

    Raises:
        KeyError: `content` lacks a part.
    """
    for split in SPLITS:
        own, told = predictions.scored.of(split), content[split]
        if (len(own), int(own.label.sum())) != (told["films"], told["positives"]):
            return False
        figures = {"brier": (own.score - own.label) ** 2, "keep_rate": own.keep_rate}
        if not all(
            _same(told[name]["value"], values.mean() if len(own) else np.nan) for name, values in figures.items()
        ):
            return False
    return True


def gives_average_precision(content: Mapping[str, Any], detections: Detections, lesions: Lesions) -> bool:
    """Whether boxes give the number of films and lesions and the AP that are written of the test films.

    Args:
        content: Of metrics.json.
        detections: What was found, beside it.
        lesions: What is there, beside it.

    Raises:
        KeyError: `content` lacks a part.
        MimError: the two tables are not of the same films.
    """
    test, told = join(detections, lesions).of("test"), content["blocks"]["detection"]
    if (len(test.detections), len(test.lesions)) != (told["images"], told["lesions"]):
        return False
    return _same(told["coco"]["ap"]["value"], coco_values(test)["ap"] if len(test.lesions) else np.nan)


def gives_brier_scores(content: Mapping[str, Any], predictions: LabelPredictions) -> bool:
    """Whether scores give the numbers of test films and the Brier score that are written of each question.

    Args:
        content: Of metrics.json.
        predictions: What stands beside it.

    Raises:
        KeyError: `content` lacks a part.
    """
    told = {question["name"]: question["test"] for question in content["blocks"]["labels"]["questions"]}
    for place, name in enumerate(predictions.questions):
        own = predictions.question(place).of("test")
        if (len(own), int(own.label.sum())) != (told[name]["films"], told[name]["positives"]):
            return False
        if not _same(told[name]["brier"]["value"], ((own.score - own.label) ** 2).mean() if len(own) else np.nan):
            return False
    return True


def gives_dice(told: Mapping[str, Any], images: SegmentedClasses) -> bool:
    """Whether overlaps give the Dice of films and of lesions that are written of the test films.

    Args:
        told: The figures of metrics.json; of several classes their means.
        images: What stands beside it.

    Raises:
        KeyError: `told` lacks a figure.
    """
    test = images.of("test")
    if not len(test):
        return told["dice"]["value"] is None
    figures = mean_of_classes([overlap_statistics(own.overlaps) for own in test.images], len(test))
    once = np.ones((1, len(test)), dtype=np.int64)
    return all(_same(told[name]["value"], float(figures[name](once)[0])) for name in ("dice", "lesion_dice"))


def _same(told: float | None, found: float) -> bool:
    """Whether a figure is what it was, but for rounding; where there is none, none is written."""
    return bool(np.isnan(found)) if told is None else math.isclose(told, found, rel_tol=1e-9, abs_tol=1e-9)
