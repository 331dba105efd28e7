import logging

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.masking import MaskerCascade, PatchMasker, ThresholdMasker
from mim.masking.cutoff import otsu


def film(seed=0, size=(64, 96), batch=3):
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("keep", ["above", "below"])
@pytest.mark.parametrize("score", ["intensity", "gradient", "variance"])
@pytest.mark.parametrize("per", ["patch", "pixel"])
def test_what_reaches_the_threshold_is_kept_and_nothing_else(keep, score, per):
    image = film()
    masker = ThresholdMasker(0.0, score, keep, patch_size=8, per=per)
    scores = masker.score({"image": image})
    assert scores.shape == ((3, 8, 12) if per == "patch" else (3, 64, 96))
    masker.threshold = float(scores[0, 3, 4])  # a score equal to the threshold is kept
    mask = masker({"image": image})
    expected = scores >= masker.threshold if keep == "above" else scores <= masker.threshold
    assert torch.equal(mask.visible, expected)
    assert mask.visible[0, 3, 4]
    assert not mask.rescued.any()


def test_a_pixels_variance_is_that_of_its_window():
    image = film()
    scores = ThresholdMasker(0, "variance", patch_size=5, per="pixel").score({"image": image})
    torch.testing.assert_close(scores[1, 20, 30], image[1, 0, 18:23, 28:33].var(unbiased=False))
    torch.testing.assert_close(scores[1, 0, 0], image[1, 0, :3, :3].var(unbiased=False))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.95), st.floats(0.05, 0.5))
def test_otsu_is_opencvs(seed, share, apart):
    rng = np.random.default_rng(seed)
    upper = rng.random(400) < share
    values = np.clip(rng.normal(0.3, 0.08, 400) + apart * upper, 0, 1)
    levels = np.round((values - values.min()) / np.ptp(values) * 255).astype(np.uint8)
    found = float(otsu(torch.from_numpy(levels / 255)[None])[0])
    level, _ = cv2.threshold(levels[None], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    assert np.array_equal(levels / 255 >= found, levels > level)


def test_otsu_parts_each_image_by_itself_and_keeps_a_flat_one():
    image = torch.zeros(2, 1, 32, 32)
    image[0, :, :, 16:] = 0.1
    image[1] = 0.7
    masker = ThresholdMasker("otsu", patch_size=16)
    visible = masker({"image": image}).visible
    assert visible[0].tolist() == [[False, True], [False, True]]
    assert visible[1].any()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_a_quantile_keeps_its_share_of_every_image(share):
    mask = ThresholdMasker(f"quantile:{share}", patch_size=8)({"image": film()})
    kept = mask.visible.flatten(1).float().mean(1)
    torch.testing.assert_close(kept, torch.full((3,), 1 - share), atol=1.5 / 96, rtol=0)


def test_several_thresholds_in_one_go_are_those_one_by_one():
    batch = {"image": film()}
    thresholds = [0.3, 0.5, "otsu", "quantile:0.2"]
    together = ThresholdMasker(0.5, patch_size=8).sweep(batch, thresholds)
    assert together.shape == (4, 3, 8, 12)
    for threshold, kept in zip(thresholds, together, strict=True):
        mask = ThresholdMasker(threshold, patch_size=8)(batch)
        assert torch.equal(torch.where(mask.rescued[:, None, None], False, mask.visible), kept)


@pytest.mark.parametrize("shape", [(8, 12), (3, 8, 12)])
def test_scores_may_come_from_elsewhere(shape):
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    batch = {"image": film(), "doses": scores}
    fixed = ThresholdMasker(0.6, scores, patch_size=8)(batch)
    asked = ThresholdMasker(0.6, lambda given: given["doses"], patch_size=8)(batch)
    assert torch.equal(fixed.visible, (scores >= 0.6).expand(3, 8, 12))
    assert torch.equal(asked.visible, fixed.visible)


def test_scores_of_another_grid_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"\(4, 4\).*\(8, 12\)"):
        ThresholdMasker(0.6, torch.rand(4, 4), patch_size=8)({"image": film()})


@pytest.mark.parametrize(("threshold", "what"), [(2.0, "nothing"), (-1.0, "everything")])
def test_keeping_nothing_or_everything_is_said_once_with_the_distribution(threshold, what, caplog):
    masker = ThresholdMasker(threshold, patch_size=8)
    with caplog.at_level(logging.WARNING):
        mask = masker({"image": film()})
        masker({"image": film()})
    assert [f"keeps {what} of a batch" in record.getMessage() for record in caplog.records] == [True]
    assert mask.rescued.all() == (what == "nothing")
    assert mask.visible.flatten(1).any(1).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"threshold": "median"},
        {"threshold": "quantile:1.5"},
        {"threshold": "quantile:x"},
        {"threshold": float("nan")},
        {"per": "cell"},
        {"score": "colour"},
        {"keep": "beside"},
    ],
)
def test_unknown_words_are_refused(arguments):
    with pytest.raises(ValueError, match=r"must be|a threshold"):
        ThresholdMasker(**{"threshold": 0.5, **arguments})


def test_a_cascade_shows_what_all_agree_on():
    batch = {"image": film()}
    parts = [ThresholdMasker(0.49, patch_size=8), ThresholdMasker("quantile:0.4", "variance", patch_size=8)]
    mask = MaskerCascade(parts)(batch)
    assert torch.equal(mask.visible, parts[0](batch).visible & parts[1](batch).visible)
    assert not mask.rescued.any()
    apart = MaskerCascade([ThresholdMasker(0.5, patch_size=8), ThresholdMasker(0.49, keep="below", patch_size=8)])
    assert apart(batch).rescued.all()
    assert apart(batch).visible.flatten(1).sum(1).tolist() == [1, 1, 1]


def test_a_gate_in_a_cascade_keeps_its_gradient_and_agrees_with_what_is_visible():
    torch.manual_seed(0)
    learned = PatchMasker(8)
    mask = MaskerCascade([ThresholdMasker("quantile:0.5", patch_size=8), learned])({"image": film()})
    assert torch.equal(mask.gate.detach(), mask.visible.float())
    mask.gate.sum().backward()
    assert learned.scorer.score.weight.grad.abs().sum() > 0


def test_a_cascade_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        MaskerCascade([])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("threshold", [0.1, 0.3, 1 / 3, 0.5, 0.7, 1.0, 2])
def test_it_is_the_layer_that_keeps_values_at_or_above_the_threshold(dtype, threshold):
    """`values >= threshold`, with values that are equal to it and its nearest neighbours in their own type."""
    values = torch.linspace(0, 2, 60).to(dtype)
    if dtype.is_floating_point:
        tie = torch.tensor(threshold, dtype=dtype)
        values[7:10] = torch.stack([tie, tie.nextafter(tie + 1), tie.nextafter(tie - 1)]) if tie.itemsize > 2 else tie
    masker = ThresholdMasker(threshold, values.view(6, 10), patch_size=1)
    image = torch.zeros(1, 1, 6, 10)
    kept = masker({"image": image}).visible.flatten()
    assert torch.equal(kept, values >= threshold)
    if dtype.is_floating_point:
        assert kept[7]
        assert not torch.where(kept, values, 0)[9] or dtype.itemsize == 2
    below = ThresholdMasker(threshold, values.view(6, 10), "below", patch_size=1)({"image": image})
    assert torch.equal(below.visible.flatten(), values <= threshold) or below.rescued.all()


def test_a_warning_can_be_given_of_very_many_pixels(caplog):
    masker = ThresholdMasker(2.0, per="pixel")
    with caplog.at_level(logging.WARNING):
        masker({"image": torch.rand(1, 1, 4200, 4200)})  # more than torch takes a quantile of
    assert "keeps nothing" in caplog.text
