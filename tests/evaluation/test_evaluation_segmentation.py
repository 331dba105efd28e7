import json

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric, SurfaceDiceMetric

from mim.errors import MimError
from mim.evaluation import Settings, segmentation_section
from mim.evaluation.segmentation import measure_overlaps, overlap

EMPTY = np.zeros((40, 60), dtype=bool)


def mask(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    drawn = EMPTY.copy()
    for top, bottom, left, right in boxes:
        drawn[top:bottom, left:right] = True
    return drawn


TRUTH = mask((5, 15, 5, 20), (25, 30, 40, 50))
DRAWN = mask((6, 15, 7, 24), (33, 36, 3, 9))


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.5)])
def test_images_are_measured_as_monai_does(tolerance: float, spacing: tuple[float, float]) -> None:
    own = overlap(TRUTH, DRAWN, tolerance=tolerance, spacing=spacing)
    drawn, truth = (torch.from_numpy(side)[None, None] for side in (DRAWN, TRUTH))
    dice = DiceMetric()(drawn.float(), truth.float())
    surface = SurfaceDiceMetric([tolerance], include_background=True)(drawn, truth, spacing=spacing)
    assert own.dice == pytest.approx(float(dice), abs=1e-6)
    assert own.surface == pytest.approx(float(surface), abs=1e-6)


def test_lesions_are_measured_with_what_touches_them() -> None:
    own = overlap(TRUTH, DRAWN, tolerance=1.0)
    both = (TRUTH & DRAWN).sum()
    first, second = own.lesions
    assert first.dice == pytest.approx(2 * both / (150 + 9 * 17), abs=1e-6)
    assert (first.area, first.drawn, first.both) == (150, 9 * 17, both)
    assert first.covered == both / 150
    assert (second.dice, second.surface, second.area, second.drawn, second.covered) == (0, 0, 50, 0, 0)
    assert (own.area, own.drawn, own.both) == (200, 9 * 17 + 18, both)
    assert (own.false_parts, own.false_area) == (1, 18)
    alone = mask((5, 15, 5, 20))
    drawn, truth = (torch.from_numpy(side)[None, None] for side in (mask((6, 15, 7, 24)), alone))
    expected = SurfaceDiceMetric([1.0], include_background=True)(drawn, truth)
    assert first.surface == pytest.approx(float(expected), abs=1e-6)


def test_the_rule_for_empty_truth_is_kept() -> None:
    assert np.isnan(overlap(EMPTY, DRAWN).dice)
    assert overlap(EMPTY, DRAWN, empty_truth="score").dice == 0
    assert overlap(EMPTY, EMPTY, empty_truth="score").surface == 1
    assert overlap(TRUTH, EMPTY).dice == overlap(TRUTH, EMPTY).surface == 0
    assert [lesion.dice for lesion in overlap(TRUTH, TRUTH).lesions] == [1, 1]
    assert (overlap(EMPTY, DRAWN).false_parts, overlap(EMPTY, DRAWN).false_area) == (2, int(DRAWN.sum()))


def test_lesions_that_are_given_are_told_apart_where_they_touch() -> None:
    left, right = mask((5, 15, 5, 20)), mask((5, 15, 20, 30))
    together = left | right
    assert len(overlap(together, left).lesions) == 1
    first, second = overlap(together, left, lesions=[left, right]).lesions
    assert (first.dice, first.covered) == (1, 1)
    assert (second.dice, second.covered, second.drawn) == (0, 0, 0)
    whole = overlap(together, together, lesions=[left, right])
    assert [own.drawn for own in whole.lesions] == [250, 250], "one part that touches both is drawn for both"


def test_means_leave_out_what_the_rule_leaves_out() -> None:
    images = [overlap(TRUTH, DRAWN), overlap(EMPTY, DRAWN), overlap(EMPTY, EMPTY), overlap(TRUTH, TRUTH)]
    figures = measure_overlaps(images, list("abcd"), Settings(200))
    assert figures["dice"].value == pytest.approx((images[0].dice + 1) / 2)
    assert figures["lesion_dice"].value == pytest.approx((images[0].lesions[0].dice + 0 + 1 + 1) / 4)
    assert figures["lesions_touched"].value == pytest.approx(3 / 4)
    assert images[0].lesions[0].covered > 0.5
    assert figures["lesions_found"].value == pytest.approx(3 / 4)
    assert figures["false_parts"].value == pytest.approx((1 + 2 + 0 + 0) / 4)
    assert figures["drawn_without_lesion"].value == 0.5
    assert figures["dice"].low is not None
    assert figures["dice"].low < figures["dice"].value < figures["dice"].high  # type: ignore[operator]


def test_shares_that_no_resample_changes_are_not_taken_for_certain() -> None:
    images = [overlap(TRUTH, TRUTH), overlap(TRUTH, TRUTH), overlap(EMPTY, EMPTY)]
    figures = measure_overlaps(images, ["a", "a", "b"], Settings(100))
    assert figures["lesions_found"].value == 1
    assert (figures["lesions_found"].low, figures["lesions_found"].high) == (pytest.approx(0.025), 1), "one patient"
    assert figures["drawn_without_lesion"].high == pytest.approx(0.975)


@pytest.mark.parametrize("rule", ["skip", "score"])
def test_no_lesions_are_said(rule: str) -> None:
    images = [overlap(EMPTY, DRAWN, empty_truth=rule), overlap(EMPTY, EMPTY, empty_truth=rule)]  # type: ignore[arg-type]
    section = segmentation_section(images, ["a", "b"], Settings(100), tolerance=2.0, empty_truth=rule)  # type: ignore[arg-type]
    assert section.first_lines == ("Segmentation: the 2 test images hold no lesion.",)
    assert (section.figures["dice"]["value"] is None) == (rule == "skip")
    assert section.figures["lesion_dice"]["reason"] == "there are no lesions"
    assert section.figures["drawn_without_lesion"]["value"] == 0.5
    json.dumps(section.figures, allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drawn": EMPTY[:5]}, "shapes"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"spacing": (0.0, 1.0)}, "spacing"),
        ({"empty_truth": "one"}, "skip or score"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(MimError, match=message):
        overlap(**{"truth": TRUTH, "drawn": DRAWN} | arguments)  # type: ignore[arg-type]
