import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose

from mim.masking import (
    PatchMasker,
    RandPatchMaskd,
    ThresholdMasker,
    binary_concrete,
    budget_loss,
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


def test_patch_masker_gates_in_training_and_decides_in_evaluation():
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, keep=0.4)
    batch = {"image": torch.rand(16, 1, 64, 96)}
    mask = masker(batch)
    assert mask.gate.shape == mask.visible.shape == mask.scores.shape == (16, 8, 12)
    assert torch.equal(mask.gate.detach(), mask.visible.float())
    assert abs(float(mask.visible.float().mean()) - 0.4) < 0.05
    (mask.gate * torch.rand_like(mask.gate)).sum().backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.abs().sum() > 0 for p in masker.score.parameters())
    masker.eval()
    first, second = masker(batch), masker(batch)
    assert first.gate is None
    assert torch.equal(first.visible, second.visible)
    assert first.visible.flatten(1).sum(1).unique().tolist() == [round(0.4 * 96)]


def test_patch_masker_learns_what_pays():
    """The cells with a bright square are the only ones worth showing; a budget of one in four finds them."""
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, width=8, keep=0.25, temperature=0.5)
    optimizer = torch.optim.Adam(masker.parameters(), 1e-2)
    for _ in range(150):
        wanted = (torch.rand(32, 16).argsort(1) < 4).view(32, 4, 4)
        image = torch.rand(32, 1, 32, 32) * 0.3
        image += 0.5 * wanted[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
        mask = masker({"image": image})
        loss = ((mask.gate - wanted.float()) ** 2).mean() + budget_loss(mask.scores, 0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    masker.eval()
    assert float((masker({"image": image}).visible == wanted).float().mean()) > 0.95


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.floats(0.001, 1), st.integers(0, 99))
def test_the_best_cells_are_shown_in_an_exact_number(batch, rows, columns, keep, seed):
    scores = torch.randint(0, 4, (batch, rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    visible = show_best_cells(scores, keep)
    count = max(round(keep * rows * columns), 1)
    assert visible.flatten(1).sum(1).tolist() == [count] * batch
    for own, shown in zip(scores, visible, strict=True):
        assert shown.all() or own[shown].min() >= own[~shown].max()


@pytest.mark.parametrize("arguments", [{"patch_size": 12}, {"width": 6}, {"keep": 0.0}, {"keep": 1.5}])
def test_patch_masker_refuses_what_it_cannot_do(arguments):
    with pytest.raises(ValueError, match=r"must|needs"):
        PatchMasker(**arguments)


def test_patch_masker_names_an_image_that_does_not_fit():
    with pytest.raises(ValueError, match="whole number"):
        PatchMasker(16)({"image": torch.rand(1, 1, 40, 32)})


def test_binary_concrete_is_a_fair_draw_with_a_gradient():
    torch.manual_seed(0)
    scores = torch.full((20000,), 1.0, requires_grad=True)
    gate = binary_concrete(scores, 0.5)
    assert set(gate.detach().tolist()) == {0.0, 1.0}
    assert abs(float(gate.detach().mean()) - torch.sigmoid(torch.tensor(1.0))) < 0.02
    gate.sum().backward()
    assert (scores.grad >= 0).all()
    assert scores.grad.mean() > 0.1


def test_budget_loss_punishes_both_sides():
    low, right, high = (float(budget_loss(torch.full((2, 3, 3), logit), 0.5)) for logit in (-3.0, 0.0, 3.0))
    assert right == 0
    assert low == pytest.approx(high)
    assert low > 0.1


def test_random_visible_batch_keeps_the_same_number_in_every_image():
    torch.manual_seed(0)
    visible = random_visible_batch(6, (5, 7), torch.tensor(0.31), torch.device("cpu"))
    assert visible.flatten(1).sum(1).unique().tolist() == [11]
    nothing = random_visible_batch(2, (2, 2), torch.tensor(0.0), torch.device("cpu"))
    assert nothing.flatten(1).sum(1).tolist() == [1, 1]
