import sys
from pathlib import Path

import pytest
import timm
import torch
from monai.losses import DiceCELoss
from torch import nn

from mim.masking import Mask, PatchMasker, ThresholdMasker
from mim.models import create_encoder
from mim.models.segmentation_head import SegmentationHead
from mim.tasks import MaskedSegmenter

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families import each_family

HEADS = ["unet", "upernet"]
SMALL = {"channels": 16}
SIZE = (64, 96)


class Fixed(nn.Module):
    """Shows the left half."""

    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, batch):
        visible = torch.zeros(len(batch["image"]), *self.grid, dtype=torch.bool)
        visible[:, :, : self.grid[1] // 2] = True
        return Mask(visible)


def encoder(name="resnet18", hidden=None):
    torch.manual_seed(0)
    args = {"depth": 1, "embed_dim": 48, "num_heads": 3} if "vit" in name else {}
    return create_encoder(name, SIZE, hidden=hidden, **args)


def films():
    """A film with two bright rectangles, which are lesions, and one without."""
    image = 0.2 + 0.05 * torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    lesion = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    lesion[0, 0, 10:34, 8:30] = lesion[0, 0, 24:56, 52:84] = True
    return {"image": torch.where(lesion, 0.8, image), "lesion": lesion}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("name", "size", "args"), each_family())
def test_every_family_says_of_every_pixel_what_it_is(name, size, args, head):
    torch.manual_seed(0)
    task = MaskedSegmenter(create_encoder(name, size, **args), num_classes=2, head=head, **SMALL)
    lesion = torch.zeros(2, 2, *size, dtype=torch.bool)
    lesion[0, 0, 4:20, 4:20] = True
    out = task({"image": torch.rand(2, 1, *size), "lesion": lesion})
    assert out["logits"].shape == (2, 2, *size)
    assert out["loss"].isfinite()
    out["loss"].backward()
    learning = dict(task.head.named_parameters())
    assert [key for key, weight in learning.items() if weight.grad is None or not weight.grad.any()] == []
    weights = dict(task.encoder.named_parameters())
    assert any(weight.grad is not None and weight.grad.any() for weight in weights.values())
    unlike = task.eval()({"image": torch.rand(2, 1, *size)})
    assert "loss" not in unlike
    assert unlike["visible"].all()


def test_the_trained_backbone_loads_into_timm():
    task = MaskedSegmenter(encoder(), **SMALL)
    fresh = timm.create_model("resnet18", in_chans=1, num_classes=0)
    fresh.load_state_dict(task.encoder.backbone.state_dict(), strict=True)
    assert torch.equal(next(iter(fresh.parameters())), next(iter(task.encoder.backbone.parameters())))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("vit_tiny_patch16_224", "drop"),
        ("vit_tiny_patch16_224", "token"),
        ("resnet18", "sparse"),
        ("resnet18", "layer"),
    ],
)
@pytest.mark.parametrize("classes", [1, 3])
def test_what_is_hidden_moves_neither_features_nor_pixels(name, hidden, head, classes):
    own = encoder(name, hidden)
    task = MaskedSegmenter(own, Fixed(own.grid()), classes, head, **SMALL).eval()
    met = []
    task.head.register_forward_pre_hook(lambda module, inputs: met.append([one.detach().clone() for one in inputs[0]]))
    image = films()["image"]
    middle = own.grid()[1] // 2 * own.patch_size
    with torch.no_grad():
        before = task({"image": image})
        for filling in (torch.rand(2, 1, *SIZE), torch.full((2, 1, *SIZE), torch.nan)):
            other = image.clone()
            other[..., middle:] = filling[..., middle:]
            assert torch.equal(task({"image": other})["logits"], before["logits"])
        seen = image.clone()
        seen[..., :middle] = torch.rand(2, 1, 64, middle)
        assert not torch.equal(task({"image": seen})["logits"], before["logits"])
    for maps in met[1:3]:
        assert all(torch.equal(one, other) for one, other in zip(maps, met[0], strict=True))
    assert all(not one[..., (one.shape[-1] + 1) // 2 :].any() for one in met[0] if one.shape[-1] % 2 == 0)


@pytest.mark.parametrize(("head", "loss"), [("unet", "dice_ce"), ("upernet", "dice_focal")])
def test_a_film_with_lesions_and_one_without_are_learnt_by_heart(head, loss):
    torch.manual_seed(0)
    own = create_encoder("resnet18", SIZE, layers=[1, 1, 1, 1])
    task = MaskedSegmenter(own, head=head, loss=loss, mean=0.3, std=0.2, **SMALL)
    batch = films()
    optimizer = torch.optim.AdamW(task.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        drawn = task(batch)["logits"] > 0  # as in training: forty steps leave the running statistics far behind
    both = (drawn & batch["lesion"]).sum()
    assert 2 * both / (drawn.sum() + batch["lesion"].sum()) > 0.8
    assert not drawn[1].any(), "where there is no lesion"


def test_films_of_which_none_has_a_lesion_train():
    for loss in ("dice_ce", "dice_focal"):
        task = MaskedSegmenter(encoder(), loss=loss, **SMALL)
        out = task({"image": torch.rand(2, 1, *SIZE), "lesion": torch.zeros(2, 1, *SIZE, dtype=torch.bool)})
        out["loss"].backward()
        assert out["loss"].isfinite()
        assert out["loss"] > 0


def test_a_film_without_a_lesion_counts_as_empty_in_the_dice_of_the_batch():
    task = MaskedSegmenter(encoder(), **SMALL).eval()
    batch = films()
    out = task(batch)
    expected = DiceCELoss(sigmoid=True, batch=True)(out["logits"], batch["lesion"].float())
    torch.testing.assert_close(out["loss"], expected)
    alone = task({name: value[:1] for name, value in batch.items()})
    assert alone["loss"] != out["loss"]


def test_classes_do_not_exclude_each_other():
    task = MaskedSegmenter(encoder(), num_classes=2, **SMALL).eval()
    batch = films()
    lesion = batch["lesion"].expand(-1, 2, -1, -1)  # every lesion is of both
    out = task({"image": batch["image"], "lesion": lesion})
    loss = DiceCELoss(sigmoid=True, batch=True)
    one, other = (loss(out["logits"][:, place, None], lesion[:, place, None].float()) for place in (0, 1))
    torch.testing.assert_close(out["loss"], (one + other) / 2)


def test_a_masker_that_learns_hears_of_the_pixels_and_keeps_to_its_budget():
    task = MaskedSegmenter(encoder("vit_tiny_patch16_224"), PatchMasker(16, keep=0.5, gate="binary"), **SMALL)
    out = task(films())
    torch.testing.assert_close(out["loss"], out["loss_pixels"] + out["loss_budget"])
    out["loss_pixels"].backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in task.masker.parameters())


@pytest.mark.parametrize(
    "masker",
    [PatchMasker(16, keep=0.4), ThresholdMasker("quantile:0.6"), ThresholdMasker("quantile:0.4", keep="below")],
)
def test_a_masker_that_hides_more_than_half_is_refused(masker):
    with pytest.raises(ValueError, match=r"40% of the cells.*at least half"):
        MaskedSegmenter(encoder(), masker, **SMALL)


def test_half_may_be_hidden_and_a_soft_gate_may_weigh_as_it_likes():
    half = MaskedSegmenter(encoder(), ThresholdMasker("quantile:0.5"), **SMALL).eval()
    soft = MaskedSegmenter(encoder("vit_tiny_patch16_224"), PatchMasker(16, keep=0.2, gate="soft"), **SMALL).eval()
    batch = {"image": torch.rand(2, 1, *SIZE)}
    assert half(batch)["visible"].float().mean() == pytest.approx(0.5, abs=0.1)
    assert soft(batch)["visible"].all()


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
@pytest.mark.parametrize(("finest", "scales"), [(4, 4), (8, 3)])
def test_the_decoder_begins_at_the_stride_asked_for(name, finest, scales):
    own = encoder(name)
    head = SegmentationHead(own, 1, "unet", 16, finest)
    maps = head.scales(own(torch.rand(1, 1, *SIZE)).maps)
    assert len(maps) == scales
    assert SIZE[0] / maps[0].shape[-2] == finest
    assert [one.shape[1] for one in maps] == head.scales.widths


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"head": "deeplab"}, "unet or upernet, not 'deeplab'"),
        ({"channels": 40}, "multiple of 16, not 40"),
        ({"loss": "dice"}, "dice_ce or dice_focal, not 'dice'"),
        ({"num_classes": 0}, "a class at least"),
        ({"finest": 64}, "coarsest map of resnet18 has a stride of 32, not 64"),
    ],
)
def test_what_cannot_be_is_refused(args, said):
    with pytest.raises(ValueError, match=said):
        MaskedSegmenter(encoder(), **{**SMALL, **args})


def test_bad_batches_are_told():
    task = MaskedSegmenter(encoder(), **SMALL)
    image = torch.rand(2, 1, *SIZE)
    with pytest.raises(ValueError, match=r"data\.boxes"):
        task({"image": image})
    with pytest.raises(ValueError, match="a plane a class"):
        task({"image": image, "lesion": torch.zeros(2, 2, *SIZE, dtype=torch.bool)})
