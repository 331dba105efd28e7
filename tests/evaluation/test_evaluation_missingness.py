import numpy as np
import pytest
from scipy.stats import entropy

from mim.evaluation.mask_shape import ShapeScores, roll_mask, scatter_mask, shape_block, shape_figures
from mim.evaluation.mean_figure import Resampling
from mim.evaluation.missingness import MissingnessResult, Removal, binary_entropy, missingness_block
from mim.evaluation.removal import cell_parts, part_means, patch_parts, removed_at, superpixel_parts, to_cells

REMOVED = np.array([0.0, 0.25, 0.5, 0.95])
FOUR = Resampling(["a", "b", "c", "d"], resamples=200)


def test_what_is_removed_grows_with_the_share_and_is_as_much_as_whole_parts_allow() -> None:
    parts = patch_parts(48, 64, 16)
    assert parts.max() == 11
    order = np.random.default_rng(0).permutation(12)
    before = np.zeros((48, 64), dtype=bool)
    for share in np.linspace(0, 1, 21):
        removed = removed_at(parts, order, share)
        assert (before <= removed).all()
        assert abs(removed.mean() - share) <= 0.5 / 12 + 1e-9
        assert (
            np.isin(order, parts[removed]).sum() == np.isin(order[: round(removed.mean() * 12)], parts[removed]).sum()
        )
        before = removed
    assert not removed_at(parts, order, 0.0).any()
    assert removed_at(parts, order, 1.0).all()


def test_superpixels_follow_edges_have_no_gaps_in_their_numbers_and_are_rounded_to_cells() -> None:
    image = np.zeros((64, 64))
    image[16:48, 24:56] = 1
    parts = superpixel_parts(image, 30)
    assert np.array_equal(np.unique(parts), np.arange(parts.max() + 1))
    means = part_means(parts, image)
    assert (np.abs(means - 0.5) > 0.3).all()  # none lies on both sides of the edge by half
    cells = cell_parts(parts, (8, 8))
    assert np.array_equal(np.unique(cells), np.arange(cells.max() + 1))
    removed = np.zeros((64, 64), dtype=bool)
    removed[:8, :4] = removed[8:16, :3] = True
    assert to_cells(removed, (8, 8))[:2, 0].tolist() == [True, False]  # half of a cell hides it, less does not
    assert np.array_equal(to_cells(removed, (64, 64)), removed)


def test_the_curves_are_what_their_names_say() -> None:
    scores = np.array([[0.9, 0.8, 0.2, 0.1], [0.9, 0.4, 0.2, 0.1], [0.9, 0.4, 0.6, 0.1], [0.6, 0.6, 0.6, 0.6]])
    one = Removal("drop", "patch", "random", REMOVED, scores)
    assert one.unchanged(0.5).mean(axis=1).tolist() == [1.0, 0.75, 0.5, 0.5]
    assert one.accuracy([1, 1, 0, 0], 0.5).tolist() == [1.0, 0.75, 0.5, 0.5]
    assert one.class_entropy(0.5) == pytest.approx([1.0, entropy([1, 3], base=2), 1.0, 0.0])
    assert one.predictive_entropy()[-1] == pytest.approx(entropy([0.6, 0.4], base=2))
    assert binary_entropy([0.0, 0.5, 1.0]).tolist() == [0.0, 1.0, 0.0]


def removal(hiding: str, last: list[float]) -> Removal:
    whole = [0.9, 0.9, 0.1, 0.1]
    return Removal(hiding, "patch", "random", REMOVED, np.array([whole, last, last, last]))


def test_the_block_says_first_where_painting_over_changes_less_than_the_own_hiding() -> None:
    labels = np.array([1, 1, 0, 0])
    steady, turned = [0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9]
    worse = MissingnessResult([removal("drop", turned), removal("black", steady)], labels, 0.5, "drop", ["layer"])
    section = missingness_block(worse, FOUR)
    assert "painting hidden parts over" in section.first_lines[0]
    assert "-1.000" in section.first_lines[0]
    assert "layer" in section.text[0]
    better = MissingnessResult([removal("drop", steady), removal("black", turned)], labels, 0.5, "drop")
    section = missingness_block(better, FOUR)
    assert section.first_lines == ()
    (drop, black) = section.figures["removals"]
    assert drop["unchanged_mean"]["value"] == 1
    assert black["unchanged"] == [1.0, 0.0, 0.0, 0.0]
    assert section.plots[0].drawing.count("<svg") == 1
    assert "drop (this run's) 1.000" in section.summary[0]


def test_an_outline_is_moved_whole_and_never_left_in_place() -> None:
    hidden = np.zeros((4, 5), dtype=bool)
    hidden[1, 1:3] = hidden[2, 1] = True
    for seed in range(40):
        rolled = roll_mask(hidden, np.random.default_rng(seed))
        assert rolled.sum() == 3
        assert not np.array_equal(rolled, hidden)
        assert any(
            np.array_equal(np.roll(hidden, (down, right), (0, 1)), rolled) for down in range(4) for right in range(5)
        )
        assert scatter_mask(hidden, np.random.default_rng(seed)).sum() == 3


def test_the_outline_block_says_when_outlines_without_content_tell_the_label() -> None:
    labels = np.array([0, 1] * 20)
    patients = Resampling([str(number) for number in range(40)], resamples=200)
    flat = np.full(40, 0.4)

    def scored(blank: np.ndarray) -> ShapeScores:
        return ShapeScores("layer", "masker", labels, flat, np.where(labels, 0.7, 0.3), flat, flat, flat, blank)

    telling, silent = scored(np.where(labels, 0.8, 0.2)), scored(flat)
    figures = shape_figures(telling, 0.5, patients)
    assert figures["changed_in_place"].value == 0.5
    assert figures["in_place_minus_rolled"].value == 0.5
    assert figures["blank_auroc"].value == 1
    assert "without any content" in shape_block([(telling, patients)], 0.5, "layer", []).first_lines[0]
    assert shape_block([(silent, patients)], 0.5, "layer", []).first_lines == ()
    assert shape_block([(telling, patients)], 0.5, "sparse", []).first_lines == ()


def test_intervals_are_over_patients_and_films_that_do_not_count_are_left_out() -> None:
    values = np.array([0.0, 0.0, 1.0, 1.0, np.nan])
    two = Resampling(["a", "a", "b", "b", "c"], resamples=500).mean(values)
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)
    assert Resampling(["a"] * 5).mean(values).low is None
    assert Resampling(["a"] * 5).mean(np.full(5, np.nan)).value is None
