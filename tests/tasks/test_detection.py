import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import nn
from torchvision.ops import box_iou

from mim.masking import Mask, PatchMasker, ThresholdMasker
from mim.models import create_encoder
from mim.models.assignment import adaptive_assignment
from mim.models.detection_head import DetectionHead
from mim.models.pyramid import MapPyramid
from mim.tasks import MaskedDetector

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families import each_family

HEADS = ["fcos", "retinanet", "fasterrcnn"]
SMALL = {"channels": 32, "convolutions": 1}


class Fixed(nn.Module):
    """Shows the left half."""

    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, batch):
        visible = torch.zeros(len(batch["image"]), *self.grid, dtype=torch.bool)
        visible[:, :, : self.grid[1] // 2] = True
        return Mask(visible)


def encoder(name="vit_tiny_patch16_224", size=(64, 96), hidden=None):
    torch.manual_seed(0)
    args = {"depth": 1, "embed_dim": 48, "num_heads": 3} if "vit" in name else {}
    return create_encoder(name, size, hidden=hidden, **args)


def films(size=(64, 96), count=2, seed=0):
    """Films with bright rectangles of two classes, dark-edged and plain, and their boxes."""
    generator = torch.Generator().manual_seed(seed)
    image = 0.2 + 0.05 * torch.rand(count, 1, *size, generator=generator)
    boxes = torch.tensor([[[6.0, 10, 30, 34], [50, 20, 82, 52]], [[40, 8, 66, 40], [8, 34, 28, 56]]])[:count]
    label = torch.tensor([[0, 1], [0, 1]])[:count]
    for own, boxes_here, labels in zip(image, boxes, label, strict=True):
        for (left, top, right, bottom), kind in zip(boxes_here.int().tolist(), labels.tolist(), strict=True):
            own[0, top:bottom, left:right] = 0.9 if kind else 0.6
    return {"image": image, "boxes": boxes, "box_label": label}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("name", "size", "args"), each_family())
def test_every_family_trains_and_finds(name, size, args, head):
    if ("hiera" in name and head != "fcos") or ("patch14" in name and head == "fasterrcnn"):
        pytest.skip("one head is enough here, and the next test is about the other")
    torch.manual_seed(0)
    task = MaskedDetector(create_encoder(name, size, **args), num_classes=2, head=head, score_threshold=0.0, **SMALL)
    batch = {
        "image": torch.rand(2, 1, *size),
        "boxes": torch.tensor([[[4.0, 4, 20, 24], [8, 2, 25, 20]], [[-1.0, -1, -1, -1]] * 2]),  # the second has none
        "box_label": torch.tensor([[0, 1], [-1, -1]]),
    }
    out = task(batch)
    assert out["loss"].isfinite()
    parts = [value for key, value in out.items() if key.startswith("loss_")]
    torch.testing.assert_close(out["loss"], sum(parts))
    out["loss"].backward()
    weights = dict(task.named_parameters())
    assert weights["encoder.backbone." + next(iter(dict(task.encoder.backbone.named_parameters())))].grad is not None
    found = task.eval()({"image": batch["image"]})
    count = found["boxes"].shape[1]
    assert found["boxes"].shape == (2, count, 4)
    assert found["box_label"].shape == found["box_score"].shape == (2, count)
    real = found["box_label"] >= 0
    corners = found["boxes"][real]
    assert real.any()
    assert (corners[:, 2:] > corners[:, :2]).all(), "a box outside the image has no area left"
    assert ((corners >= 0) & (corners <= torch.tensor([size[1], size[0]] * 2))).all()
    assert (found["box_label"][real] < 2).all()
    assert (found["box_score"].diff(dim=1) <= 0).all()


def test_the_trained_backbone_loads_into_timm():
    task = MaskedDetector(create_encoder("resnet18", (64, 96)), **SMALL)
    fresh = timm.create_model("resnet18", in_chans=1, num_classes=0)
    fresh.load_state_dict(task.encoder.backbone.state_dict(), strict=True)
    weight = next(iter(task.encoder.backbone.parameters()))
    assert torch.equal(next(iter(fresh.parameters())), weight)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("vit_tiny_patch16_224", "drop"),
        ("resnet18", "sparse"),
        ("resnet18", "layer"),
        ("vit_tiny_patch16_224", "token"),
    ],
)
def test_what_is_hidden_cannot_move_a_box(name, hidden, head):
    own = encoder(name, hidden=hidden)
    task = MaskedDetector(own, Fixed(own.grid()), num_classes=2, head=head, score_threshold=0.0, **SMALL).eval()
    batch = films()
    before = task({"image": batch["image"]})
    assert (before["box_label"] >= 0).any()
    for filling in (torch.rand(2, 1, 64, 96), torch.full((2, 1, 64, 96), torch.nan)):
        image = batch["image"].clone()
        image[..., own.grid()[1] // 2 * own.patch_size :] = filling[..., own.grid()[1] // 2 * own.patch_size :]
        after = task({"image": image})
        for key in ("boxes", "box_label", "box_score"):
            assert torch.equal(before[key], after[key])
    seen_part = batch["image"].clone()
    seen_part[..., :32] = torch.rand(2, 1, 64, 32)
    assert not torch.equal(task({"image": seen_part})["box_score"], before["box_score"])


@pytest.mark.parametrize(("head", "assignment"), [("fcos", "fixed"), ("fcos", "atss"), ("retinanet", "atss")])
def test_two_films_are_learnt_by_heart_in_the_coordinates_given(head, assignment):
    own = encoder("resnet18")
    task = MaskedDetector(own, num_classes=2, head=head, assignment=assignment, mean=0.3, std=0.2, **SMALL)
    batch = films()
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
    for part in task.modules():  # sixty steps on two films leave the running statistics far from them
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    with torch.no_grad():
        task(batch)
    found = task.eval()({"image": batch["image"]})
    for image in range(2):
        for box, label in zip(batch["boxes"][image], batch["box_label"][image], strict=True):
            same = found["box_label"][image] == label
            overlap = box_iou(box[None], found["boxes"][image][same])[0]
            best = overlap.argmax()
            assert overlap[best] > 0.5
            assert found["box_score"][image][same][best] == found["box_score"][image][same].max()


def test_padding_and_boxes_without_area_change_no_loss():
    task = MaskedDetector(encoder("resnet18"), num_classes=2, **SMALL)
    batch = films()
    expected = task(batch)["loss"]
    more = torch.tensor([[-1.0, -1, -1, -1], [5, 5, 5, 9]]).expand(2, 2, 4)
    label = torch.tensor([[-1, 0], [-1, 1]])
    longer = {
        "image": batch["image"],
        "boxes": torch.cat([batch["boxes"], more], dim=1),
        "box_label": torch.cat([batch["box_label"], label], dim=1),
    }
    torch.testing.assert_close(task(longer)["loss"], expected)


def test_films_of_which_none_has_a_box_train():
    for head in HEADS:
        task = MaskedDetector(encoder("resnet18"), num_classes=2, head=head, **SMALL)
        none = {"boxes": torch.empty(2, 0, 4), "box_label": torch.empty(2, 0, dtype=torch.int64)}
        loss = task({"image": torch.rand(2, 1, 64, 96), **none})["loss"]
        loss.backward()
        assert loss.isfinite()
        assert loss > 0


def test_a_masker_that_learns_hears_of_the_boxes_and_keeps_to_its_budget():
    own = encoder("vit_tiny_patch16_224")
    task = MaskedDetector(own, PatchMasker(16, keep=0.5, gate="binary"), num_classes=2, **SMALL)
    out = task(films())
    assert out["loss_budget"] >= 0
    out["loss"].backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in task.masker.parameters())


@pytest.mark.parametrize(
    "masker",
    [PatchMasker(16, keep=0.4), ThresholdMasker("quantile:0.6"), ThresholdMasker("quantile:0.4", keep="below")],
)
def test_a_masker_that_hides_more_than_half_is_refused(masker):
    with pytest.raises(ValueError, match=r"40% of the cells.*at least half"):
        MaskedDetector(encoder(), masker, **SMALL)


def test_soft_gates_may_weigh_as_they_like_and_half_may_be_hidden():
    soft = MaskedDetector(encoder(), PatchMasker(16, keep=0.2, gate="soft"), **SMALL).eval()
    half = MaskedDetector(encoder(), ThresholdMasker("quantile:0.5"), **SMALL).eval()
    batch = {"image": torch.rand(2, 1, *soft.encoder.image_size)}
    assert soft(batch)["visible"].all()
    assert half(batch)["visible"].float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"kind": "yolo"}, "fcos, retinanet or fasterrcnn, not 'yolo'"),
        ({"kind": "fasterrcnn", "assignment": "atss"}, "atss goes with fcos and retinanet"),
        ({"channels": 48}, "multiple of 32, not 48"),
        ({"convolutions": 5}, "1 to 4 convolutions, not 5"),
        ({"assignment": "best"}, "fixed or atss, not 'best'"),
    ],
)
def test_a_head_that_cannot_be_is_refused(args, said):
    with pytest.raises(ValueError, match=said):
        DetectionHead(encoder(), 2, **args)


def test_strides_that_are_no_powers_of_two_are_refused_by_the_detector_that_pools():
    own = create_encoder("vit_small_patch14_reg4_dinov2", (56, 56), depth=1)
    with pytest.raises(ValueError, match=r"powers of two.*14.*take fcos"):
        DetectionHead(own, 2, "fasterrcnn")


def test_training_without_boxes_says_which_setting():
    with pytest.raises(ValueError, match=r"data\.boxes"):
        MaskedDetector(encoder("resnet18"), **SMALL)({"image": torch.rand(2, 1, 64, 96)})


@pytest.mark.parametrize(("finest", "expected"), [(4, [4, 8, 16, 32]), (8, [8, 16, 32]), (16, [16, 32])])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_the_pyramid_has_the_strides_asked_for_and_leaves_the_encoder_as_it_was(name, finest, expected):
    own = encoder(name).train()
    before = {key: value.clone() for key, value in own.state_dict().items()}
    pyramid = MapPyramid(own, 32, finest)
    assert own.training
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    levels = pyramid(own(torch.rand(1, 1, 64, 96)).maps)
    assert [stride[0] for stride in pyramid.strides] == expected
    assert [64 / level.shape[2] for level in levels] == expected
    assert {level.shape[1] for level in levels} == {32}


def test_a_tiny_box_gets_anchors_by_atss_and_crowded_ones_the_best():
    across = torch.arange(4, 64, 8.0)
    centres = torch.cartesian_prod(across, across).flip(1)
    anchors = torch.cat([centres - 32, centres + 32], dim=1)
    tiny = torch.tensor([[29.0, 29, 40, 40]])
    assert (box_iou(tiny, anchors) < 0.05).all(), "no fixed overlap would do"
    matched = adaptive_assignment(anchors, [len(anchors)], tiny)
    own = centres[matched == 0]
    assert len(own) >= 1
    assert ((own > 29) & (own < 40)).all()
    both = torch.tensor([[0.0, 0, 64, 64], [29, 29, 40, 40]])
    matched = adaptive_assignment(anchors, [len(anchors)], both)
    chosen = box_iou(both, anchors)
    for place in torch.nonzero(matched >= 0)[:, 0].tolist():
        rivals = [box for box in (0, 1) if _claims(anchors, both[box], place)]
        assert matched[place] == max(rivals, key=lambda box: chosen[box, place].item())
    assert (adaptive_assignment(anchors, [len(anchors)], torch.empty(0, 4)) == -1).all()


def _claims(anchors, box, place):
    return adaptive_assignment(anchors, [len(anchors)], box[None])[place] == 0
