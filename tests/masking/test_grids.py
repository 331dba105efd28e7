import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.masking import Mask, PatchMasker, ThresholdMasker, fit_mask_to_grid, fit_scores_to_grid
from mim.models import create_encoder
from mim.tasks import MaskedClassifier


def scores_of(grid, batch=3, seed=0):
    return torch.rand(batch, *grid, generator=torch.Generator().manual_seed(seed))


def test_scores_are_averaged_over_the_area_of_a_cell():
    scores = scores_of((6, 4))
    torch.testing.assert_close(fit_scores_to_grid(scores, (3, 2)), torch.nn.functional.avg_pool2d(scores, 2))
    torch.testing.assert_close(fit_scores_to_grid(scores, (12, 4)), scores.repeat_interleave(2, 1))
    # 3 to 2: the middle one belongs half to each
    found = fit_scores_to_grid(torch.tensor([[[1.0], [2.0], [6.0]]]), (2, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([(1 + 2 / 2) / 1.5, (6 + 2 / 2) / 1.5]))


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(["above", "below"]),
    st.floats(0, 1),
)
def test_each_image_keeps_its_share_of_cells(old, new, keep, share):
    masker = ThresholdMasker(share, scores_of(old), keep, patch_size=1)
    mask = masker({"image": torch.zeros(3, 1, *old)})
    fitted = fit_mask_to_grid(mask, new)
    assert fitted.visible.shape == (3, *new)
    cells = new[0] * new[1]
    wanted = (mask.visible.float().mean((1, 2)) * cells).round().clamp(min=1)
    assert torch.equal(fitted.visible.float().sum((1, 2)), wanted)
    # the best cells are kept: none that is hidden is better than one that is visible
    signed = fitted.scores if keep == "above" else -fitted.scores
    for visible, values in zip(fitted.visible, signed, strict=True):
        if not visible.all():
            assert values[visible].min() >= values[~visible].max()
    if old == new:
        assert fitted is mask


def test_without_scores_that_explain_it_a_cell_goes_with_most_of_its_area():
    visible = torch.zeros(1, 4, 4, dtype=torch.bool)
    visible[0, :2, :2] = True
    for scores in (None, torch.arange(16.0).roll(7).view(1, 4, 4)):
        fitted = fit_mask_to_grid(Mask(visible, scores=scores), (2, 2))
        assert fitted.visible.tolist() == [[[True, False], [False, False]]]


def test_a_classifier_resamples_a_masker_of_another_grid_and_says_so_once(caplog):
    encoder = create_encoder("resnet18", (64, 64), patch_size=32)
    task = MaskedClassifier(encoder, masker=PatchMasker(16, keep=0.5)).eval()
    batch = {"image": torch.rand(2, 1, 64, 64)}
    with caplog.at_level(logging.WARNING), torch.no_grad():
        out = [task(batch) for _ in range(2)]
    assert out[0]["visible"].shape == (2, 2, 2)
    assert out[0]["visible"].flatten(1).sum(1).tolist() == [2, 2]
    assert [record.getMessage().startswith("the masker decides for 4x4 cells") for record in caplog.records] == [True]


def test_a_gate_of_the_wrong_grid_is_refused_in_one_line():
    task = MaskedClassifier(create_encoder("resnet18", (64, 64), patch_size=32), masker=PatchMasker(16)).train()
    task.set_progress(0.9)  # the masker learns
    batch = {"image": torch.rand(2, 1, 64, 64), "label": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"grid of \(4, 4\); the encoder's cells make \(2, 2\)") as refused:
        task(batch)
    assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="one value a cell"):
        task.encoder(batch["image"], torch.rand(2, 4, 4))
