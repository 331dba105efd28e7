import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from mim.errors import MimError
from mim.models import create_encoder, export_encoder, load_encoder_weights, read_exported
from mim.models.weights import build_encoder


def exported(tmp_path, name="vit_tiny_patch16_224", size=(32, 48), **args):
    encoder = create_encoder(name, size, **args)
    export_encoder(tmp_path, encoder, encoder.backbone.state_dict(), mean=0.4, std=0.2)
    return encoder


@pytest.mark.parametrize(("name", "args"), [("vit_tiny_patch16_224", {"depth": 2}), ("resnet18", {})])
def test_an_exported_encoder_comes_back_exactly(tmp_path, name, args):
    encoder = exported(tmp_path, name, (64, 96), **args).eval()
    described = read_exported(tmp_path)
    again = build_encoder(described.spec).eval()
    report = load_encoder_weights(again, tmp_path)
    image = torch.rand(2, 1, 64, 96)
    assert torch.equal(again(image).pooled, encoder(image).pooled)
    assert (described.mean, described.std) == (0.4, 0.2)
    assert report.loaded == len(encoder.backbone.state_dict())
    assert not report.adapted
    assert not report.left


def test_exported_weights_load_strict_into_timm(tmp_path):
    exported(tmp_path, depth=2)
    plain = timm.create_model("vit_tiny_patch16_224", img_size=(32, 48), in_chans=1, num_classes=0, depth=2)
    assert plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=True).missing_keys == []


def test_positions_are_resized_to_another_grid_and_it_is_said(tmp_path):
    exported(tmp_path, depth=1)
    larger = create_encoder("vit_tiny_patch16_224", (64, 64), depth=1)
    report = load_encoder_weights(larger, tmp_path)
    assert report.adapted == ["pos_embed from 2x3 to 4x4 cells"]
    assert "pos_embed from 2x3" in str(report)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("vit_small_patch16_224", {"depth": 2}, "holds a vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", {"depth": 3}, "another architecture: timm_args.depth is 2 there and 3 here"),
        ("vit_tiny_patch16_224", {"depth": 1}, "another architecture"),
        ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 96}, "another architecture"),
        ("vit_tiny_patch16_224", {"depth": 2, "num_heads": 6}, r"timm_args\.num_heads"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, name, args, message):
    exported(tmp_path, depth=2)
    with pytest.raises(MimError, match=message) as refused:
        load_encoder_weights(create_encoder(name, (32, 48), **args), tmp_path)
    assert "\n" not in str(refused.value)


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path):
    exported(tmp_path, depth=2)
    other = create_encoder("vit_tiny_patch16_224", (32, 48), depth=1)
    save_file(other.backbone.state_dict(), tmp_path / "encoder.safetensors")
    with pytest.raises(MimError, match=r"blocks\.1.* is missing"):
        load_encoder_weights(create_encoder("vit_tiny_patch16_224", (32, 48), depth=2), tmp_path)


def test_broken_or_missing_exports_are_one_line(tmp_path):
    with pytest.raises(MimError, match=r"no encoder\.json"):
        read_exported(tmp_path)
    encoder = exported(tmp_path, depth=2)
    weights = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(MimError, match="cannot be read"):
        load_encoder_weights(encoder, tmp_path)
    described = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps({**described, "format": 99}))
    with pytest.raises(MimError, match="format 99"):
        read_exported(tmp_path)
    (tmp_path / "encoder.json").write_text("[]")
    with pytest.raises(MimError, match="cannot be understood"):
        read_exported(tmp_path)
