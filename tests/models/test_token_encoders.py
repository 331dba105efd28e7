"""What holds for token encoders beyond the promises of hiding: static shapes, grey stems, other image sizes."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from mim.models import MaskedImageModel, create_encoder, export_encoder, load_encoder_weights
from mim.models.features import places
from mim.models.tokens import put_mask_token

VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
HIERA = {"embed_dim": 24, "stages": [1, 1, 1, 1]}
SWIN = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "drop_path_rate": 0.0}
DROPPING = {
    "vit": ("vit_tiny_patch16_224", VIT),
    "eva": ("vit_small_patch16_rope_ape_224", VIT),
    "hiera": ("hiera_tiny_224", HIERA),
}
TOKEN = {
    "vit-token": ("vit_tiny_patch16_224", {**VIT, "hidden": "token"}),
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
}
FAMILIES = {**DROPPING, **TOKEN, "swin-v2": ("swinv2_tiny_window8_256", SWIN)}


def build(which, size=(64, 96), **more):
    torch.manual_seed(0)
    name, args = FAMILIES[which]
    return create_encoder(name, size, **args, **more).eval()


def show(encoder, count, seed, batch=3):
    rows, columns = encoder.grid()
    order = torch.rand(batch, rows * columns, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return (order < count).view(batch, rows, columns)


@pytest.mark.parametrize("which", [*DROPPING, "vit-token"])
def test_a_known_count_changes_nothing_and_compiles_once_without_a_break(which):
    encoder = build(which)
    image = torch.rand(3, 1, *encoder.image_size)
    compiled = torch.compile(encoder, backend="eager", fullgraph=True)  # a look at a value would break the graph
    with torch.no_grad(), torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(3):
            visible = show(encoder, 2, seed)
            plain, static = encoder(image, visible), compiled(image, visible, 2)
            torch.testing.assert_close(static.pooled, plain.pooled)
            assert torch.equal(static.index, plain.index)
            assert static.even
    torch._dynamo.reset()


def test_the_model_hands_the_count_on_and_a_wrong_one_is_noticed():
    task = MaskedImageModel(build("vit"))
    batch = {"image": torch.rand(3, 1, 64, 96), "visible": show(task.encoder, 6, seed=0)}
    without = task(batch)["loss"]
    task.visible_count = 6
    assert torch.equal(task(batch)["loss"], without)
    task.visible_count = 7
    with pytest.raises(RuntimeError, match="7 chosen cells"):
        task(batch)
    with pytest.raises(RuntimeError, match="2 chosen cells"):
        places(torch.tensor([[True, False, False], [True, True, False]]), 2)


def test_hidden_cells_are_neither_embedded_nor_attended_to(monkeypatch):
    """Counts what the network does: a quarter of the cells, in the patch embedding as in every attention."""
    encoder = build("vit")
    seen = []
    attend, linear = F.scaled_dot_product_attention, F.linear
    width = encoder.backbone.patch_embed.proj.weight[0].numel()

    def counting_attend(query, *args, **kwargs):
        seen.append(("attention", query.shape[2]))
        return attend(query, *args, **kwargs)

    def counting_linear(x, *args, **kwargs):
        if x.shape[-1] == width:
            seen.append(("embedding", x.shape[1]))
        return linear(x, *args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting_attend)
    monkeypatch.setattr(F, "linear", counting_linear)
    monkeypatch.setattr(encoder.backbone.patch_embed, "forward", None)  # all cells are not embedded by the way
    encoder(torch.rand(3, 1, 64, 96), show(encoder, 6, seed=1), 6)
    assert seen == [("embedding", 6), ("attention", 7), ("attention", 7)]


@pytest.mark.parametrize(("patch", "size"), [(8, (24, 40)), (14, (42, 28)), (16, (16, 80))])
def test_embedding_of_gathered_cells_is_that_of_the_convolution(patch, size):
    encoder = create_encoder("vit_tiny_patch16_224", size, in_chans=3, patch_size=patch, **VIT)
    image, cells = torch.rand(2, 3, *size), encoder.grid()[0] * encoder.grid()[1]
    index = torch.stack([torch.randperm(cells)[:3] for _ in range(2)])
    embedded = encoder.backbone.patch_embed(image)
    expected = torch.stack([embedded[i, index[i]] for i in range(2)])
    torch.testing.assert_close(encoder._embed(image, index, True), expected)


@pytest.mark.parametrize("which", list(FAMILIES))
def test_a_grey_film_meets_an_rgb_checkpoint_as_its_grey_picture_would(tmp_path, which):
    name, args = FAMILIES[which]
    args = {key: value for key, value in args.items() if key != "hidden"}
    torch.manual_seed(1)
    colour = timm.create_model(name, img_size=(64, 64), num_classes=0, **args).eval()
    save_file(colour.state_dict(), tmp_path / "rgb.safetensors")
    cfg = {"file": str(tmp_path / "rgb.safetensors"), "input_size": (3, 64, 64), "num_classes": 0}
    encoder = build(which, (64, 64), pretrained=True, pretrained_cfg_overlay=cfg)
    grey = torch.rand(2, 1, 64, 64)
    found = encoder.backbone.forward_features(grey)
    torch.testing.assert_close(found, colour.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("which", list(TOKEN))
def test_what_stands_at_hidden_cells_is_the_mask_token_and_it_learns(which):
    encoder = build(which)
    assert "mask_token" not in encoder.backbone.state_dict()
    features = encoder(torch.rand(3, 1, 64, 96), show(encoder, 3, seed=2))
    features.pooled.square().sum().backward()
    assert encoder.mask_token.grad.abs().sum() > 0
    hidden = ~show(encoder, 3, seed=2).flatten(1)
    assert (features.tokens[hidden].abs().sum(-1) > 0).all()  # a decoder finds there what the network made of it


def test_a_gate_blends_cell_and_mask_token_exactly_at_its_ends():
    cells, token = torch.randn(2, 3, 5), torch.randn(5)
    gate = torch.tensor([1.0, 0.0, 0.25])[:, None]
    mixed = put_mask_token(cells, gate, token)
    assert torch.equal(mixed[:, 0], cells[:, 0])
    assert torch.equal(mixed[:, 1], token.expand(2, -1))
    torch.testing.assert_close(mixed[:, 2], 0.25 * cells[:, 2] + 0.75 * token)


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("vit", "pos_embed from 4x6 to 8x8 cells"),
        ("eva", "pos_embed from 4x6 to 8x8 cells"),
        ("hiera", "pos_embed from 16x24 to 32x32 cells"),
        ("swin", "layers.3.blocks.0.attn.relative_position_bias_table from a window of 2x3 to 4x4"),
        ("swin-v2", None),
    ],
)
def test_weights_meet_another_image_size_and_it_is_said(tmp_path, which, said):
    encoder = build(which)
    export_encoder(tmp_path, encoder, encoder.backbone.state_dict(), mean=0.4, std=0.2)
    other = build(which, (128, 128))
    report = load_encoder_weights(other, tmp_path)
    assert report.adapted == [] if said is None else said in report.adapted
    assert torch.isfinite(other(torch.rand(1, 1, 128, 128)).pooled).all()
    again = build(which)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
    assert load_encoder_weights(again, tmp_path).adapted == []
    image = torch.rand(2, 1, 64, 96)
    assert torch.equal(again(image).pooled, encoder(image).pooled)


def test_windows_of_equal_area_are_told_apart(tmp_path):
    """A window of 2 by 3 has as many offsets as one of 3 by 2: the table must be turned, not taken as it is."""
    encoder = build("swin")
    export_encoder(tmp_path, encoder, encoder.backbone.state_dict(), mean=0.4, std=0.2)
    report = load_encoder_weights(build("swin", (96, 64)), tmp_path)
    name = "layers.3.blocks.0.attn.relative_position_bias_table"
    assert f"{name} from a window of 2x3 to 3x2" in report.adapted
