"""Stacked visible cells against the masked-dense reference: same outputs, gradients and running statistics."""

import math

import pytest
import torch
from masked_dense import masked_dense_features
from torch import Tensor

from mim.models import Encoder, create_encoder
from mim.models.sparse_cells import VisibleCells, Window

SIZE = (64, 96)
NETWORKS = {
    "basic": ("resnet18", {"channels": (8, 8, 16, 16)}),
    "bottleneck": ("resnet50", {"layers": [1, 1, 1, 1], "channels": (4, 8, 8, 8)}),
    "deep-stem": ("resnet18d", {"channels": (8, 8, 8, 8)}),
    "squeeze": ("seresnet50", {"layers": [1, 1, 1, 1], "channels": (4, 8, 8, 8)}),
    "channel-attention": ("ecaresnet50t", {"layers": [1, 1, 1, 1], "channels": (4, 8, 8, 8)}),
    "blur": ("resnetblur18", {"channels": (8, 8, 8, 8)}),
    "grouped": ("resnext50_32x4d", {"layers": [1, 1, 1, 1]}),
    "convnext": ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}),
    "convnextv2": ("convnextv2_atto", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}),
    "convnextv2-linear": ("convnextv2_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 16, 24)}),
    "efficientnet": ("test_efficientnet", {}),
    "same-padding": ("test_efficientnet", {"pad_type": "same"}),
}
MASKS = ("random", "even", "one", "border", "all-but-one")


def build(which: str, patch_size: int, dtype: torch.dtype = torch.float64) -> Encoder:
    torch.manual_seed(0)
    name, args = NETWORKS[which]
    encoder = create_encoder(name, (64, 128) if patch_size == 64 else SIZE, patch_size=patch_size, **args).to(dtype)
    with torch.no_grad():  # as after training: no scale or shift left at its neutral start
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


def mask(which: str, grid: tuple[int, int]) -> Tensor:
    drawn = torch.rand(3, *grid, generator=torch.Generator().manual_seed(1))
    if which == "random":
        visible = drawn > 0.5
        visible[0] = False  # nothing of one image
        visible[1, 0, 0] = True
        return visible
    if which == "even":
        half = grid[0] * grid[1] // 2
        return (drawn.flatten(1).argsort(1) < half).view(drawn.shape)
    visible = torch.zeros(3, *grid, dtype=torch.bool)
    if which == "one":
        visible[:, -1, 0] = True
    elif which == "border":
        visible[:, 0], visible[:, :, -1] = True, True
    else:
        visible[:] = True
        visible[0, 0, 0] = False
    return visible


def pixels_of(encoder: Encoder, visible: Tensor) -> Tensor:
    return visible[:, None].repeat_interleave(encoder.patch_size, 2).repeat_interleave(encoder.patch_size, 3)


def observe(encoder: Encoder, run, training: bool) -> dict[str, Tensor]:
    """Outputs and gradients of one pass, and the statistics after it; the encoder is left as it was."""
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train(training).zero_grad()
    torch.manual_seed(3)
    pooled, maps = run()
    loss = pooled.square().mean() + sum(one.square().mean() for one in maps)
    loss.backward()
    seen = {"loss": loss.detach(), "pooled": pooled.detach()}
    seen |= {f"map {i}": one.detach() for i, one in enumerate(maps)}
    seen |= {f"gradient {name}": p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    seen |= {f"buffer {name}": buffer.clone() for name, buffer in encoder.named_buffers()}
    encoder.load_state_dict(state)
    return seen


def both(encoder: Encoder, visible: Tensor, training: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    image = torch.rand(3, 1, *encoder.image_size, dtype=next(encoder.parameters()).dtype)

    def stacked() -> tuple[Tensor, list[Tensor]]:
        features = encoder(image, visible)
        return features.pooled, list(features.maps)

    shown = image * pixels_of(encoder, visible)
    reference = observe(encoder, lambda: masked_dense_features(encoder.backbone, shown, visible), training)
    return observe(encoder, stacked, training), reference


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("which", NETWORKS)
def test_stacked_cells_equal_the_masked_dense_form(which, training):
    for patch_size, kind in ((32, "random"), (16, "even"), (16, "one"), (32, "border"), (32, "all-but-one")):
        encoder = build(which, patch_size)
        stacked, dense = both(encoder, mask(kind, encoder.grid()), training)
        assert stacked.keys() == dense.keys()
        for name, expected in dense.items():
            torch.testing.assert_close(stacked[name], expected, rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("which", ["basic", "convnextv2", "efficientnet"])
def test_large_cells_and_single_precision(which):
    encoder = build(which, 64, torch.float32)
    stacked, dense = both(encoder, mask("one", encoder.grid()), training=True)
    torch.testing.assert_close(stacked["loss"], dense["loss"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(stacked["pooled"], dense["pooled"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("which", ["basic", "convnextv2", "efficientnet"])
def test_a_known_count_gives_the_same_as_one_that_is_found_out(which):
    encoder = build(which, 32)
    visible = mask("even", encoder.grid())
    image = torch.rand(3, 1, *encoder.image_size, dtype=torch.float64) * pixels_of(encoder, visible)

    def run(count: int | None):
        features = encoder.encode(image, visible, count)
        return features.pooled, list(features.maps)

    found, given = (observe(encoder, lambda c=c: run(c), True) for c in (None, int(visible[0].sum())))
    for name, expected in found.items():
        torch.testing.assert_close(given[name], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["basic", "convnextv2", "efficientnet"])
def test_half_precision_is_finite_and_near(which):
    encoder = build(which, 32, torch.float32).eval()
    visible = mask("random", encoder.grid())
    image = torch.rand(3, 1, *encoder.image_size)
    expected = encoder(image, visible).pooled
    with torch.autocast("cpu", torch.bfloat16):
        pooled = encoder(torch.where(pixels_of(encoder, visible), image, math.nan), visible).pooled
    pooled.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    assert (pooled.float() - expected).norm() < 0.1 * expected.norm() + 0.01


def test_less_is_computed_when_more_is_hidden():
    encoder = build("basic", 32, torch.float32).eval()
    norm, seen = encoder.backbone.layer2[0].bn1, []
    norm.register_forward_hook(lambda _m, _i, output: seen.append(output.numel()))
    image, visible = torch.rand(3, 1, *SIZE), mask("one", encoder.grid())
    encoder(image, None)
    encoder(image, visible)
    assert seen[1] * 6 == seen[0]  # one of six cells


def test_stochastic_depth_drops_whole_images():
    encoder = create_encoder("convnext_atto", SIZE, drop_path_rate=0.5, depths=(1, 1, 1, 4), dims=(8, 8, 8, 8))
    visible = mask("even", encoder.grid())
    stacked, dense = both(encoder.double(), visible, training=True)
    torch.testing.assert_close(stacked["pooled"], dense["pooled"], rtol=1e-7, atol=1e-9)


def test_nothing_visible_at_all_is_nothing_and_no_failure():
    encoder = build("basic", 32, torch.float32).eval()
    features = encoder(torch.rand(2, 1, *SIZE), torch.zeros(2, 2, 3, dtype=torch.bool))
    assert (features.pooled == 0).all()
    assert (features.maps[-1] == 0).all()


@pytest.mark.parametrize("cell", [1, 2, 4])
@pytest.mark.parametrize("reflect", [False, True])
def test_what_is_fetched_is_what_stands_in_the_whole_map(cell, reflect):
    visible = mask("random", (3, 4))
    cells = VisibleCells(visible)
    dense = torch.rand(3, 5, 3 * cell, 4 * cell) * at(visible, cell)
    window = Window((3, 3), before=(1, 1), after=(1, 1), reflect=reflect)
    padded = torch.nn.functional.pad(dense, (1, 1, 1, 1), mode="reflect" if reflect else "constant")
    expected = padded.unfold(2, cell + 2, cell).unfold(3, cell + 2, cell)  # (B, C, gh, gw, cell + 2, cell + 2)
    fetched = cells.fetch(cells.stack(dense), window)
    assert torch.equal(fetched, expected.permute(0, 2, 3, 1, 4, 5)[visible])
    assert torch.equal(cells.unstack(cells.stack(dense)), dense)


def at(visible: Tensor, cell: int) -> Tensor:
    return visible[:, None].repeat_interleave(cell, 2).repeat_interleave(cell, 3)
