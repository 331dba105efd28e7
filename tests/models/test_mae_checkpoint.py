import argparse
import os
import subprocess
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from mae_reference import random_state, reference_loss
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mim.errors import MimError
from mim.masking.patterns import random_visible_batch
from mim.models import load_mae_checkpoint
from mim.models.mae_checkpoint import NAMES
from mim.models.targets import normalize_cells, patchify

SIZES = [
    {},
    {"channels": 1},
    {"width": 128, "depth": 3, "decoder_depth": 1, "decoder_width": 48},
    {"patch": 4, "rows": 6, "decoder_depth": 3},
    {"width": 192, "patch": 14, "rows": 3},
]
TOLERANCE = {"rtol": 0, "atol": 1e-5}


def saved(folder: Path, state: dict[str, Tensor], envelope: bool = True) -> Path:
    path = folder / "mae.pth"
    torch.save(
        {"model": state, "args": argparse.Namespace(norm_pix_loss=True), "epoch": 3} if envelope else state, path
    )
    return path


def batch_for(state: dict[str, Tensor], hidden: float = 0.75, count: int = 2) -> dict[str, Tensor]:
    """Images and masks that fit a checkpoint."""
    patch, rows = state["patch_embed.proj.weight"].shape[-1], round((state["pos_embed"].shape[1] - 1) ** 0.5)
    torch.manual_seed(1)
    side = patch * rows
    image = torch.rand(count, state["patch_embed.proj.weight"].shape[1], side, side)
    return {"image": image, "visible": random_visible_batch(count, (rows, rows), 1 - hidden, image.device)}


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_loss_is_that_of_the_slow_reference(tmp_path, sizes, norm_pix):
    state = random_state(**sizes)
    model = load_mae_checkpoint(saved(tmp_path, state), norm_pix=norm_pix, decoder_heads=4).eval()
    for hidden in (0.75, 0.4):
        batch = batch_for(state, hidden)
        heads = state["norm.weight"].numel() // 64
        expected = reference_loss(state, batch["image"], batch["visible"], heads, 4, norm_pix)
        torch.testing.assert_close(model(batch)["loss"], expected, **TOLERANCE)


def test_heads_are_as_they_are_said_to_be(tmp_path):
    state = random_state()
    model = load_mae_checkpoint(saved(tmp_path, state), decoder_heads=2, heads=4).eval()
    batch = batch_for(state)
    expected = reference_loss(state, batch["image"], batch["visible"], 4, 2, True)
    torch.testing.assert_close(model(batch)["loss"], expected, **TOLERANCE)
    other = reference_loss(state, batch["image"], batch["visible"], 1, 2, True)
    assert abs(expected - other) > 1e-3, "heads do matter"


def test_the_gradient_reaches_what_the_reference_reaches(tmp_path):
    state = random_state()
    model = load_mae_checkpoint(saved(tmp_path, state), decoder_heads=4)
    batch = batch_for(state)
    for tensor in state.values():
        tensor.requires_grad_()
    reference_loss(state, batch["image"], batch["visible"], 1, 4, True).backward()
    model(batch)["loss"].backward()
    torch.testing.assert_close(
        model.encoder.backbone.blocks[0].attn.qkv.weight.grad, state["blocks.0.attn.qkv.weight"].grad
    )
    torch.testing.assert_close(model.encoder.backbone.cls_token.grad, state["cls_token"].grad)
    torch.testing.assert_close(model.decoder.mask_token.grad, state["mask_token"].grad)


@pytest.mark.parametrize("form", ["bare", "safetensors", "parallel", "old"])
def test_files_of_other_forms_give_the_same(tmp_path, form):
    state = random_state()
    first = load_mae_checkpoint(saved(tmp_path, state), decoder_heads=4)
    if form == "safetensors":
        path = tmp_path / "mae.safetensors"
        save_file(state, path)
    elif form == "old":  # as PyTorch wrote them before 1.6
        path = tmp_path / "old.pth"
        whole = {"model": state, "args": argparse.Namespace(mask_ratio=0.75)}
        torch.save(whole, path, _use_new_zipfile_serialization=False)
    else:
        prefix = "module." if form == "parallel" else ""
        path = saved(tmp_path, {prefix + name: tensor for name, tensor in state.items()}, envelope=False)
    batch = batch_for(state)
    assert torch.equal(load_mae_checkpoint(path, decoder_heads=4)(batch)["loss"], first(batch)["loss"])


@pytest.mark.parametrize(("sizes", "name"), NAMES.items())
def test_timm_knows_the_named_sizes_by_these_names(sizes, name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (
        model.embed_dim,
        len(model.blocks),
        model.patch_embed.patch_size[0],
        model.blocks[0].attn.num_heads,
    ) == sizes


def test_a_usual_size_gets_its_name(tmp_path):
    state = random_state(width=192, depth=12, patch=16, rows=2, decoder_depth=1)
    model = load_mae_checkpoint(saved(tmp_path, state))
    assert model.encoder.spec.name == "vit_tiny_patch16_224"
    assert model.encoder.spec.timm_args == {}
    assert model.encoder.spec.image_size == (32, 32)
    assert (model.mean, model.std) == (0, 1)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("sizes", SIZES[:3], ids=str)
@pytest.mark.filterwarnings("ignore")
def test_transformers_and_lightly_agree_on_the_same_weights(tmp_path, sizes, norm_pix):
    state = random_state(**sizes)
    batch = batch_for(state)
    ours = load_mae_checkpoint(saved(tmp_path, state), norm_pix=norm_pix, decoder_heads=4).eval()(batch)["loss"]
    torch.testing.assert_close(ours, transformers_loss(state, batch, norm_pix), **TOLERANCE)
    torch.testing.assert_close(ours, lightly_loss(state, batch, norm_pix), **TOLERANCE)


@torch.no_grad()
def transformers_loss(state: dict[str, Tensor], batch: dict[str, Tensor], norm_pix: bool) -> Tensor:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    small, depth = state["decoder_embed.weight"].shape[0], count_blocks(state, "blocks")
    model = ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=width,
            num_hidden_layers=depth,
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            layer_norm_eps=1e-6,  # theirs is 1e-12 unless told, the checkpoints were trained with this
            image_size=batch["image"].shape[-1],
            patch_size=patch,
            num_channels=channels,
            decoder_num_attention_heads=4,
            decoder_hidden_size=small,
            decoder_num_hidden_layers=count_blocks(state, "decoder_blocks"),
            decoder_intermediate_size=4 * small,
            mask_ratio=float((~batch["visible"][0]).float().mean()),
            norm_pix_loss=norm_pix,
        )
    ).eval()
    missing, unexpected = model.load_state_dict(for_transformers(state, model), strict=True)
    assert not missing + unexpected
    # cells with the least noise are kept: visible ones get less than all the others
    noise = torch.rand(batch["visible"].flatten(1).shape) + (~batch["visible"]).flatten(1)
    out = model(batch["image"], noise=noise)
    assert torch.equal(out.mask.bool(), ~batch["visible"].flatten(1))
    return out.loss


def for_transformers(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights by the names that transformers has for them: attention in three parts."""
    renamed = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[name.replace(".attn.qkv.", f".attn.{part}.")] = piece
        else:
            renamed[name] = tensor
    theirs = {candidate: list(names_in_mae(candidate)) for candidate in model.state_dict()}
    return {candidate: renamed[next(name for name in names if name in renamed)] for candidate, names in theirs.items()}


def names_in_mae(name: str):
    """What MAE may call a tensor of transformers' ViTMAE."""
    for old, new in (
        ("vit.embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("vit.embeddings.position_embeddings", "pos_embed"),
        ("vit.embeddings.cls_token", "cls_token"),
        ("vit.layernorm", "norm"),
        ("vit.encoder.layer", "blocks"),
        ("vit.layers", "blocks"),
        ("decoder.decoder_layers", "decoder_blocks"),
        ("decoder.", ""),
        ("attention.attention.query", "attn.q"),
        ("attention.attention.key", "attn.k"),
        ("attention.attention.value", "attn.v"),
        ("attention.output.dense", "attn.proj"),
        ("attention.q_proj", "attn.q"),
        ("attention.k_proj", "attn.k"),
        ("attention.v_proj", "attn.v"),
        ("attention.o_proj", "attn.proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
    ):
        name = name.replace(old, new)
    yield name


@torch.no_grad()
def lightly_loss(state: dict[str, Tensor], batch: dict[str, Tensor], norm_pix: bool) -> Tensor:
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

    width, channels, patch, _ = state["patch_embed.proj.weight"].shape
    image, cells = batch["image"], batch["visible"].flatten(1)
    norm = partial(nn.LayerNorm, eps=1e-6)
    vit = VisionTransformer(
        img_size=image.shape[-1],
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        global_pool="",
        embed_dim=width,
        depth=count_blocks(state, "blocks"),
        num_heads=width // 64,
        norm_layer=norm,
    )
    encoder = MaskedVisionTransformerTIMM(vit).eval()
    decoder = MAEDecoderTIMM(
        num_patches=cells.shape[1],
        patch_size=patch,
        in_chans=channels,
        embed_dim=width,
        decoder_embed_dim=state["decoder_embed.weight"].shape[0],
        decoder_depth=count_blocks(state, "decoder_blocks"),
        decoder_num_heads=4,
    ).eval()
    encoder.vit.load_state_dict({name: state[name] for name in encoder.vit.state_dict()})
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    order = (~cells).int().argsort(dim=1, stable=True)
    first = cells[0].sum()
    places = torch.cat([torch.zeros(len(cells), 1, dtype=torch.long), order[:, :first] + 1], dim=1)  # 0: class token
    hidden = order[:, first:] + 1
    embedded = decoder.embed(encoder.encode(image, idx_keep=places))
    canvas = utils.repeat_token(decoder.mask_token, (len(cells), cells.shape[1] + 1))
    decoded = decoder.decode(utils.set_at_index(canvas, places, embedded))
    predicted = decoder.predict(utils.get_at_index(decoded, hidden))
    target = patchify(image, patch)
    target = normalize_cells(target)[0] if norm_pix else target
    return nn.functional.mse_loss(predicted, utils.get_at_index(target, hidden - 1))


def count_blocks(state: dict[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{part}.")})


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda state: without(state, "decoder_"), {}, "decoder_embed.weight is missing; an encoder without"),
        (lambda state: without(state, "blocks.1.norm2"), {}, "blocks.1.norm2.bias of the encoder is missing"),
        (
            lambda state: without(state, "decoder_blocks.0.mlp.fc2"),
            {},
            "blocks.0.mlp.fc2.bias of the decoder is missing",
        ),
        (lambda state: {**state, "pos_embed": state["pos_embed"][:, :-1]}, {}, "15 cells, which are no square"),
        (lambda state: {**state, "decoder_pos_embed": state["decoder_pos_embed"][:, 1:]}, {}, "decoder_pos_embed is"),
        (lambda state: {**state, "norm.weight": state["norm.weight"] * torch.nan}, {}, "norm.weight has values that"),
        (lambda state: state, {"decoder_heads": 5}, "decoder_heads=5 does not divide the width of 32"),
        (lambda state: state, {"heads": 5}, "heads=5 does not divide the width of 64"),
        (lambda state: {"notes": torch.zeros(1)}, {}, "cls_token is missing"),
        (lambda state: {}, {}, "holds no weights by name"),
    ],
)
def test_what_is_no_such_checkpoint_is_one_line(tmp_path, change, arguments, message):
    path = saved(tmp_path, change(random_state()))
    with pytest.raises(MimError) as refused:
        load_mae_checkpoint(path, **{"decoder_heads": 4, **arguments})
    assert message in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_damaged_and_missing_files_are_one_line(tmp_path):
    path = saved(tmp_path, random_state())
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a checkpoint", content[2:]):
        path.write_bytes(damaged)
        with pytest.raises(MimError, match=r"mae\.pth: cannot be read as weights") as refused:
            load_mae_checkpoint(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(MimError, match="is not there"):
        load_mae_checkpoint(tmp_path / "nothing.pth")


class Trap:
    """Calls something when it is unpickled."""

    def __init__(self, called: object, *arguments: object) -> None:
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments


def test_nothing_in_a_file_is_run(tmp_path):
    state, sprung, path = random_state(), tmp_path / "sprung", tmp_path / "mae.pth"
    torch.save({"model": state, "args": Trap(subprocess.call, ["touch", str(sprung)])}, path)
    batch = batch_for(state)
    expected = reference_loss(state, batch["image"], batch["visible"], 1, 4, True)
    torch.testing.assert_close(load_mae_checkpoint(path, decoder_heads=4)(batch)["loss"], expected, **TOLERANCE)
    assert not sprung.exists()


def test_a_file_that_asks_for_the_system_is_refused(tmp_path):
    path, sprung = tmp_path / "mae.pth", tmp_path / "sprung"
    torch.save({"model": random_state(), "args": Trap(os.system, f"touch {sprung}")}, path)
    with pytest.raises(MimError, match="cannot be read as weights") as refused:
        load_mae_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert not sprung.exists()
