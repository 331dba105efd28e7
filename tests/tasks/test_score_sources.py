import copy
import math

import pytest
import torch

from mim.masking import ThresholdMasker
from mim.models import MaskedImageModel, create_decoder, create_encoder
from mim.tasks import AttentionScore, MaskedClassifier, ReconstructionError
from mim.tasks.score_sources import complementary_masks

TINY = {"depth": 2, "embed_dim": 48, "num_heads": 3}


def vit(size=(64, 64), **more):
    torch.manual_seed(0)
    return create_encoder("vit_tiny_patch16_224", size, **{**TINY, **more}).eval()


def pretrained(encoder=None):
    encoder = encoder or vit()
    return MaskedImageModel(encoder, create_decoder(encoder, width=48, depth=1, heads=3), mean=0.4, std=0.2).eval()


def films(batch=3, size=(64, 64)):
    return torch.rand(batch, 1, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ratio", [0.15, 0.4, 0.5, 0.6, 0.75, 0.9])
def test_every_cell_is_hidden_equally_often(ratio):
    masks = complementary_masks((5, 7), ratio, rounds=3, seed=4)
    times = (~masks).sum(0)
    assert times.min() == times.max() > 0
    hidden = (~masks).float().mean((1, 2))
    assert (hidden - ratio).abs().max() < 0.12  # rounded to whole groups
    assert torch.equal(masks, complementary_masks((5, 7), ratio, rounds=3, seed=4))
    assert masks.flatten(1).any(1).all()


def test_the_error_of_a_cell_is_the_mean_over_the_masks_that_hide_it():
    model = pretrained()
    source = ReconstructionError(model, ratio=0.75, rounds=2, seed=3)
    image = films()
    total, times = torch.zeros(3, 4, 4), torch.zeros(4, 4)
    for visible in complementary_masks((4, 4), 0.75, 2, 3):
        shown = visible.expand(3, -1, -1)
        for row, column in (~visible).nonzero().tolist():
            one = torch.ones_like(shown)  # the loss of one hidden cell alone, from the same prediction
            one[:, row, column] = False
            errors, counted = model.cell_errors({"image": image, "visible": shown})
            assert counted.view(3, 4, 4)[:, row, column].all()
            total[:, row, column] += errors.view(3, 4, 4)[:, row, column]
        times += ~visible
        loss = model({"image": image, "visible": shown})["loss"]
        torch.testing.assert_close((errors * counted).sum(1) / counted.sum(1), errors.sum(1) / (~visible).sum())
        torch.testing.assert_close((errors.sum(1) / (~visible).sum()).mean(), loss)
    torch.testing.assert_close(source({"image": image}), total / times)


def test_an_image_scores_the_same_in_any_batch_and_at_any_time():
    source = ReconstructionError(pretrained(), rounds=1)
    image = films()
    together = source({"image": image})
    torch.testing.assert_close(source({"image": image[1:2]}), together[1:2], rtol=1e-4, atol=1e-5)
    assert torch.equal(source({"image": image}), together)


def test_what_is_hard_to_rebuild_scores_high():
    """A model that answers with the mean of the image: cells that differ from it most have the largest error."""
    model = pretrained()
    for parameter in model.decoder.parameters():
        torch.nn.init.zeros_(parameter)
    image = torch.full((1, 1, 64, 64), 0.4)
    image[..., 16:32, 32:48] = torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    scores = ReconstructionError(model)({"image": image})
    assert scores.flatten().argmax() == 4 * 1 + 2


def test_pixels_that_are_no_numbers_spoil_nothing():
    image = films()
    image[0, 0, 3, 3] = math.nan
    image[1, 0, 40, 40] = math.inf
    for source in (ReconstructionError(pretrained(), rounds=1), AttentionScore(vit())):
        scores = source({"image": image})
        assert scores.isfinite().all()
        torch.testing.assert_close(scores[2:], source({"image": films()[2:]}), rtol=1e-4, atol=1e-5)


def test_attention_is_that_of_timms_own_attention_layers():
    """The weights as timm computes them when it does not use the fused kernel."""
    from timm.layers import set_fused_attn

    set_fused_attn(False)
    try:
        encoder = vit()
    finally:
        set_fused_attn(True)
    kept = []
    for block in encoder.backbone.blocks:
        block.attn.attn_drop.register_forward_hook(lambda _module, given, _output: kept.append(given[0]))
    image = films()
    encoder((image - 0.4) / 0.2)
    for blocks in (1, 2):
        paid = torch.stack([one.mean(1)[:, 0, 1:] for one in kept[2 - blocks :]]).mean(0)  # of the class token
        expected = (paid / paid.mean(1, keepdim=True)).view(3, 4, 4)
        torch.testing.assert_close(AttentionScore(encoder, blocks, 0.4, 0.2)({"image": image}), expected)
        del kept[2:]


def test_scores_are_brought_to_the_grid_and_images_to_the_size_of_the_model():
    source = ReconstructionError(pretrained(), rounds=1, grid=(2, 8))
    own = ReconstructionError(pretrained(), rounds=1)
    image = films()
    scores = source({"image": image})
    expected = own({"image": image}).view(3, 2, 2, 4).mean(2).repeat_interleave(2, dim=-1)
    torch.testing.assert_close(scores, expected)
    larger = torch.nn.functional.interpolate(image, scale_factor=2, mode="nearest")
    assert source({"image": larger}).shape == (3, 2, 8)


def test_the_model_is_frozen_copied_and_saved_with_the_task():
    encoder = vit()
    masker = ThresholdMasker("quantile:0.5", "reconstruction_error", source=ReconstructionError(pretrained(encoder)))
    task = MaskedClassifier(encoder, masker=masker).train()
    assert not any(module.training for module in masker.source.modules())
    assert not any(parameter.requires_grad for parameter in masker.parameters())
    assert all(parameter.requires_grad for parameter in encoder.backbone.blocks.parameters())
    before = copy.deepcopy(masker.state_dict())
    out = task({"image": films(), "label": torch.tensor([0, 1, 0])})
    out["loss"].backward()
    with torch.no_grad():
        for parameter in task.parameters():
            if parameter.grad is not None:
                parameter.add_(0.1)
    assert before.keys() == masker.state_dict().keys()
    assert all(torch.equal(tensor, masker.state_dict()[name]) for name, tensor in before.items())
    assert any(name.startswith("masker.source.model.decoder.") for name in task.state_dict())
    again = MaskedClassifier(
        vit(),
        masker=ThresholdMasker("quantile:0.5", "reconstruction_error", source=ReconstructionError(pretrained())),
    )
    again.load_state_dict(task.state_dict(), strict=True)
    visible = again.eval()({"image": films()})["visible"]
    assert torch.equal(visible, task.eval()({"image": films()})["visible"])
    assert visible.flatten(1).float().mean(1).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ThresholdMasker(0.5, "reconstruction_error"), r"source=mim\.tasks\.ReconstructionError"),
        (lambda: ThresholdMasker(0.5, "attention"), r"source=mim\.tasks\.AttentionScore"),
        (lambda: ThresholdMasker(0.5, "intensity", source=lambda batch: batch["image"]), "of the pixels alone"),
        (lambda: ThresholdMasker(0.5, torch.ones(2, 2), source=lambda batch: batch["image"]), "both make scores"),
        (lambda: ThresholdMasker(0.5, "attention", per="pixel", source=AttentionScore(vit())), "not of pixels"),
        (lambda: AttentionScore(create_encoder("resnet18", (64, 64))), "a ResNet has no attention.*reconstruction"),
        (lambda: AttentionScore(vit(), blocks=0), "at least 1"),
        (lambda: ReconstructionError(pretrained(), ratio=1.0), "below 1"),
        (lambda: ReconstructionError(pretrained(vit((16, 16)))), "one cell"),
    ],
)
def test_a_score_that_cannot_be_given_is_refused_with_the_way_out(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
