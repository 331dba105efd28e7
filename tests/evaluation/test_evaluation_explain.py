import numpy as np
import pytest

from mim.errors import MimError
from mim.evaluation.explain import area_under, deletion_masks, importance_order, insertion_masks, pointing_hit
from mim.evaluation.explanations_block import RANDOM, Faithfulness, best_explanation, explanations_block
from mim.evaluation.mean_figure import Resampling
from mim.evaluation.pictures import explanation_picture, film_picture

SEEN = np.array([[True, True, False], [True, False, True]])


def test_masks_hide_and_show_in_order_and_leave_alone_what_was_not_seen() -> None:
    scores = np.array([[0.1, 0.9, 5.0], [0.5, 5.0, np.nan]])
    order = importance_order(scores, SEEN, np.random.default_rng(0))
    assert order.tolist() == [1, 3, 0, 5]
    deleted, inserted = deletion_masks(order, SEEN, 5), insertion_masks(order, SEEN, 5)
    assert np.array_equal(deleted[0], SEEN)
    assert not deleted[-1].any()
    assert not inserted[0].any()
    assert np.array_equal(inserted[-1], SEEN)
    assert np.array_equal(deleted ^ inserted, np.repeat(SEEN[None], 5, axis=0))
    assert deleted[1].ravel().tolist() == [True, False, False, True, False, True]


def test_ties_are_in_random_order() -> None:
    met = {tuple(importance_order(np.zeros((2, 3)), SEEN, np.random.default_rng(seed))) for seed in range(30)}
    assert len(met) > 5
    assert all(sorted(order) == [0, 1, 3, 5] for order in met)


def test_areas_are_of_trapezoids_and_pointing_shares_ties() -> None:
    assert area_under([[0.0, 1.0], [1.0, 1.0]]) == pytest.approx([0.5, 1.0])
    assert area_under(np.linspace(0, 1, 11) ** 2) == pytest.approx(1 / 3, abs=2e-3)
    lesion = np.array([[True, False, True], [False, True, False]])
    assert pointing_hit([[9, 1, 99], [2, 3, 4]], SEEN, lesion) == 1  # the 99 was not seen
    assert pointing_hit([[1, 9, 0], [2, 3, 4]], SEEN, lesion) == 0
    assert pointing_hit(np.zeros((2, 3)), SEEN, lesion) == 0.25
    assert np.isnan(pointing_hit(np.zeros((2, 3)), np.zeros((2, 3)), lesion))


def faithful(deletion: float, insertion: float) -> Faithfulness:
    wobble = np.linspace(-0.02, 0.02, 12)[:, None]
    ones = np.ones((12, 5))
    hits = np.where(np.arange(12) < 6, 1.0, np.nan)
    return Faithfulness(deletion * ones + wobble, insertion * ones - wobble, hits)


def test_the_block_doubts_what_is_no_better_than_chance() -> None:
    patients = Resampling([str(number) for number in range(12)], resamples=200)
    random = faithful(0.5, 0.5)
    good = {"occlusion": faithful(0.2, 0.8), "masker": faithful(0.5, 0.5), RANDOM: random}
    assert best_explanation(good) == "occlusion"
    section = explanations_block(good, patients, ["attention rollout"], drawn=True)
    assert len(section.first_lines) == 1
    assert "its mask is no explanation" in section.first_lines[0]
    assert section.figures["explanations"]["occlusion"]["gain"]["value"] == pytest.approx(0.6)
    assert section.figures["films_with_lesion"] == 6
    assert "attention rollout" in section.text[0]
    useless = {"lime": faithful(0.6, 0.4), RANDOM: random}
    assert "not to be read" in explanations_block(useless, patients, [], drawn=False).first_lines[0]
    assert (
        explanations_block({"occlusion": good["occlusion"], RANDOM: random}, patients, [], drawn=False).first_lines
        == ()
    )


def test_an_overlay_tints_by_sign_and_hatches_what_was_not_seen() -> None:
    image = np.full((40, 60), 0.5, dtype=np.float32)
    scores = np.array([[2.0, -2.0, 0.0], [0.0, np.nan, 0.0]])
    drawn = explanation_picture(image, scores, side=60).astype(int)
    plain = int(film_picture(image, side=60)[0, 0])
    red, blue = drawn[10, 10], drawn[10, 30]
    assert red[0] > plain + 30 > red[2]
    assert blue[2] > plain + 30 > blue[0]
    assert (drawn[5, 50] == plain).all()
    assert drawn[30, 30].max() < plain or (drawn[25:35, 25:35].mean() < plain)
    with pytest.raises(MimError, match="must be four numbers"):
        explanation_picture(image, scores, [(1, 2, 3)])
