"""A gate in training is the drop at inference: for every family and way of hiding, with hard gates, to within 1e-5.

Pooled features, maps and logits of a classifier, over masks from one visible cell to all but one, and ragged ones.
"""

import pytest
import torch

from mim.models import create_encoder
from mim.models.fills import FILLS
from mim.tasks import MaskedClassifier

SIZE = (64, 96)
VIT = {"depth": 2, "embed_dim": 48, "num_heads": 3}
HIERA = {"embed_dim": 24, "stages": (1, 1, 2, 1)}
SWIN = {"embed_dim": 24, "depths": (2, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
RESNET = ("resnet10t", {})
CONVNEXT = ("convnextv2_atto", {"depths": (1, 1, 1, 1)})
ENCODERS = {
    "vit-drop": ("vit_tiny_patch16_224", VIT),
    "vit-drop-class-token": ("vit_tiny_patch16_224", {**VIT, "global_pool": "token"}),
    "vit-drop-registers": ("vit_small_patch14_reg4_dinov2", VIT),
    "vit-drop-no-prefix": ("vit_medium_patch16_gap_240", VIT),
    "vit-token": ("vit_tiny_patch16_224", {**VIT, "hidden": "token"}),
    "eva-drop": ("vit_small_patch16_rope_ape_224", VIT),
    "eva-token": ("vit_small_patch16_rope_224", {**VIT, "hidden": "token"}),
    "hiera-drop": ("hiera_tiny_224", HIERA),
    "hiera-drop-windows": ("hiera_small_abswin_256", HIERA),
    "swin-token": ("swin_tiny_patch4_window7_224", SWIN),
    "swin-v2-token": ("swinv2_tiny_window8_256", SWIN),
    "resnet-sparse": RESNET,
    "resnet-layer": (RESNET[0], {"hidden": "layer"}),
    "convnext-sparse": CONVNEXT,
    "convnext-layer": ("convnext_atto", {"depths": (1, 1, 1, 1), "hidden": "layer"}),
    "efficientnet-sparse": ("test_efficientnet", {}),
    "efficientnet-layer": ("test_efficientnet", {"hidden": "layer"}),
    **{
        f"{family}-{fill}": (name, {**args, "hidden": "fill", "fill": fill})
        for fill in FILLS
        for family, (name, args) in {"vit": ("vit_tiny_patch16_224", VIT), "resnet": RESNET}.items()
    },
    "hiera-fill": ("hiera_tiny_224", {**HIERA, "hidden": "fill"}),
    "swin-fill": ("swin_tiny_patch4_window7_224", {**SWIN, "hidden": "fill"}),
}


def build(which):
    torch.manual_seed(0)
    name, args = ENCODERS[which]
    size = (70, 98) if "patch14" in name else SIZE
    more = {} if name.startswith(("vit", "hiera", "eva")) else {"patch_size": 16}
    encoder = create_encoder(name, size, **more, **args)
    with torch.no_grad():  # as after training: no scale or shift left at its neutral start
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    task = MaskedClassifier(encoder, num_classes=3, masker=lambda batch: batch["mask"], mean=0.45, std=0.225)
    return task.eval()


def masks(grid):
    """By name, each of four images: as many visible in each, or not."""
    cells = grid[0] * grid[1]
    order = torch.rand(4, cells, generator=torch.Generator().manual_seed(1)).argsort(1).view(4, *grid)
    counts = {"one": 1, "half": cells // 2, "all but one": cells - 1, "all": cells}
    even = {name: order < count for name, count in counts.items()}
    ragged = torch.stack([even[name][place] for place, name in enumerate(counts)])
    return {**even, "ragged": ragged}


@torch.no_grad()
def outputs(task, image, visible):
    features = task.encoder((image - task.mean) / task.std, visible)
    return {"pooled": features.pooled, "logits": task.head(features, visible)} | {
        f"map {place}": one for place, one in enumerate(features.maps)
    }


@pytest.mark.parametrize("which", ENCODERS)
def test_a_hard_gate_over_all_cells_is_the_drop(which):
    task = build(which)
    image = torch.rand(4, 1, *task.encoder.image_size, generator=torch.Generator().manual_seed(2))
    apart = {}
    for name, visible in masks(task.encoder.grid()).items():
        dropped, gated = outputs(task, image, visible), outputs(task, image, visible.float())
        assert dropped.keys() == gated.keys()
        for part, expected in dropped.items():
            scale = max(1.0, float(expected.abs().max()))
            apart[name, part] = float((gated[part] - expected).abs().max()) / scale
    assert {key: round(far, 7) for key, far in apart.items() if far > 1e-5} == {}


@pytest.mark.parametrize("which", ENCODERS)
def test_maps_are_whole_grids_with_zeros_where_half_is_hidden(which):
    """What detection and segmentation stand on: every map is dense, as large as with all seen."""
    task = build(which)
    encoder = task.encoder
    image = torch.rand(4, 1, *encoder.image_size, generator=torch.Generator().manual_seed(2))
    visible = masks(encoder.grid())["half"]
    with torch.no_grad():
        whole, half = encoder(image).maps, encoder(image, visible).maps
    assert [one.shape for one in half] == [one.shape for one in whole]
    for one in half:
        shown = torch.nn.functional.adaptive_max_pool2d(visible.float(), one.shape[2:])[:, None] > 0
        if encoder.spec.hidden != "layer":  # by layer masking what is seen widens with what a layer reads, as published
            assert (one.masked_select(~shown) == 0).all()
        assert (one.abs().sum(1, keepdim=True)[shown] > 0).float().mean() > 0.9
