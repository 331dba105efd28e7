from collections.abc import Callable

import numpy as np
import pytest
from monai.metrics import compute_froc_curve_data, compute_froc_score
from monai.metrics.froc import compute_fp_tp_probs_nd

from mim.errors import MimError
from mim.evaluation import Detections, Lesions, Searched
from mim.evaluation.box_pairs import pair_boxes
from mim.evaluation.detections import join
from mim.evaluation.froc import RATES, HitRule, find_hits, froc_curve, froc_statistic

Drawn = Callable[..., tuple[Detections, Lesions]]
CENTRE = HitRule(None)


def table(images: int, boxes: list[tuple[int, list[float], float]], lesions: list[tuple[int, list[float]]]) -> Searched:
    names = [str(number) for number in range(images)]
    found = Detections(
        names,
        names,
        ["test"] * images,
        np.array([row[0] for row in boxes], dtype=np.int64),
        np.array([row[1] for row in boxes], dtype=float).reshape(-1, 4),
        np.array([row[2] for row in boxes], dtype=float),
        ["caries"] * len(boxes),
    )
    corners = np.array([row[1] for row in lesions], dtype=float).reshape(-1, 4)
    return join(found, Lesions([names[row[0]] for row in lesions], corners, ["caries"] * len(lesions)))


def test_the_curve_and_the_score_are_those_of_monai() -> None:
    draws = np.random.default_rng(3)
    boxes, lesions, false, true, targets = [], [], [], [], 0
    for image in range(12):
        mask = np.zeros((100, 100), dtype=int)
        for number in range(image % 4):
            x, y = 5 + 30 * number, int(draws.integers(0, 80))
            mask[y : y + 15, x : x + 12] = number + 1
            lesions.append((image, [x, y, x + 12, y + 15]))
        points = draws.integers(5, 95, (25, 2))
        scores = np.round(draws.uniform(0.05, 1, 25), 2)
        boxes += [(image, [x - 2, y - 2, x + 2, y + 2], s) for (x, y), s in zip(points, scores, strict=True)]
        if mask.any():
            one, other, count = compute_fp_tp_probs_nd(scores, points[:, ::-1], mask)
            true.append(other)
            targets += count
        else:
            one = scores
        false.append(one)
    searched = table(12, boxes, lesions)
    all_true = np.concatenate(true).astype(float)
    assert (all_true == 0).any(), "MONAI leaves out the lowest score, so one lesion must be missed"
    rates, sensitivity = compute_froc_curve_data(np.concatenate(false), np.round(all_true, 2), targets, 12)
    curve = froc_curve(find_hits(searched, pair_boxes(searched), CENTRE))
    assert np.r_[0, curve.false_positives] == pytest.approx(rates[::-1])
    assert np.r_[0, curve.sensitivity] == pytest.approx(sensitivity[::-1])
    assert curve.score(RATES) == pytest.approx(compute_froc_score(rates, sensitivity, RATES))
    assert curve.score((0.25, 0.5, 1, 2, 4, 8)) == pytest.approx(compute_froc_score(rates, sensitivity))


def test_rules_differ_where_they_should() -> None:
    lesion = [(0, [10.0, 10.0, 30.0, 30.0])]
    small_inside = table(1, [(0, [18, 18, 22, 22], 0.9)], lesion)
    shifted = table(1, [(0, [10, 10, 30, 42], 0.9)], lesion)
    beside = table(1, [(0, [24, 10, 44, 30], 0.9)], lesion)
    for searched, by_iou, by_centre in ((small_inside, 0, 1), (shifted, 1, 1), (beside, 0, 0)):
        pairs = pair_boxes(searched)
        for rule, expected in ((HitRule(0.5), by_iou), (CENTRE, by_centre)):
            hits = find_hits(searched, pairs, rule)
            assert (hits.lesion_score > -np.inf).sum() == expected
            assert len(hits.false_score) == 1 - expected
    assert len(find_hits(beside, pair_boxes(beside), HitRule(0.1)).false_score) == 0


def test_a_second_mark_counts_neither_for_nor_against_and_one_mark_finds_one_lesion() -> None:
    searched = table(
        2,
        [(0, [0, 0, 10, 10], 0.9), (0, [1, 1, 10, 10], 0.8), (1, [0, 0, 5, 5], 0.7)],
        [(0, [0, 0, 10, 10]), (0, [2, 2, 12, 12])],
    )
    hits = find_hits(searched, pair_boxes(searched), CENTRE)
    assert hits.lesion_score.tolist() == [0.9, -np.inf]
    assert hits.false_score.tolist() == [0.7]
    curve = froc_curve(hits)
    assert curve.at(0.125) == (0.9, 0.5)
    assert curve.at(0.5) == (0.7, 0.5)


def test_thresholds_are_the_lowest_that_keep_the_rate(draw: Drawn) -> None:
    searched = join(*draw(6))
    hits = find_hits(searched, pair_boxes(searched), HitRule(0.5))
    curve = froc_curve(hits)
    for rate in RATES:
        threshold, sensitivity = curve.at(rate)
        assert threshold is not None
        assert (hits.false_score >= threshold).sum() <= rate * 40
        assert sensitivity == pytest.approx((hits.lesion_score >= threshold).mean())
        lower = curve.thresholds[curve.thresholds < threshold]
        assert not len(lower) or (hits.false_score >= lower.max()).sum() > rate * 40


def test_images_without_lesions_count_as_images(draw: Drawn) -> None:
    found, lesions = draw(6)
    with_lesions = np.array([name in set(lesions.image_id) for name in found.image_id])
    every, some = join(found, lesions), join(found.keep(with_lesions), lesions)
    curves = [froc_curve(find_hits(own, pair_boxes(own), CENTRE)) for own in (every, some)]
    false = (found.score >= curves[0].thresholds[-1]).sum()
    assert curves[0].false_positives[-1] * 40 > curves[1].false_positives[-1] * with_lesions.sum()
    assert curves[0].false_positives[-1] * 40 <= false


@pytest.mark.parametrize("rule", [HitRule(0.5), CENTRE])
def test_a_weighted_resample_is_the_written_out_one(
    draw: Drawn, written_out: Callable[[Searched, np.ndarray], Searched], rule: HitRule
) -> None:
    searched = join(*draw(7))
    weights = np.random.default_rng(2).integers(0, 4, (5, 40))
    found = froc_statistic(find_hits(searched, pair_boxes(searched), rule))(weights)
    for row, values in zip(weights, found, strict=True):
        copied = written_out(searched, row)
        curve = froc_curve(find_hits(copied, pair_boxes(copied), rule))
        assert values == pytest.approx([*(curve.at(rate)[1] for rate in RATES), curve.score(RATES)], abs=1e-12)


@pytest.mark.parametrize("iou", [0.0, 1.5, -1.0])
def test_an_overlap_out_of_range_is_refused(iou: float) -> None:
    with pytest.raises(MimError, match="hit rule"):
        HitRule(iou)
