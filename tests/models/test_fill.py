"""Hiding by filling: the baseline that any network can have, from which nothing hidden leaks either."""

import json
import math

import pytest
import timm
import torch

from mim.errors import MimError
from mim.models import MaskedImageModel, build_encoder, create_encoder, export_encoder, read_exported
from mim.models.fills import FILLS, fill_hidden
from mim.tasks import MaskedClassifier

SIZE = (64, 96)
NETWORKS = {
    "vit": ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}),
    "vit-class-token": ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3, "global_pool": "token"}),
    "eva": ("vit_small_patch16_rope_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}),
    "hiera": ("hiera_tiny_224", {"embed_dim": 24, "stages": (1, 1, 1, 1)}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}),
    "resnet": ("resnet18", {}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1)}),
    "efficientnet": ("test_efficientnet", {}),
    # cells cannot be hidden in these in any other way
    "nfnet": ("test_nfnet", {}),
    "byobnet": ("test_byobnet", {}),
    "pools-by-attention": ("vit_pe_core_tiny_patch16_384", {"depth": 1}),
    "distilled": ("deit_tiny_distilled_patch16_224", {"depth": 1}),
}


def build(which, fill="grey", **more):
    torch.manual_seed(0)
    name, args = NETWORKS[which]
    return create_encoder(name, SIZE, hidden="fill", fill=fill, **args, **more).eval()


def some_visible(encoder, images=3):
    visible = torch.rand(images, *encoder.grid(), generator=torch.Generator().manual_seed(1)) > 0.5
    visible[0] = False  # nothing at all
    visible[1, 0, 0] = True
    return visible


def pixels_of(encoder, visible):
    return encoder.upsample(visible, encoder.image_size)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("which", NETWORKS)
def test_nothing_hidden_is_in_the_fill(which, fill):
    encoder = build(which, fill)
    visible = some_visible(encoder)
    image = torch.randn(3, 1, *SIZE)
    outcomes = []
    for other in (image, torch.full_like(image, math.nan), torch.full_like(image, -1e30)):
        mixed = torch.where(pixels_of(encoder, visible), image, other).requires_grad_()
        encoder.zero_grad()
        features = encoder(mixed, visible)
        sum(one.square().sum() for one in (features.pooled, *features.maps)).backward()
        assert (mixed.grad.masked_select(~pixels_of(encoder, visible)) == 0).all()
        outcomes.append([features.pooled, *features.maps, mixed.grad])
    for others in outcomes[1:]:
        for expected, found in zip(outcomes[0], others, strict=True):
            assert torch.isfinite(found).all()
            assert torch.equal(expected, found)


@pytest.mark.parametrize("which", NETWORKS)
def test_the_network_is_timms_own_with_and_without_a_fill(which):
    """All seen, it is the plain network to the last bit; else the plain network on the filled image."""
    encoder = build(which, "mean")
    plain, visible = encoder.backbone, some_visible(encoder)
    image = torch.randn(3, 1, *SIZE)
    shown = pixels_of(encoder, visible).float()
    filled = fill_hidden(image, shown, "mean", 0.0, encoder.patch_size)
    with torch.no_grad():
        for given, mask in ((image, None), (image, torch.ones_like(visible)), (filled, visible)):
            features = encoder(given, mask)
            expected = plain.forward_head(plain.forward_features(given), pre_logits=True)
            assert torch.equal(features.pooled, expected)
            assert features.pooled.shape == (3, encoder.width)
            assert [one.shape[1] for one in features.maps] == encoder.map_channels
    sides = [one.shape[2] for one in features.maps]
    assert sides == sorted(set(sides), reverse=True)
    for one in features.maps:
        hidden = torch.nn.functional.adaptive_max_pool2d(visible.float(), one.shape[2:])[:, None] == 0
        assert (one.masked_select(hidden) == 0).all()
        assert (one[1:].abs().sum(1)[~hidden[1:, 0]] > 0).float().mean() > 0.9


@pytest.mark.parametrize("which", ["vit", "hiera", "swin", "resnet", "convnext", "efficientnet"])
def test_weights_and_maps_are_those_of_the_other_ways_of_hiding(which):
    filled = build(which)
    name, args = NETWORKS[which]
    other = create_encoder(name, SIZE, **args).eval()
    other.backbone.load_state_dict(filled.backbone.state_dict(), strict=True)
    assert filled.grid() == other.grid()
    assert filled.map_channels == other.map_channels
    image = torch.randn(2, 1, *SIZE)
    expected, found = other(image), filled(image)
    for one, two in zip((expected.pooled, *expected.maps), (found.pooled, *found.maps), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("fill", FILLS)
def test_a_gate_of_zeros_and_ones_is_the_mask_and_in_between_blends(fill):
    encoder = build("resnet", fill)
    encoder.set_normalisation(0.45, 0.225)
    visible, image = some_visible(encoder), torch.randn(3, 1, *SIZE)
    gate = visible.float().requires_grad_()
    hidden, gated = encoder(image, visible), encoder(image, gate)
    assert torch.equal(hidden.pooled, gated.pooled)
    gated.pooled.square().sum().backward()
    assert torch.isfinite(gate.grad).all()
    assert (gate.grad[1:][~visible[1:]] != 0).all()
    half = fill_hidden(image, torch.full((3, 1, *SIZE), 0.5), fill, -2.0, 32)
    whole = fill_hidden(image, torch.zeros(3, 1, *SIZE), fill, -2.0, 32)
    if fill in ("grey", "black"):
        torch.testing.assert_close(half, (image + whole) / 2)


def test_what_each_fill_puts_there():
    image = torch.randn(2, 3, 12, 10)
    shown = (torch.rand(2, 1, 12, 10) > 0.6).float()
    inside = shown.bool().expand_as(image)
    fills = {fill: fill_hidden(image, shown, fill, -2.0, cell=2) for fill in FILLS}
    for filled in fills.values():
        assert torch.equal(filled[inside], image[inside])
    assert (fills["grey"][~inside] == 0).all()
    assert (fills["black"][~inside] == -2).all()
    for i in range(2):
        for channel in range(3):
            mean = image[i, channel][inside[i, channel]].mean()
            torch.testing.assert_close(fills["mean"][i, channel][~inside[i, channel]].unique(), mean[None])
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(10), indexing="ij")
    for row, column in [(0, 0), (5, 4), (11, 9)]:
        if inside[0, 0, row, column]:
            continue
        weight = torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8.0) * shown[0, 0]
        expected = (weight * image[0, 1]).sum() / weight.sum()
        torch.testing.assert_close(fills["blur"][0, 1, row, column], expected, rtol=0, atol=2e-2)


def test_a_blur_far_from_all_that_is_seen_is_the_mean():
    image, shown = torch.full((1, 1, 200, 200), 3.0), torch.zeros(1, 1, 200, 200)
    shown[..., :4, :4] = 1
    filled = fill_hidden(image, shown, "blur", 0.0, cell=4)
    torch.testing.assert_close(filled[..., -1, -1], torch.tensor([[3.0]]))
    assert torch.equal(fill_hidden(image, torch.zeros_like(shown), "blur", 0.0, 4), torch.zeros_like(image))


def test_black_is_black_whatever_the_normalisation():
    encoder = build("resnet", "black")
    task = MaskedClassifier(encoder, masker=None, mean=0.45, std=0.225).eval()
    image, visible = torch.rand(3, 1, *SIZE), some_visible(encoder)
    black = image * pixels_of(encoder, visible)
    normalised = (image - 0.45) / 0.225
    found = task.encoder(normalised, visible).pooled
    torch.testing.assert_close(found, task.encoder((black - 0.45) / 0.225).pooled)


@pytest.mark.parametrize("fill", [None, *FILLS])
def test_the_fill_is_saved_with_the_encoder(fill, tmp_path):
    encoder = build("efficientnet", fill)
    assert encoder.spec.fill == (fill or "grey")
    export_encoder(tmp_path, encoder, encoder.backbone.state_dict(), 0.45, 0.225)
    again = build_encoder(read_exported(tmp_path).spec)
    assert again.spec == encoder.spec


def test_descriptions_from_before_there_were_fills_are_read(tmp_path):
    encoder = create_encoder("test_efficientnet", SIZE)
    export_encoder(tmp_path, encoder, encoder.backbone.state_dict(), 0.45, 0.225)
    described = json.loads((tmp_path / "encoder.json").read_text())
    del described["fill"]
    (tmp_path / "encoder.json").write_text(json.dumps(described))
    assert read_exported(tmp_path).spec == encoder.spec


@pytest.mark.parametrize("which", ["vit", "resnet", "hiera"])
def test_pretraining_can_fill(which):
    task = MaskedImageModel(build(which))
    visible = some_visible(task.encoder)
    task({"image": torch.rand(3, 1, *SIZE), "visible": visible})["loss"].backward()
    assert all(torch.isfinite(one.grad).all() for one in task.parameters() if one.grad is not None)
    assert sum(one.grad is not None for one in task.encoder.parameters()) > 5


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet18", {"hidden": "fill", "fill": "white"}, "grey, black, mean or blur, not 'white'"),
        ("resnet18", {"fill": "black"}, "where hidden is 'fill'"),
        ("resnet18", {"hidden": "fill", "image_size": (100, 96)}, "the nearest that is: 96x96"),
        ("gmixer_12_224", {}, "any network can be shown a fill"),
        ("vit_tiny_patch16_224", {"hidden": "fill", "image_size": (225, 224)}, "not divisible by the patch size 16"),
        ("levit_128", {"hidden": "fill"}, "levit_128: image size 224x224 is not divisible by the patch size 64"),
        ("test_byobnet", {"hidden": "fill", "global_pool": ""}, "of no known shape"),
    ],
)
def test_what_cannot_be_filled_is_refused_in_one_line(name, arguments, message):
    with pytest.raises(MimError) as refused:
        create_encoder(name, **arguments)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_network_at_a_size_that_its_strides_do_not_divide():
    encoder = create_encoder("test_byobnet", (70, 100), hidden="fill", patch_size=10).eval()
    visible = some_visible(encoder)
    logits = MaskedClassifier(encoder, masker=lambda batch: batch["mask"]).head(
        encoder(torch.rand(3, 1, 70, 100), visible), visible
    )
    assert torch.isfinite(logits).all()


def test_it_is_a_plain_timm_network():
    encoder = build("nfnet")
    plain = timm.create_model("test_nfnet", in_chans=1, num_classes=0)
    plain.load_state_dict(encoder.backbone.state_dict(), strict=True)
    image = torch.rand(2, 1, *encoder.image_size)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), encoder.eval()(image).pooled)
