import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from mim.masking import (
    RandPatchMaskd,
    ThresholdMasker,
    hidden_count,
    random_visible_batch,
)
from mim.masking.mask import show_best_cells


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.01, 0.99), st.sampled_from([1, 8, 16]), st.integers(0, 99))
def test_rand_patch_mask_hides_an_exact_count(rows, columns, ratio, size, seed):
    if rows * columns < 2:
        columns = 2
    transform = RandPatchMaskd("image", patch_size=size, masking_ratio=ratio)
    transform.set_random_state(seed=seed)
    image = torch.rand(1, rows * size, columns * size)
    sample = transform({"image": image, "other": 1})
    visible = sample["visible"]
    assert visible.shape == (rows, columns)
    assert visible.dtype == torch.bool
    hidden = int((~visible).sum())
    assert hidden == hidden_count(rows * columns, ratio)
    assert 1 <= hidden < rows * columns
    assert abs(hidden - ratio * rows * columns) <= 1
    assert sample["image"] is image
    assert sample["other"] == 1


def test_rand_patch_mask_is_a_function_of_its_seed():
    transform = RandPatchMaskd(["image"], patch_size=16)
    sample = {"image": np.zeros((1, 224, 224), np.float32)}
    masks = []
    for seed in (1, 1, 2):
        transform.set_random_state(seed=seed)
        masks.append(transform(sample)["visible"])
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_rand_patch_mask_composes_with_monai():
    pipeline = Compose([RandPatchMaskd("image", 8, 0.5, visible_key="seen")]).set_random_state(seed=3)
    sample = pipeline({"image": torch.rand(1, 32, 64)})
    assert int(sample["seen"].sum()) == 16


def test_every_cell_is_hidden_equally_often():
    transform = RandPatchMaskd("image", 8, 0.75)
    transform.set_random_state(seed=0)
    share = sum(transform({"image": torch.zeros(1, 32, 32)})["visible"].float() for _ in range(2000)) / 2000
    assert (share - 0.25).abs().max() < 0.05


@pytest.mark.parametrize(
    ("arguments", "sample", "message"),
    [
        ({"patch_size": 16}, {"image": torch.zeros(1, 30, 32)}, "whole number"),
        ({"keys": ["image", "b"]}, {"image": torch.zeros(1, 32, 32), "b": torch.zeros(1, 16, 16)}, "share one size"),
        ({"patch_size": 32}, {"image": torch.zeros(1, 32, 32)}, "cannot have both"),
    ],
)
def test_rand_patch_mask_names_what_does_not_fit(arguments, sample, message):
    with pytest.raises(ValueError, match=message):
        RandPatchMaskd(**{"keys": "image", **arguments})(sample)


@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5])
def test_a_ratio_that_hides_all_or_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        RandPatchMaskd("image", masking_ratio=ratio)


def test_threshold_keeps_where_value_is_at_or_above():
    values = torch.tensor([[0.1, 0.5], [0.6, 0.4]])
    image = values[None, None].repeat_interleave(16, 2).repeat_interleave(16, 3)
    mask = ThresholdMasker(0.5)({"image": image})
    assert torch.equal(mask.visible[0], values >= 0.5)
    torch.testing.assert_close(mask.scores[0], values)
    assert mask.gate is None
    below = ThresholdMasker(0.4, keep="below")({"image": image})
    assert torch.equal(below.visible[0], mask.scores[0] <= 0.4)


def test_threshold_by_variance_and_gradient():
    image = torch.zeros(1, 1, 16, 32)
    image[..., 16:] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    mask = ThresholdMasker(0.01, score="variance")({"image": image})
    assert mask.visible.tolist() == [[[False, True]]]
    torch.testing.assert_close(mask.scores[0, 0, 1], image[..., 16:].var(unbiased=False))
    ramp = (torch.arange(32.0) / 64).expand(1, 1, 16, 32)
    scores = ThresholdMasker(0, score="gradient")({"image": ramp}).scores
    torch.testing.assert_close(scores[0, 0], torch.full((2,), (15 / 16 + 1 / 32) / 64))


def test_an_image_with_nothing_above_the_threshold_keeps_its_best_cell():
    image = torch.zeros(2, 1, 32, 32)
    image[1, :, 16:, :16] = 0.3
    visible = ThresholdMasker(0.9)({"image": image}).visible
    assert visible.flatten(1).sum(1).tolist() == [1, 1]
    assert visible[1, 1, 0]


@pytest.mark.parametrize("arguments", [{"score": "colour"}, {"keep": "beside"}])
def test_threshold_refuses_unknown_words(arguments):
    with pytest.raises(ValueError, match="must be"):
        ThresholdMasker(0.5, **arguments)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.floats(0.001, 1), st.integers(0, 99))
def test_the_best_cells_are_shown_in_an_exact_number(batch, rows, columns, keep, seed):
    scores = torch.randint(0, 4, (batch, rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    visible = show_best_cells(scores, keep)
    count = max(round(keep * rows * columns), 1)
    assert visible.flatten(1).sum(1).tolist() == [count] * batch
    for own, shown in zip(scores, visible, strict=True):
        assert shown.all() or own[shown].min() >= own[~shown].max()


def test_random_visible_batch_keeps_the_same_number_in_every_image():
    torch.manual_seed(0)
    visible = random_visible_batch(6, (5, 7), torch.tensor(0.31), torch.device("cpu"))
    assert visible.flatten(1).sum(1).unique().tolist() == [11]
    nothing = random_visible_batch(2, (2, 2), torch.tensor(0.0), torch.device("cpu"))
    assert nothing.flatten(1).sum(1).tolist() == [1, 1]
