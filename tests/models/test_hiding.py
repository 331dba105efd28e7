"""The property the project lives on: what is hidden cannot matter, and what is all seen is the plain network."""

import math

import pytest
import timm
import torch
from torch import nn

from mim.models import Encoder, create_encoder

SIZE = (64, 96)
TINY_VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
TINY_HIERA = {"embed_dim": 24, "stages": (1, 1, 2, 1)}
TINY_SWIN = {"embed_dim": 24, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
ENCODERS = {
    "vit": ("vit_tiny_patch16_224", {"depth": 3}),
    "vit-class-token": ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "token"}),
    "vit-registers": ("vit_small_patch14_reg4_dinov2", {"depth": 2}),
    "vit-no-prefix": ("vit_medium_patch16_gap_240", TINY_VIT),
    "vit-pre-norm": (
        "vit_medium_patch32_clip_224",
        {**TINY_VIT, "patch_size": 8, "init_values": 0.5},
    ),
    "vit-token": ("vit_tiny_patch16_224", {**TINY_VIT, "hidden": "token"}),
    "vit-token-registers": ("vit_small_patch14_reg4_dinov2", {**TINY_VIT, "hidden": "token", "global_pool": "token"}),
    "eva": ("eva02_tiny_patch14_224", TINY_VIT),
    "eva-mixed-rotation": ("vit_small_patch16_rope_mixed_ape_224", TINY_VIT),
    "eva-registers": ("vit_tiny_patch16_dinov3_qkvb", TINY_VIT),
    "eva-token": ("vit_small_patch16_rope_224", {**TINY_VIT, "hidden": "token"}),
    "hiera": ("hiera_tiny_224", TINY_HIERA),
    "hiera-windows": ("hiera_small_abswin_256", TINY_HIERA),
    "swin": ("swin_tiny_patch4_window7_224", TINY_SWIN),
    "swin-fine-cells": ("swin_tiny_patch4_window7_224", {**TINY_SWIN, "patch_size": 16}),
    "swin-v2": ("swinv2_tiny_window8_256", TINY_SWIN),
    "resnet-basic": ("resnet18", {}),
    "resnet-bottleneck": ("resnet50", {"layers": [1, 1, 1, 1]}),
    "resnet-deep-stem": ("resnet18d", {}),
    "convnext": ("convnext_atto", {}),
    "convnext-conv-mlp": ("convnext_atto", {"conv_mlp": True}),
    "convnextv2": ("convnextv2_atto", {}),
    "efficientnet": ("test_efficientnet", {}),
}


def plain_timm(which: str, encoder: Encoder) -> nn.Module:
    """The network that timm builds for a name, with no more said than its size and shape."""
    name, args = ENCODERS[which]
    own = {key: value for key, value in args.items() if key not in ("hidden", "global_pool")}
    if encoder.spec.hidden in ("drop", "token"):
        own["img_size"] = encoder.image_size
    if "swin" in which:
        own.pop("patch_size", None)  # of the mask, not of the network
    return timm.create_model(name, in_chans=1, num_classes=3, **own)


def build(which: str, **more) -> Encoder:
    torch.manual_seed(0)
    name, args = ENCODERS[which]
    size = (70, 98) if "patch14" in name else SIZE
    encoder = create_encoder(name, image_size=size, num_classes=3, **args, **more)
    with torch.no_grad():  # as after training: no scale or shift left at its neutral start
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def pixels_of(encoder: Encoder, visible: torch.Tensor) -> torch.Tensor:
    cell = encoder.patch_size
    return visible[:, None].repeat_interleave(cell, 2).repeat_interleave(cell, 3)


def ragged_visible(encoder: Encoder) -> torch.Tensor:
    """All seen, one hidden, half hidden, one seen, nothing seen."""
    rows, columns = encoder.grid()
    visible = torch.ones(5, rows, columns, dtype=torch.bool)
    visible[1, 0, 0] = False
    visible[2] = torch.rand(rows, columns, generator=torch.Generator().manual_seed(1)) > 0.5
    visible[3] = False
    visible[3, -1, -1] = True
    visible[4] = False
    return visible


def even_visible(encoder: Encoder) -> torch.Tensor:
    rows, columns = encoder.grid()
    order = torch.rand(5, rows * columns, generator=torch.Generator().manual_seed(2)).argsort(1)
    return (order < rows * columns // 2).view(5, rows, columns)


def observe(encoder: Encoder, image: torch.Tensor, visible: torch.Tensor) -> list[torch.Tensor]:
    """Every output and every gradient of one pass, and the running statistics after it."""
    buffers = {name: buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.zero_grad()
    image = image.clone().requires_grad_()
    torch.manual_seed(3)
    features = encoder(image, visible)
    outputs = [features.pooled, *features.maps] + ([] if features.tokens is None else [features.tokens])
    sum((output.float() ** 2).sum() for output in outputs).backward()
    seen = [output.detach() for output in outputs]
    seen += [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    seen += [image.grad.clone()] + [buffer.clone() for buffer in encoder.buffers()]
    for name, buffer in encoder.named_buffers():
        buffer.copy_(buffers[name])
    return seen


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("which", ENCODERS)
def test_hidden_pixels_move_neither_output_nor_gradient(which, training):
    encoder = build(which).train(training)
    image = torch.rand(5, 1, *encoder.image_size)
    fills = [torch.full_like(image, value) for value in (math.nan, math.inf, -1e30)] + [torch.rand_like(image)]
    for visible in (ragged_visible(encoder), even_visible(encoder)):
        before = observe(encoder, image, visible)
        for fill in fills:
            after = observe(encoder, torch.where(pixels_of(encoder, visible), image, fill), visible)
            assert len(before) == len(after) > 3
            for expected, found in zip(before, after, strict=True):
                assert torch.isfinite(found).all()
                assert torch.equal(expected, found)


@pytest.mark.parametrize("which", ENCODERS)
def test_visible_pixels_do_move_the_output(which):
    encoder = build(which).eval()
    image = torch.rand(5, 1, *encoder.image_size)
    visible = even_visible(encoder)
    changed = torch.where(pixels_of(encoder, visible), 1 - image, image)
    difference = (encoder(image, visible).pooled - encoder(changed, visible).pooled).abs().amax(dim=1)
    assert (difference > 1e-4).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("which", ENCODERS)
def test_everything_visible_is_the_plain_timm_network(which, training):
    encoder = build(which).train(training)
    plain = plain_timm(which, encoder).train(training)
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)
    if hasattr(plain, "pool"):
        plain.global_pool = encoder.backbone.global_pool  # holds no weights
    image = torch.rand(3, 1, *encoder.image_size)
    expected_features = plain.forward_features(image)
    expected = encoder.backbone.get_classifier()(plain.forward_head(expected_features, pre_logits=True))
    state = {key: value.clone() for key, value in encoder.backbone.state_dict().items()}
    cells = encoder.grid()[0] * encoder.grid()[1]
    seen = torch.ones(3, *encoder.grid(), dtype=torch.bool)
    for visible, count in ((None, None), (seen, None), (seen, cells)):
        encoder.backbone.load_state_dict(state)
        features = encoder(image, visible, count)
        head = encoder.backbone.get_classifier()
        assert torch.equal(head(features.pooled), expected)
        if features.tokens is None:
            more = {"norm": True} if "swin" in which else {}
            assert torch.equal(
                features.maps[-1], plain.forward_intermediates(image, intermediates_only=True, **more)[-1]
            )
        else:
            patches = expected_features.flatten(1, -2)[:, getattr(plain, "num_prefix_tokens", 0) :]
            assert torch.equal(features.tokens, patches)
            assert torch.equal(features.maps[-1].flatten(2).transpose(1, 2), features.tokens)
            assert torch.equal(features.index, torch.arange(cells).expand(3, -1))


@pytest.mark.parametrize("which", ["hiera", "hiera-windows", "swin", "swin-v2"])
def test_maps_are_those_that_timm_gives(which):
    encoder = build(which).eval()
    image = torch.rand(2, 1, *encoder.image_size)
    more = {"norm": True} if "swin" in which else {}
    expected = encoder.backbone.forward_intermediates(image, intermediates_only=True, **more)
    assert len(expected) == 4
    for found, plain in zip(encoder(image).maps, expected, strict=True):
        assert torch.equal(found, plain)


@pytest.mark.parametrize("which", ENCODERS)
def test_weights_load_strict_into_timm_by_name_alone(which):
    encoder = build(which)
    plain = plain_timm(which, encoder)
    assert str(plain.load_state_dict(encoder.backbone.state_dict(), strict=True)) == "<All keys matched successfully>"


@pytest.mark.parametrize("which", ENCODERS)
def test_maps_are_zero_where_hidden_and_shaped_by_their_stride(which):
    encoder = build(which).eval()
    visible = even_visible(encoder)
    features = encoder(torch.rand(5, 1, *encoder.image_size), visible)
    heights = [feature_map.shape[2] for feature_map in features.maps]
    assert heights == sorted(heights, reverse=True)
    assert [feature_map.shape[1] for feature_map in features.maps] == encoder.map_channels
    for feature_map in features.maps:
        stride = encoder.image_size[0] // feature_map.shape[2]
        if stride <= encoder.patch_size:
            times = encoder.patch_size // stride
            hidden = ~visible[:, None].repeat_interleave(times, 2).repeat_interleave(times, 3)
            assert (feature_map.masked_select(hidden) == 0).all()
            assert feature_map.abs().sum() > 0


DROPPING = ["vit", "vit-registers", "vit-no-prefix", "vit-pre-norm", "eva", "eva-mixed-rotation",
            "eva-registers", "hiera", "hiera-windows"]  # fmt: skip


@pytest.mark.parametrize("which", DROPPING)
def test_an_image_is_treated_alike_alone_and_beside_images_that_show_more(which):
    encoder = build(which).eval()
    image, visible = torch.rand(4, 1, *encoder.image_size), ragged_visible(encoder)[:4]
    together = encoder(image, visible)
    for i in range(4):
        alone = encoder(image[i : i + 1], visible[i : i + 1])
        count = int(visible[i].sum())
        torch.testing.assert_close(together.pooled[i], alone.pooled[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.tokens[i, :count], alone.tokens[0], rtol=1e-5, atol=1e-5)
        assert (together.index[i, :count] == visible[i].flatten().nonzero()[:, 0]).all()
        assert (together.index[i, count:] == -1).all()
        assert (together.tokens[i, count:] == 0).all()


@pytest.mark.parametrize(
    "which", [*DROPPING, "vit-token", "eva-token", "swin", "swin-v2", "resnet-basic", "convnextv2"]
)
def test_a_gate_of_zeros_and_ones_agrees_with_hiding(which):
    encoder = build(which).eval()
    image, visible = torch.rand(5, 1, *encoder.image_size), even_visible(encoder)
    hidden, gated = encoder(image, visible), encoder(image, visible.float())
    close = 1e-5 if hidden.tokens is not None else 1e-4
    torch.testing.assert_close(gated.pooled, hidden.pooled, rtol=close, atol=close)
    torch.testing.assert_close(gated.maps[-1], hidden.maps[-1], rtol=close, atol=close)


@pytest.mark.parametrize("which", ["vit", "vit-token", "eva", "hiera", "swin", "resnet-basic"])
def test_a_gate_receives_a_finite_gradient_from_hidden_cells_too(which):
    encoder = build(which).eval()
    gate = even_visible(encoder).float().requires_grad_()
    encoder(torch.rand(5, 1, *encoder.image_size), gate).pooled.square().sum().backward()
    assert torch.isfinite(gate.grad).all()
    assert (gate.grad[gate == 0] != 0).float().mean() > 0.9


def test_two_encoders_with_two_masks_do_not_disturb_each_other():
    from concurrent.futures import ThreadPoolExecutor

    encoders = [build("resnet-basic").eval(), build("convnext").eval()]
    image = torch.rand(5, 1, *SIZE)
    masks = [even_visible(encoder) for encoder in encoders]
    masks.append(~masks[0])
    jobs = [(0, 0), (1, 1), (0, 2)] * 4
    with torch.no_grad():
        alone = [encoders[e](image, masks[m]).pooled for e, m in jobs]
    with ThreadPoolExecutor(4) as pool:

        def run(job):
            with torch.no_grad():
                return encoders[job[0]](image, masks[job[1]]).pooled

        together = list(pool.map(run, jobs))
    for expected, found in zip(alone, together, strict=True):
        assert torch.equal(expected, found)


def test_sparse_hiding_agrees_with_masking_after_every_layer():
    """An independent, slow form: a hook after every convolution, norm and pool sets hidden positions to zero."""
    for which in ("resnet-basic", "convnext-conv-mlp"):
        encoder = build(which).eval()
        image, visible = torch.rand(5, 1, *SIZE), even_visible(encoder)
        fast = encoder(image, visible)

        def hide(_module, _inputs, output, visible=visible):
            rows = nn.functional.interpolate(visible[:, None].float(), size=output.shape[-2:], mode="nearest")
            return output * rows

        layers = (nn.Conv2d, nn.BatchNorm2d, nn.LayerNorm, nn.MaxPool2d)
        handles = [m.register_forward_hook(hide) for m in encoder.backbone.modules() if isinstance(m, layers)]
        final = encoder.backbone.forward_features(image * pixels_of(encoder, visible))
        for handle in handles:
            handle.remove()
        final = hide(None, None, final)
        torch.testing.assert_close(fast.maps[-1], final, rtol=1e-4, atol=1e-5)
        mean = final.sum((2, 3)) / visible.flatten(1).sum(1, keepdim=True)
        expected = encoder.backbone.forward_head(mean[..., None, None], pre_logits=True)
        torch.testing.assert_close(fast.pooled, expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_sees_visible_positions_only():
    encoder = build("resnet-basic").train()
    image, visible = torch.rand(5, 1, *SIZE), even_visible(encoder)
    norm = encoder.backbone.bn1
    before = norm.running_mean.clone()
    encoder(image, visible)
    whole = encoder.backbone.conv1(image * pixels_of(encoder, visible))
    rows = whole.movedim(1, -1)[pixels_of(encoder, visible)[:, 0, ::2, ::2]]
    torch.testing.assert_close(norm.running_mean, 0.9 * before + 0.1 * rows.mean(0))
    assert int(norm.num_batches_tracked) == 1
