import numpy as np
import pytest

from mim.evaluation import Intervals, auroc_figures
from mim.evaluation.leakage import choose_donors, mask_overlap, roll_masks, score_masks_alone

FILMS, GRID = 120, (6, 8)
INTERVALS = Intervals(resamples=200)
PATIENTS = [f"p{film // 2}" for film in range(FILMS)]
LABELS = np.random.default_rng(5).integers(2, size=FILMS)


def random_masks(seed: int = 0, share: float = 0.5) -> np.ndarray:
    scores = np.random.default_rng(seed).random((FILMS, GRID[0] * GRID[1]))
    return (scores.argsort(axis=1).argsort(axis=1) < share * scores.shape[1]).reshape(FILMS, *GRID)


def auc_alone(masks: np.ndarray) -> float:
    scores, reason = score_masks_alone(masks, LABELS, PATIENTS, seed=0)
    assert scores is not None, reason
    value = auroc_figures(LABELS, PATIENTS, {"alone": scores[None]}, INTERVALS)["alone"].value
    assert value is not None
    return value


def test_a_mask_that_carries_the_label_in_one_cell_is_found_out() -> None:
    masks = random_masks()
    masks[:, 2, 3] = LABELS == 1
    assert auc_alone(masks) > 0.95


def test_a_mask_that_carries_the_label_in_its_shape_wherever_that_lies_is_found_out() -> None:
    draws = np.random.default_rng(1)
    masks = random_masks()
    for mask, label in zip(masks, LABELS, strict=True):
        if label:
            row, column = draws.integers(4), draws.integers(6)
            mask[row : row + 3, column : column + 3] = True
    assert auc_alone(masks) > 0.9


def test_random_masks_tell_nothing() -> None:
    aucs = [auc_alone(random_masks(seed)) for seed in range(2)]
    assert 0.4 < np.mean(aucs) < 0.6


def test_what_was_learnt_of_a_patient_is_not_used_on_him() -> None:
    """Each patient has a mask of his own and a label of his own: nothing is to be learnt from others."""
    labels = np.repeat(np.random.default_rng(3).integers(2, size=FILMS // 4), 4)
    patients = [f"p{film // 4}" for film in range(FILMS)]
    own = random_masks(7)[: FILMS // 4].repeat(4, axis=0)
    scores, _ = score_masks_alone(own, labels, patients, seed=0)
    assert scores is not None
    value = auroc_figures(labels, patients, {"alone": scores[None]}, INTERVALS)["alone"].value
    assert value is not None
    assert value < 0.8


def test_too_few_patients_of_a_class_are_said() -> None:
    scores, reason = score_masks_alone(random_masks(), np.zeros(FILMS, dtype=int), PATIENTS, seed=0)
    assert scores is None
    assert "too few" in reason


def test_identical_masks_overlap_wholly_and_random_ones_hardly_more_than_by_chance() -> None:
    same = random_masks()[:1].repeat(FILMS, axis=0)
    overlap, chance = mask_overlap(same, PATIENTS, INTERVALS)
    assert overlap.value == 1
    assert chance == pytest.approx(0.5 / 1.5)
    varied, _ = mask_overlap(random_masks(), PATIENTS, INTERVALS)
    assert varied.value is not None
    assert varied.low is not None
    assert varied.high is not None
    assert varied.low <= varied.value <= varied.high
    assert varied.value < chance + 0.1


def test_a_shifted_mask_shows_as_much_and_never_the_same() -> None:
    masks = np.zeros((FILMS, *GRID), dtype=bool)
    masks[:, 0, 0] = True
    rolled = roll_masks(masks, seed=0)
    assert (rolled.sum(axis=(1, 2)) == 1).all()
    assert not rolled[:, 0, 0].any()
    assert len({mask.tobytes() for mask in rolled}) > 20
    assert (roll_masks(masks, seed=0) == rolled).all()


def test_a_donor_is_another_patient() -> None:
    donors = choose_donors(PATIENTS, seed=0)
    assert donors is not None
    assert all(PATIENTS[donor] != PATIENTS[film] for film, donor in enumerate(donors))
    assert choose_donors(["p"] * 3, seed=0) is None
