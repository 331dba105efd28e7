import copy

import pytest
import timm
import torch
from timm.models import get_model_args
from timm.utils import ModelEmaV3
from torch import nn

from mim.models import Encoder, create_encoder, export_encoder, load_encoder_weights
from mim.models.lora import LowRank, plain_state
from mim.models.tuning import Tuning, check_tuning, tune
from mim.tasks import MaskedClassifier

# timm name -> hidden, image size, arguments that make it small; Swin V2 and EVA read weights without calling the layer
NETWORKS = {
    "vit_tiny_patch16_224": ("drop", (32, 48), {"depth": 2, "embed_dim": 48, "num_heads": 3}),
    "eva02_tiny_patch14_224": ("drop", (28, 42), {"depth": 2}),
    "swin_tiny_patch4_window7_224": ("token", (64, 64), {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4]}),
    "swinv2_tiny_window8_256": ("token", (64, 64), {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 4]}),
    "hiera_tiny_224": ("drop", (64, 64), {"stages": [1, 1, 1, 1]}),
    "convnext_tiny": ("sparse", (64, 64), {"depths": [1, 1, 1, 1], "dims": [16, 24, 32, 48]}),
}
LORA = Tuning("lora", low_rank=LowRank(rank=4, alpha=8.0))


def encoder_of(name: str) -> Encoder:
    torch.manual_seed(0)
    hidden, size, arguments = NETWORKS[name]
    encoder = create_encoder(name, size, 1, hidden, **arguments)
    for module in encoder.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)  # Swin V2 starts some at 0, and nothing is learnt before them
    for key, parameter in encoder.named_parameters():
        if key.endswith(".gamma"):
            nn.init.ones_(parameter)  # ConvNeXt starts them at a millionth
    return encoder


def seen_by(encoder: Encoder, *, masked: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 1, *encoder.image_size, generator=generator)
    visible = torch.rand(2, *encoder.grid(), generator=generator) < 0.5 if masked else None
    with torch.no_grad():
        features = encoder.eval()(image, visible)
    return [features.pooled, *features.maps]


def train(task: MaskedClassifier, steps: int = 3) -> set[str]:
    """Some steps; the names of all that they move."""
    before = {name: value.clone() for name, value in task.state_dict().items()}
    learning = [parameter for parameter in task.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.01)
    task.train()
    for _ in range(steps):
        image = torch.rand(4, 1, *task.encoder.image_size)
        optimizer.zero_grad()
        task({"image": image, "label": torch.tensor([0, 1, 1, 0])})["loss"].backward()
        optimizer.step()
    return {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("name", NETWORKS)
def test_updates_alone_learn_and_come_to_weights_that_timm_takes(name: str) -> None:
    encoder = encoder_of(name)
    plain = copy.deepcopy(encoder.backbone.state_dict())
    views = [seen_by(encoder, masked=masked) for masked in (False, True)]
    tune(encoder, LORA)
    for masked, view in enumerate(views):
        for now, before in zip(seen_by(encoder, masked=bool(masked)), view, strict=True):
            assert torch.equal(now, before), "before the first step the network is what it was"

    moved = train(MaskedClassifier(encoder))
    updates = {key for key, _ in encoder.named_parameters(prefix="encoder") if key.endswith((".up", ".down"))}
    assert {key for key in moved if key.startswith("encoder.")} == updates, "all updates move, and nothing else does"
    assert any(key.startswith("head.") for key in moved)

    state = plain_state(encoder.backbone)
    assert state.keys() == plain.keys()
    adapted = {key for key in state if not torch.equal(state[key], plain[key])}
    assert {key.removesuffix(".weight") for key in adapted} == {
        key.removeprefix("encoder.backbone.").partition(".parametrizations.")[0] for key in updates
    }
    timm.create_model(name, **get_model_args(encoder.backbone)).load_state_dict(state, strict=True)
    merged = encoder_of(name)
    merged.backbone.load_state_dict(state, strict=True)
    if hasattr(merged, "mask_token"):
        merged.mask_token = encoder.mask_token  # it is no part of the backbone
    for masked in (False, True):
        learnt = seen_by(encoder, masked=masked)
        assert (learnt[0] - views[masked][0]).abs().max() > 1e-3
        for expected, found in zip(learnt, seen_by(merged, masked=masked), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_an_update_is_the_product_of_two_matrices_times_alpha_over_rank() -> None:
    encoder = encoder_of("vit_tiny_patch16_224")
    layer = encoder.backbone.blocks[0].attn.qkv
    before = layer.weight.detach().clone()
    tune(encoder, Tuning("lora", low_rank=LowRank(rank=3, alpha=12.0)))
    update = layer.parametrizations.weight[0]
    with torch.no_grad():
        update.up.normal_()
    wanted = before + 4 * update.up @ update.down
    torch.testing.assert_close(layer.weight, wanted, rtol=1e-5, atol=1e-6)
    assert torch.linalg.matrix_rank(layer.weight.detach() - before, atol=1e-4) == 3


def test_attention_alone_and_norms() -> None:
    encoder = encoder_of("vit_tiny_patch16_224")
    tune(encoder, Tuning("lora", low_rank=LowRank(rank=2, layers="attention", norms=True)))
    moved = {key for key in train(MaskedClassifier(encoder)) if key.startswith("encoder.")}
    assert any("attn.qkv.parametrizations" in key for key in moved)
    assert any("norm1.bias" in key for key in moved)
    assert all("attn" in key or "norm" in key for key in moved)


def test_statistics_of_norms_stay() -> None:
    encoder = create_encoder("levit_128s", (224, 224), 1, "fill", 32)
    assert any(isinstance(module, nn.BatchNorm1d) for module in encoder.modules())
    tune(encoder, Tuning("lora", low_rank=LowRank(rank=2)))
    moved = {key for key in train(MaskedClassifier(encoder), steps=1) if key.startswith("encoder.")}
    assert moved
    assert all(key.endswith((".up", ".down")) for key in moved)


def test_dropout_goes_on_beside_updates() -> None:
    encoder = encoder_of("vit_tiny_patch16_224")
    tune(encoder, LORA)
    assert all(module.training for module in MaskedClassifier(encoder).train().modules())


def test_a_moving_average_keeps_the_weights_and_follows_the_updates() -> None:
    encoder = encoder_of("swinv2_tiny_window8_256")
    plain = copy.deepcopy(encoder.backbone.state_dict())
    tune(encoder, LORA)
    task = MaskedClassifier(encoder)
    average = ModelEmaV3(task, decay=0.7)
    for _ in range(4):
        train(task, steps=1)
        average.update(task)
    ours, theirs = encoder.backbone.state_dict(), average.module.encoder.backbone.state_dict()
    for key, value in ours.items():
        if key.endswith((".up", ".down")):
            assert not torch.equal(value, theirs[key])
        else:
            assert torch.equal(value, plain[key.replace(".parametrizations.weight.original", ".weight")])
            assert torch.equal(value, theirs[key])


def test_an_export_loads_as_that_of_any_run(tmp_path) -> None:
    encoder = encoder_of("vit_tiny_patch16_224")
    tune(encoder, LORA)
    train(MaskedClassifier(encoder))
    export_encoder(tmp_path, encoder, plain_state(encoder.backbone), 0.4, 0.2)
    other = encoder_of("vit_tiny_patch16_224")
    report = load_encoder_weights(other, tmp_path)
    assert not report.left
    assert not report.adapted
    for expected, found in zip(seen_by(encoder, masked=True), seen_by(other, masked=True), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_has_nothing_to_adapt_is_refused_and_left_alone() -> None:
    resnet = create_encoder("resnet18", (64, 64), 1, "sparse")
    convnext, vit = encoder_of("convnext_tiny"), encoder_of("vit_tiny_patch16_224")
    for encoder, low_rank, said in (
        (resnet, LowRank(), "a ResNet has no linear layer to adapt"),
        (convnext, LowRank(layers="attention"), "a ConvNeXt has no linear layer in its attention to adapt"),
        (vit, LowRank(rank=48), "rank 48 is no less than that of the weights of blocks.0.attn.qkv, which is 48"),
    ):
        before = list(encoder.state_dict())
        for refuse in (check_tuning, tune):
            with pytest.raises(ValueError, match=said):
                refuse(encoder, Tuning("lora", low_rank=low_rank))
        assert list(encoder.state_dict()) == before
        assert all(parameter.requires_grad for parameter in encoder.parameters())
