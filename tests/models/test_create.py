import pytest
import torch

from mim.errors import MimError
from mim.models import create_encoder


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("vit_tiny_patch16_225", {}, "did you mean 'vit_tiny_patch16_224'"),
        ("vit_tiny_patch16_224", {"image_size": (225, 224)}, "225x224 is not divisible by the patch size 16"),
        ("vit_tiny_patch16_224", {"hidden": "sparse"}, "a ViT hides by 'drop' or 'token'"),
        ("hiera_tiny_224", {"hidden": "token"}, "a Hiera hides by 'drop'"),
        ("hiera_tiny_224", {"patch_size": 16}, "its cells are mask units of 32 pixels"),
        ("hiera_tiny_224", {"image_size": (72, 64)}, "the nearest that is: 64x64"),
        ("hiera_tiny_224", {"patch_drop_rate": 0.5}, "patch_drop_rate"),
        ("hiera_tiny_224", {"q_pool": 2}, "one token each"),
        ("swin_tiny_patch4_window7_224", {"hidden": "drop"}, "a Swin hides by 'token'"),
        ("swin_tiny_patch4_window7_224", {"patch_size": 24}, "do not fit each other"),
        ("swin_tiny_patch4_window7_224", {"patch_size": 16, "image_size": (80, 64)}, "divisible by the patch size 32"),
        ("swin_tiny_patch4_window7_224", {"dynamic_img_size": True}, "dynamic_img_size"),
        ("vit_pe_core_tiny_patch16_384", {"depth": 1}, "pools by attention"),
        ("resnet18", {"hidden": "drop"}, "a CNN hides by 'sparse'"),
        ("resnet18", {"image_size": (100, 96)}, "the nearest that is: 96x96"),
        ("resnet18", {"patch_size": 24, "image_size": (96, 96)}, "do not fit each other"),
        ("mixer_b16_224", {}, "a Swin hides by 'token' (swin_transformer, swin_transformer_v2)"),
        ("gc_efficientnetv2_rw_t", {}, "cells cannot be hidden in its"),
        ("resnet50_gn", {}, "its layer bn1 (GroupNorm)"),
        ("vit_tiny_patch16_224", {"no_such_argument": 1}, "no_such_argument"),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.5}, "patch_drop_rate"),
    ],
)
def test_what_cannot_be_hidden_is_refused_by_name_in_one_line(name, arguments, message):
    with pytest.raises(MimError) as refused:
        create_encoder(name, **arguments)
    assert message in str(refused.value)
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_patch_size_of_a_vit_is_its_own_or_the_one_asked_for():
    assert create_encoder("vit_tiny_patch16_224", depth=1).patch_size == 16
    encoder = create_encoder("vit_tiny_patch16_224", (64, 96), patch_size=8, depth=1)
    assert encoder.patch_size == 8
    assert encoder.grid() == (8, 12)
    assert encoder.grid((32, 32)) == (4, 4)


def test_a_cell_of_a_cnn_may_be_smaller_than_its_last_stride():
    encoder = create_encoder("resnet18", (64, 64), patch_size=16).eval()
    visible = torch.zeros(1, 4, 4, dtype=torch.bool)
    visible[0, 0, 0] = True
    image = torch.rand(1, 1, 64, 64)
    changed = image.clone()
    changed[..., 16:, :] = torch.nan
    changed[..., :, 16:] = torch.nan
    assert torch.equal(encoder(image, visible).pooled, encoder(changed, visible).pooled)


def test_three_channels():
    encoder = create_encoder("vit_tiny_patch16_224", (32, 32), in_chans=3, depth=1)
    assert encoder(torch.rand(2, 3, 32, 32)).pooled.shape == (2, 192)


@pytest.mark.parametrize(
    ("image", "visible", "message"),
    [
        (torch.rand(2, 3, 32, 32), None, "takes images"),
        (torch.rand(2, 1, 32, 48), None, "takes images"),
        (torch.rand(2, 1, 32, 32), torch.ones(2, 4, 4, dtype=torch.bool), "one value a cell"),
        (torch.rand(2, 1, 32, 32), torch.ones(2, 2, 2, dtype=torch.long), "boolean"),
    ],
)
def test_wrong_shapes_are_named(image, visible, message):
    encoder = create_encoder("vit_tiny_patch16_224", (32, 32), depth=1)
    with pytest.raises(ValueError, match=message):
        encoder(image, visible)
