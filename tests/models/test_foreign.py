import re
from datetime import UTC, datetime

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mim.errors import MimError
from mim.models import load_foreign_encoder, load_foreign_weights

VIT = ("vit_tiny_patch16_224", {"depth": 2})
RESNET = ("resnet18", {})
CONVNEXT = ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [16, 32, 48, 64]})
SWIN = (
    "swin_tiny_patch4_window7_224",
    {"embed_dim": 24, "depths": [1, 2, 1, 1], "num_heads": [1, 2, 3, 6], "img_size": 64, "window_size": 2},
)


def teacher(name, args, **more):
    """What others have trained: a timm model in which nothing stands at its start."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **{**args, **more}).eval()
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn_like(tensor) * 0.1
            tensor.copy_(values.abs() + 0.5 if key.endswith("running_var") else values)
    return model


def saved(folder, content):
    path = folder / "theirs.pth"
    torch.save(content, path)
    return path


def image_of(channels=3, size=(64, 64)):
    return torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(1))


def agree(model, backbone, image):
    with torch.no_grad():
        expected = model(image)
        assert expected.abs().max() > 0
        assert torch.equal(backbone.eval()(image), expected)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def as_simmim_swin(state):
    """SimMIM keeps Swin's first code: merging at the end of a stage, computed buffers among the weights."""
    theirs = {
        re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): tensor
        for name, tensor in state.items()
    }
    theirs["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.long)
    theirs["layers.1.blocks.1.attn_mask"] = torch.zeros(4, 4, 4)
    theirs["mask_token"] = torch.rand(1, 1, 24)
    decoder = {"decoder.0.weight": torch.rand(3072, 192, 1, 1), "decoder.0.bias": torch.rand(3072)}
    return {"model": {**prefixed("encoder.", theirs), **decoder}, "optimizer": {}, "epoch": 1}


def as_beit_vit(state):
    """SimMIM's ViT is BEiT's: no bias of keys, layer scale by other names, pooling before the norm."""
    theirs = {}
    for name, tensor in state.items():
        if name.endswith("qkv.bias"):
            query, _, value = tensor.chunk(3)
            theirs[name.replace("qkv.bias", "q_bias")] = query
            theirs[name.replace("qkv.bias", "v_bias")] = value
        else:
            theirs[re.sub(r"ls([12])\.gamma", r"gamma_\1", name)] = tensor
    return theirs


def as_official_convnext(state):
    """SparK's ConvNeXt goes by the names of its authors, and has no final norm."""
    theirs = {}
    for name, tensor in state.items():
        if name.startswith("head."):
            continue
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = name.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        theirs[name] = tensor
    return theirs


def test_simmim_swin(tmp_path):
    model = teacher(*SWIN)
    path = saved(tmp_path, as_simmim_swin(model.state_dict()))
    backbone = timm.create_model(SWIN[0], num_classes=0, **SWIN[1])
    report = load_foreign_weights(backbone, path)
    agree(model, backbone, image_of())
    assert report.loaded == len(model.state_dict())
    assert report.adapted == []
    assert set(report.left) == {"mask_token", "decoder.0.weight", "decoder.0.bias"}
    assert "decoder.* (2 tensors)" in str(report)


def test_simmim_swin_with_another_window_and_one_channel(tmp_path):
    model = teacher(*SWIN)
    path = saved(tmp_path, as_simmim_swin(model.state_dict()))
    backbone = timm.create_model(SWIN[0], num_classes=0, in_chans=1, **{**SWIN[1], "window_size": 4})
    report = load_foreign_weights(backbone, path)
    assert report.loaded == len(model.state_dict())
    assert "patch_embed.proj from 3 to 1 channels" in report.adapted
    wider = [name for name, tensor in backbone.state_dict().items() if "bias_table" in name and len(tensor) == 49]
    assert len(wider) == 4  # the last stage has no room for more
    for name in wider:
        assert any(line.startswith(f"{name} from 9x") for line in report.adapted)


def test_simmim_vit_with_absolute_positions(tmp_path):
    args = {"depth": 2, "init_values": 0.1, "img_size": 64}
    model = teacher(VIT[0], args)
    for block in model.blocks:
        block.attn.qkv.bias.data[192:384] = 0  # BEiT has no bias of keys
    theirs = as_beit_vit(model.state_dict())
    path = saved(tmp_path, {"model": prefixed("encoder.", {**theirs, "mask_token": torch.rand(1, 1, 192)})})
    encoder, report = load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2, init_values=0.1, global_pool="token")
    agree(model, encoder.backbone, image_of())
    assert report.adapted == ["q_bias and v_bias to qkv.bias in 2 blocks"]
    assert report.left == ["mask_token"]
    # as they are published: without a norm behind the blocks
    unnormed = {name: tensor for name, tensor in theirs.items() if not name.startswith("norm.")}
    path = saved(tmp_path, {"model": prefixed("encoder.", unnormed)})
    _, report = load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2, init_values=0.1)
    assert "norm stays fresh, the file has no final norm" in report.adapted


def test_simmim_vit_with_relative_positions_is_refused_by_name(tmp_path):
    state = teacher(VIT[0], VIT[1], img_size=64).state_dict()
    theirs = prefixed("encoder.", {**state, "rel_pos_bias.relative_position_bias_table": torch.rand(52, 3)})
    with pytest.raises(MimError, match="rel_pos_bias") as refused:
        load_foreign_encoder(saved(tmp_path, {"model": theirs}), VIT[0], (64, 64), 3, depth=2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("whole", [True, False])
def test_spark_resnet(tmp_path, whole):
    model = teacher(*RESNET)
    state = model.state_dict()
    spark = {**prefixed("sparse_encoder.sp_cnn.", state), "dense_decoder.dec.0.up_sample.weight": torch.rand(2, 2)}
    content = {"module": {**spark, "config": {"mask_ratio": 0.6}}, "arch": "resnet18", "args": "{}"} if whole else state
    encoder, report = load_foreign_encoder(saved(tmp_path, content), "resnet18", (64, 64), 3)
    agree(model, encoder.backbone, image_of())
    assert report.loaded == len(state)
    assert report.left == (["dense_decoder.dec.0.up_sample.weight"] if whole else [])


@pytest.mark.parametrize("whole", [True, False])
def test_spark_convnext(tmp_path, whole):
    model = teacher(*CONVNEXT)
    theirs = as_official_convnext(model.state_dict())
    content = {"module": prefixed("sparse_encoder.sp_cnn.", theirs)} if whole else theirs
    encoder, report = load_foreign_encoder(saved(tmp_path, content), CONVNEXT[0], (64, 64), 3, **CONVNEXT[1])
    with torch.no_grad():
        expected = model.forward_features(image_of())
        assert torch.equal(encoder.backbone.eval().forward_features(image_of()), expected)
    assert report.adapted == ["head.norm stays fresh, the file has no final norm"]
    assert report.loaded == len(theirs)


@pytest.mark.parametrize("form", ["bare", "model", "backbone.", "module.encoder.", "safetensors", "with decoder"])
def test_mae_encoders_and_plain_timm_weights_in_every_form(tmp_path, form):
    model = teacher(VIT[0], VIT[1], img_size=64)
    state = model.state_dict()
    path = tmp_path / "theirs.safetensors"
    if form == "safetensors":
        save_file(state, path)
    elif form == "with decoder":
        decoder = {"mask_token": torch.rand(1, 1, 8), "decoder_embed.weight": torch.rand(8, 192)}
        path = saved(tmp_path, {"model": {**state, **decoder, "head.weight": torch.rand(10, 192)}})
    else:
        wrapped = prefixed(form, state) if form.endswith(".") else state
        path = saved(tmp_path, {"model": wrapped} if form == "model" else wrapped)
    encoder, report = load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2, global_pool="token")
    agree(model, encoder.backbone, image_of())
    assert report.loaded == len(state)
    assert set(report.left) == ({"mask_token", "decoder_embed.weight", "head.weight"} if "decoder" in form else set())


@pytest.mark.parametrize(("name", "args"), [VIT, RESNET, CONVNEXT])
def test_a_gray_film_gives_what_it_gave_as_a_picture_of_equal_channels(tmp_path, name, args):
    sized = {"img_size": 64} if name == VIT[0] else {}
    model = teacher(name, args, **sized)
    path = saved(tmp_path, model.state_dict())
    pool = {"global_pool": "token"} if name == VIT[0] else {}
    encoder, report = load_foreign_encoder(path, name, (64, 64), 1, **args, **pool)
    gray = image_of(1)
    with torch.no_grad():
        torch.testing.assert_close(encoder.backbone.eval()(gray), model(gray.expand(-1, 3, -1, -1)))
    assert any("from 3 to 1 channels" in line for line in report.adapted)
    back, report = load_foreign_encoder(
        saved(tmp_path, encoder.backbone.state_dict()), name, (64, 64), 3, **args, **pool
    )
    with torch.no_grad():
        torch.testing.assert_close(back.backbone.eval()(gray.expand(-1, 3, -1, -1)), encoder.backbone(gray))
    assert any("from 1 to 3 channels" in line for line in report.adapted)


def test_positions_are_resized_as_timm_resizes_them(tmp_path):
    model = teacher(VIT[0], VIT[1], img_size=64)
    path = saved(tmp_path, model.state_dict())
    encoder, report = load_foreign_encoder(path, VIT[0], (32, 96), 3, depth=2, global_pool="token")
    assert report.adapted == ["pos_embed from 4x4 to 2x6 cells"]
    model.set_input_size((32, 96))
    agree(model, encoder.backbone, image_of(size=(32, 96)))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("vit_tiny_patch16_224", {"depth": 1}, "blocks.1.norm1.weight is (192,) there and unknown here"),
        ("vit_tiny_patch16_224", {"depth": 3}, "blocks.2."),
        ("vit_small_patch16_224", {"depth": 2}, "cls_token is (1, 1, 192) there and (1, 1, 384) here"),
        ("resnet18", {}, "conv1.weight is missing"),
        ("convnext_atto", {}, "does not fit convnext_atto"),
        ("vit_tiny_patch16_224", {"depth": 2, "patch_size": 8}, "patch_embed.proj.weight"),
    ],
)
def test_another_architecture_is_one_line_and_changes_nothing(tmp_path, name, args, message):
    path = saved(tmp_path, teacher(VIT[0], VIT[1], img_size=64).state_dict())
    size = {"img_size": 64} if name.startswith("vit") else {}
    backbone = timm.create_model(name, num_classes=0, **args, **size)
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    with pytest.raises(MimError) as refused:
        load_foreign_weights(backbone, path)
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in backbone.state_dict().items())


def test_a_missing_norm_in_a_plain_file_is_refused(tmp_path):
    state = teacher(VIT[0], VIT[1], img_size=64).state_dict()
    path = saved(tmp_path, {name: tensor for name, tensor in state.items() if not name.startswith("norm.")})
    with pytest.raises(MimError, match=r"norm\.weight is missing"):
        load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2)


def test_a_file_that_pools_before_its_norm_says_how_it_is_built(tmp_path):
    model = teacher(VIT[0], VIT[1], img_size=64, global_pool="avg")
    assert isinstance(model.norm, nn.Identity)
    path = saved(tmp_path, {"model": model.state_dict()})
    with pytest.raises(MimError, match=re.escape("timm_args={fc_norm: true}")):
        load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2)
    encoder, _ = load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2, fc_norm=True)
    agree(model, encoder.backbone, image_of())


def test_settings_of_any_class_in_the_file_do_no_harm(tmp_path):
    model = teacher(VIT[0], VIT[1], img_size=64)
    more = {"path": tmp_path, "loss": np.float64(0.5), "curve": np.arange(3), "when": datetime.now(UTC)}
    path = saved(tmp_path, {"model": model.state_dict(), "config": Settings({"depth": [2]}), **more})
    encoder, report = load_foreign_encoder(path, VIT[0], (64, 64), 3, depth=2, global_pool="token")
    agree(model, encoder.backbone, image_of())
    assert report.left == []


class Settings(dict):
    """Like yacs' CfgNode, which SimMIM puts into its files: a dictionary with attributes."""

    def __init__(self, values):
        super().__init__(values)
        self.frozen = True
