import copy

import pytest
import torch
from published_layer_masking import published

from mim.errors import MimError
from mim.models import create_encoder
from mim.models.layer_masking import MaskPyramid

NETWORKS = [
    ("resnet18", {}),
    ("resnet50", {"layers": (1, 1, 1, 1)}),
    ("resnet26d", {"layers": (1, 1, 1, 1)}),
    ("seresnet50", {"layers": (1, 1, 1, 1)}),
    ("resnet50", {"layers": (1, 1, 1, 1), "output_stride": 16}),
    ("resnext50_32x4d", {"layers": (1, 1, 1, 1)}),
    ("convnext_atto", {"depths": (1, 1, 1, 1), "conv_mlp": False}),
    ("convnextv2_atto", {"depths": (1, 1, 1, 1)}),
    ("efficientnet_b0", {}),
    ("tf_efficientnet_b0", {}),
]  # fmt: skip
IDS = [name + ("_dilated" if "output_stride" in args else "") for name, args in NETWORKS]


def encoder_of(name, args, patch_size=32):
    torch.manual_seed(0)
    encoder = create_encoder(name, (96, 128), hidden="layer", patch_size=patch_size, **args)
    for module in encoder.modules():  # norms as after a training, not as at its start
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
        elif type(module).__name__ == "GlobalResponseNorm":
            module.weight.data.normal_(0, 0.5)
    return encoder


def distance(given, expected):
    """Relative to the length of what is expected."""
    return float((given - expected).detach().norm() / expected.detach().norm())


def films(grid, share=0.5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(3, *grid, generator=generator) < share
    visible[:, 0, -1] = True
    return torch.rand(3, 1, 96, 128, generator=generator), visible


@pytest.mark.parametrize("patch_size", [32, 16])
@pytest.mark.parametrize(("name", "args"), NETWORKS, ids=IDS)
def test_it_is_the_published_algorithm(name, args, patch_size):
    encoder = encoder_of(name, args, patch_size).eval().double()
    image, visible = films(encoder.grid())
    with torch.no_grad():
        expected = published(encoder.backbone, image.double(), visible, patch_size)
        pooled = encoder(image.double(), visible).pooled
    assert distance(pooled, expected) < 1e-10


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_logits_of_a_random_resnet50_agree_in_float32(share):
    torch.manual_seed(0)
    encoder = create_encoder("resnet50", (224, 224), hidden="layer", patch_size=16, num_classes=10).eval()
    image, visible = torch.rand(2, 1, 224, 224), torch.rand(2, 14, 14) < share
    with torch.no_grad():
        expected = encoder.backbone.fc(published(encoder.backbone, image, visible, 16))
        logits = encoder.backbone.fc(encoder(image, visible).pooled)
    assert distance(logits, expected) < 1e-5


@pytest.mark.parametrize(("name", "args"), NETWORKS, ids=IDS)
def test_it_is_the_published_algorithm_in_training(name, args):
    encoder = encoder_of(name, {**args, "drop_path_rate": 0.0}).train().double()
    image, visible = films(encoder.grid())
    image = image.double()
    reference = copy.deepcopy(encoder.backbone)
    expected = published(reference, image, visible, 32)
    pooled = encoder(image, visible).pooled
    assert distance(pooled, expected) < 1e-8
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2)).double()
    (pooled * direction).sum().backward()
    (expected * direction).sum().backward()
    for (key, own), (_, right) in zip(encoder.backbone.named_parameters(), reference.named_parameters(), strict=True):
        if right.grad is not None:
            torch.testing.assert_close(own.grad, right.grad, atol=1e-6, rtol=1e-6, msg=key)
    for (key, own), (_, right) in zip(encoder.backbone.named_buffers(), reference.named_buffers(), strict=True):
        torch.testing.assert_close(own, right, atol=1e-7, rtol=1e-7, msg=key)


@pytest.mark.parametrize(("name", "args"), NETWORKS, ids=IDS)
def test_with_everything_visible_it_is_the_plain_network_to_the_last_bit(name, args):
    encoder = encoder_of(name, args).eval()
    image, visible = films(encoder.grid())
    plain = encoder.backbone.forward_head(encoder.backbone.forward_features(image), pre_logits=True)
    assert torch.equal(encoder(image, torch.ones_like(visible)).pooled, plain)
    assert torch.equal(encoder(image).pooled, plain)


@pytest.mark.parametrize(("name", "args"), NETWORKS[:2] + NETWORKS[7:9], ids=IDS[:2] + IDS[7:9])
def test_what_is_hidden_cannot_influence_the_features(name, args):
    encoder = encoder_of(name, args).eval()
    image, visible = films(encoder.grid())
    seen = visible[:, None].repeat_interleave(32, 2).repeat_interleave(32, 3)
    other = torch.where(seen, image, torch.nan)
    features, changed = encoder(image, visible), encoder(other, visible)
    assert torch.equal(features.pooled, changed.pooled)
    for own, others in zip(features.maps, changed.maps, strict=True):
        assert torch.equal(own, others)
    assert not torch.allclose(encoder(image).pooled, features.pooled)


def test_a_film_is_not_changed_by_its_neighbours_in_the_batch():
    encoder = encoder_of("resnet18", {}).eval()
    image, visible = films(encoder.grid())
    together = encoder(image, visible).pooled
    for number in range(len(image)):
        alone = encoder(image[number : number + 1], visible[number : number + 1]).pooled
        torch.testing.assert_close(together[number : number + 1], alone)


def test_a_grey_film_is_filled_with_its_grey():
    pyramid = MaskPyramid(films((3, 4))[1].float(), 8)
    mask = pyramid.mask(("cells", 1))
    filled = pyramid.fill(0.3 * mask, ("cells", 1), 3)
    reached = pyramid.mask(("pool", ("cells", 1), (7, 7), (1, 1), (3, 3), (1, 1))) > 0
    torch.testing.assert_close(filled[reached], torch.full_like(filled[reached], 0.3), atol=1e-5, rtol=0)
    assert torch.equal(filled[~reached], torch.zeros_like(filled[~reached]))


def test_the_fill_has_no_gradient():
    image, visible = films((3, 4))
    pyramid = MaskPyramid(visible.float(), 32)
    x = (image * pyramid.mask(("cells", 1))).requires_grad_()
    (pyramid.fill(x, ("cells", 1), 2) * 3).sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 3.0))


def test_a_hard_gate_is_the_same_as_a_mask_and_has_a_gradient():
    encoder = encoder_of("resnet18", {}).eval()
    image, visible = films(encoder.grid())
    gate = visible.float().requires_grad_()
    pooled = encoder(image, gate).pooled
    torch.testing.assert_close(pooled, encoder(image, visible).pooled, atol=1e-5, rtol=1e-5)
    pooled.square().sum().backward()
    assert gate.grad[visible].abs().min() > 0


def test_weights_fit_timm_and_the_other_ways_of_hiding():
    encoder = encoder_of("resnet18", {})
    other = create_encoder("resnet18", (96, 128), hidden="sparse")
    other.backbone.load_state_dict(encoder.backbone.state_dict(), strict=True)
    image, _ = films(encoder.grid())
    assert torch.equal(encoder.eval()(image).pooled, other.eval()(image).pooled)


def test_bfloat16_and_channels_last():
    encoder = encoder_of("resnet18", {}).eval()
    image, visible = films(encoder.grid())
    expected = encoder(image, visible).pooled
    with torch.autocast("cpu", torch.bfloat16):
        assert distance(encoder(image, visible).pooled.float(), expected) < 0.05
    encoder.backbone.to(memory_format=torch.channels_last)
    torch.testing.assert_close(encoder(image, visible).pooled, expected, atol=1e-4, rtol=1e-4)


def test_a_network_that_cannot_be_followed_is_refused_by_the_name_of_the_layer():
    with pytest.raises(MimError, match=r"resnetblur50: .*maxpool\.1 \(BlurPool2d\)"):
        create_encoder("resnetblur50", (96, 128), hidden="layer")
