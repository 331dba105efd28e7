"""Boxes behind an encoder: torchvision's detectors over its maps."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign

from mim.models.assignment import adaptive_assignment
from mim.models.encoder import Encoder
from mim.models.pyramid import Gated, MapPyramid

Kind = Literal["fcos", "retinanet", "fasterrcnn"]
Assignment = Literal["fixed", "atss"]
Target = Mapping[str, Tensor]
ATSS_SIDE: Final = 8.0  # of an anchor of FCOS, in strides: the one square that the paper gives each place
RETINANET_SCALES: Final = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS: Final = (0.5, 1.0, 2.0)
BOX_WIDTH: Final = 256  # of Faster R-CNN's layers on each region; its 1024 is for a thousand times as many films


class DetectionHead(nn.Module):
    """A pyramid over an encoder's maps, and torchvision's FCOS, RetinaNet or Faster R-CNN on it.

    torchvision's resizing and normalising stand outside: boxes are in pixels of the image given, on the way in and out.

    Args:
        encoder: whose maps are met.
        num_classes: classes of boxes.
        kind: `fcos` (Tian et al. 2019), `retinanet` (Lin et al. 2017) or `fasterrcnn` (Ren et al. 2015).
        channels: of the pyramid and the head, a multiple of 32.
        convolutions: of each branch of the head, 1 to 4.
        finest: stride of the finest map in pixels; smaller for smaller lesions, at four times the work.
        assignment: which places must find a box: `fixed`, the detector's own rule; `atss`, adaptive, for tiny lesions
            (FCOS and RetinaNet).
        score_threshold: boxes below this score are left out.
        nms_overlap: of two boxes of a class with a larger IoU the one with the lower score is left out.
        most: boxes an image, at most.

    Raises:
        ValueError: a word that is not known, or that does not go with the detector or the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        kind: Kind = "fcos",
        channels: int = 128,
        convolutions: int = 2,
        finest: int = 8,
        assignment: Assignment = "fixed",
        score_threshold: float = 0.05,
        nms_overlap: float = 0.5,
        most: int = 100,
    ) -> None:
        super().__init__()
        _check(kind, channels, convolutions, assignment)
        self.kind = kind
        self.assignment = assignment
        self.pyramid = MapPyramid(encoder, channels, finest)
        sides = [max(stride) for stride in self.pyramid.strides]
        if kind == "fasterrcnn" and any(side & (side - 1) for side in map(round, sides)):
            raise ValueError(
                f"fasterrcnn pools from maps whose strides are powers of two, and those of {encoder.spec.name} are "
                f"{', '.join(f'{side:g}' for side in sides)}; take fcos or retinanet"
            )
        limits: dict[str, Any] = {
            "nms_thresh": nms_overlap,
            "score_thresh": score_threshold,
            "detections_per_img": most,
        }
        build = {"fcos": _fcos, "retinanet": _retinanet, "fasterrcnn": _faster_rcnn}[kind]
        self.detector = build(_Channels(channels), num_classes, sides, convolutions, limits)

    def forward(
        self,
        maps: Sequence[Tensor],
        image: Tensor,
        targets: Sequence[Target] | None = None,
        gated: Gated | None = None,
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Trains on boxes, or finds them.

        Args:
            maps: `Features.maps`.
            image: (B, C, H, W); its size alone is read.
            targets: for each image `boxes` (N, 4) xyxy in pixels and `labels` (N,) int64, from 0; read in training.
            gated: where cells were given gates, what they hold before these, and the gates.

        Returns:
            In training the parts of the loss by name, and no boxes; else no loss, and for each image `boxes` (K, 4),
            `scores` (K,) and `labels` (K,), highest score first.

        Raises:
            ValueError: in training and without targets.
        """
        if self.training and targets is None:
            raise ValueError("a detector trains on boxes, and the batch has none; set data.boxes")
        levels = [level.float() for level in self.pyramid(maps, gated)]
        images = ImageList(image, [(image.shape[-2], image.shape[-1])] * len(image))
        run = self._two_stages if self.kind == "fasterrcnn" else self._one_stage
        losses, found = run(images, levels, targets)
        return losses, [_with_area(own) for own in found]

    def _one_stage(
        self, images: Any, levels: list[Tensor], targets: Sequence[Target] | None
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        detector = self.detector
        out = {name: value.float() for name, value in detector.head(levels).items()}
        anchors = detector.anchor_generator(images, levels)
        per_place = detector.anchor_generator.num_anchors_per_location()[0]
        counts = [level.shape[-2] * level.shape[-1] * per_place for level in levels]
        with torch.autocast(images.tensors.device.type, enabled=False):
            if self.training:
                assert targets is not None
                return _renamed(self._losses(targets, out, anchors, counts, per_place)), []
            split = {name: list(value.split(counts, dim=1)) for name, value in out.items()}
            split_anchors = [list(own.split(counts)) for own in anchors]
            return {}, detector.postprocess_detections(split, split_anchors, images.image_sizes)

    def _losses(
        self,
        targets: Sequence[Target],
        out: dict[str, Tensor],
        anchors: list[Tensor],
        counts: list[int],
        per_place: int,
    ) -> dict[str, Tensor]:
        if self.assignment == "atss":
            grown = [_grown(own, ATSS_SIDE) if self.kind == "fcos" else own for own in anchors]
            matched = [
                adaptive_assignment(own, counts, target["boxes"], per_place)
                for own, target in zip(grown, targets, strict=True)
            ]
            return self.detector.head.compute_loss(targets, out, anchors, matched)  # type: ignore[no-any-return]
        if self.kind == "fcos":
            return self.detector.compute_loss(targets, out, anchors, counts)  # type: ignore[no-any-return]
        return self.detector.compute_loss(targets, out, anchors)  # type: ignore[no-any-return]

    def _two_stages(
        self, images: Any, levels: list[Tensor], targets: Sequence[Target] | None
    ) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        named = {str(place): level for place, level in enumerate(levels)}
        if targets is not None:  # class 0 is the background there
            targets = [{"boxes": own["boxes"], "labels": own["labels"] + 1} for own in targets]
        with torch.autocast(images.tensors.device.type, enabled=False):
            proposals, region_losses = self.detector.rpn(images, named, targets)
            found, box_losses = self.detector.roi_heads(named, proposals, images.image_sizes, targets)
        found = [{**own, "labels": own["labels"] - 1} for own in found]
        return (_renamed({**region_losses, **box_losses}), []) if self.training else ({}, found)


class _Channels(nn.Module):
    """Stands where torchvision wants a backbone; the maps are given, not made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels


def _fcos(backbone: _Channels, classes: int, sides: list[float], convolutions: int, limits: dict[str, Any]) -> Any:
    places = AnchorGenerator(tuple((side,) for side in sides), ((1.0,),) * len(sides))
    detector = FCOS(backbone, classes, anchor_generator=places, **limits)
    for branch in (detector.head.classification_head, detector.head.regression_head):
        branch.conv = branch.conv[: 3 * convolutions]  # convolution, norm, ReLU
    return detector


def _retinanet(backbone: _Channels, classes: int, sides: list[float], convolutions: int, limits: dict[str, Any]) -> Any:
    sizes = tuple(tuple(4 * side * scale for scale in RETINANET_SCALES) for side in sides)
    anchors = AnchorGenerator(sizes, (RATIOS,) * len(sides))
    detector = RetinaNet(backbone, classes, anchor_generator=anchors, **limits)
    for branch in (detector.head.classification_head, detector.head.regression_head):
        branch.conv = branch.conv[:convolutions]
    return detector


def _faster_rcnn(
    backbone: _Channels, classes: int, sides: list[float], convolutions: int, limits: dict[str, Any]
) -> Any:
    anchors = AnchorGenerator(tuple((2 * side, 4 * side) for side in sides), (RATIOS,) * len(sides))
    channels = backbone.out_channels
    names = [str(place) for place in range(len(sides))]
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(channels, anchors.num_anchors_per_location()[0], conv_depth=convolutions),
        box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(channels * 7**2, BOX_WIDTH),
        box_predictor=FastRCNNPredictor(BOX_WIDTH, classes + 1),
        **{f"box_{name}": value for name, value in limits.items()},
    )


def _check(kind: str, channels: int, convolutions: int, assignment: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"a detector is fcos, retinanet or fasterrcnn, not {kind!r}")
    if assignment not in get_args(Assignment):
        raise ValueError(f"assignment must be fixed or atss, not {assignment!r}")
    if kind == "fasterrcnn" and assignment == "atss":
        raise ValueError("assignment=atss goes with fcos and retinanet; for fasterrcnn give fixed")
    if channels % 32 or channels < 32:
        raise ValueError(f"channels must be a multiple of 32, not {channels}")
    if not 1 <= convolutions <= 4:
        raise ValueError(f"a head has 1 to 4 convolutions, not {convolutions}")


def _grown(boxes: Tensor, factor: float) -> Tensor:
    """Boxes with the same centres and sides times a factor."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([centre - factor * half, centre + factor * half], dim=1)


def _with_area(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without boxes of which nothing lies within the image."""
    inside = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(dim=1)
    return {name: value[inside] for name, value in found.items()}


def _renamed(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's names, without what is said twice."""
    return {name.removeprefix("loss_").replace("bbox_", "box_"): value for name, value in losses.items()}
