"""Boxes on each film, from what a masker lets the encoder see."""

import logging
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mim.masking.learned import PatchMasker
from mim.models.detection_head import Assignment, DetectionHead, Kind, Target
from mim.models.encoder import Encoder
from mim.tasks.dense import LEAST_SEEN, DenseTask, stacked
from mim.tasks.look import look
from mim.tasks.mask_training import MaskTraining, Rebuilding
from mim.tasks.staged import draw_lesson, summed

PADDING: Final = -1

logger = logging.getLogger("mim")


class MaskedDetector(DenseTask):
    """detector(encoder(image, visible)), where a masker decides what is visible.

    The maps stay dense: a hidden cell is zero there. Of what is hidden nothing can be found, so a masker that hides
    more than half is refused where its settings say so, and told of where only the films do; a soft gate may weigh
    cells as it likes.

    Args:
        encoder: any encoder.
        masker: `masker(batch) -> Mask`, or None: everything is seen.
        num_classes: classes of boxes.
        head: `fcos`, `retinanet` or `fasterrcnn`.
        channels: of the pyramid and the head, a multiple of 32.
        convolutions: of each branch of the head, 1 to 4.
        finest: stride of the finest map in pixels.
        assignment: which places must find a box: `fixed`, the detector's own rule, or `atss`.
        score_threshold: boxes below this score are left out.
        nms_overlap: of two boxes of a class with a larger IoU the one with the lower score is left out.
        most: boxes an image, at most.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        mask_training: for a masker that learns; random masks show at least half. None = `MaskTraining` with that.
        rebuilding: gives the error of rebuilding what a mask hides; needed where `mask_training` has a weight for it.

    Raises:
        ValueError: the masker, or random masks, hide more than half; the masker is to follow the network, which says
            no probabilities; or the head does not fit the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        masker: nn.Module | None = None,
        num_classes: int = 1,
        head: Kind = "fcos",
        channels: int = 128,
        convolutions: int = 2,
        finest: int = 8,
        assignment: Assignment = "fixed",
        score_threshold: float = 0.05,
        nms_overlap: float = 0.5,
        most: int = 100,
        mean: float = 0.0,
        std: float = 1.0,
        mask_training: MaskTraining | None = None,
        rebuilding: Rebuilding | None = None,
    ) -> None:
        super().__init__(encoder, masker, "boxes", mean, std, mask_training, rebuilding)
        self.head = DetectionHead(
            encoder,
            num_classes,
            head,
            channels,
            convolutions,
            finest,
            assignment,
            score_threshold,
            nms_overlap,
            most,
        )

    def set_progress(self, fraction: float) -> None:
        """Hears how much of the training lies behind, in [0, 1]; while only the masker learns, the rest is frozen.

        Where this is never told, masker and network learn together, as in the last stage.
        """
        self.progress = fraction
        if self.training and isinstance(self.masker, PatchMasker):
            resting = self.mask_training.stage(fraction) == "masker"
            self._rest((self.encoder,), resting, answering=(self.head,))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Trains on a batch, or finds boxes in it.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; in training also `boxes` (B, M, 4) xyxy in pixels of the
                image and `box_label` (B, M), -1 = padding; `lesion` (B, 1, H, W) bool where a masker learns from it.

        Returns:
            In training `loss` and its parts `loss_<name>`; else `boxes` (B, K, 4) in pixels of the image, `box_label`
            (B, K) with -1 = padding and `box_score` (B, K), highest first. Always `visible` (B, gh, gw) bool, a
            masker's `scores`, and `keep`, the share of cells that was visible.

        Raises:
            ValueError: in training a batch without boxes, or one with a label that is no class.
        """
        if self.training and isinstance(self.masker, PatchMasker):
            return self._learn(batch, self.masker)
        image = (batch["image"] - self.mean) / self.std
        mask = self.decide(batch)
        maps, gated = stacked([look(self.encoder, image, mask)])
        losses, found = self.head(maps, image, self._targets(batch) if self.training else None, gated)
        out = self.describe(mask, image)
        if not self.training:
            return out | padded(found)
        total = torch.stack(list(losses.values())).sum()
        return out | {"loss": total, **{f"loss_{name}": value for name, value in losses.items()}}

    def _learn(self, batch: dict[str, Tensor], masker: PatchMasker) -> dict[str, Tensor]:
        """One of the stages A, B and C of `MaskTraining`."""
        image = (batch["image"] - self.mean) / self.std
        lesson = draw_lesson(batch, masker, self.encoder, self.mask_training, self.progress, self.rebuilding)
        if not lesson.met:
            return summed(lesson.parts) | lesson.figures
        targets = self._targets(batch)
        if targets is not None and lesson.random:
            by_chance = lesson.met[0][1].visible
            size = (image.shape[-2], image.shape[-1])
            targets = [
                *(in_sight(own, visible, size) for own, visible in zip(targets, by_chance, strict=False)),
                *targets[lesson.random :],
            ]
        maps, gated = stacked([look(self.encoder, image[own], mask) for own, mask in lesson.met])
        losses, _ = self.head(maps, image, targets, gated)
        parts = {name: (value, lesson.weight) for name, value in losses.items()}
        return summed({**parts, **lesson.parts}) | lesson.figures

    def _targets(self, batch: dict[str, Tensor]) -> list[Target] | None:
        """Boxes of each image without padding, and without those of which no area is left."""
        if "boxes" not in batch:
            return None
        targets: list[Target] = []
        for boxes, labels in zip(batch["boxes"].float(), batch["box_label"], strict=True):
            real = (labels >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            targets.append({"boxes": boxes[real], "labels": labels[real]})
        return targets


def in_sight(target: Target, visible: Tensor, size: tuple[int, int]) -> Target:
    """Boxes of one image of which a mask shows at least half.

    What chance hides is nobody's decision: a network that had to mark it all the same would learn to guess.

    Args:
        target: `boxes` (N, 4) xyxy in pixels and `labels` (N,).
        visible: (gh, gw) bool.
        size: height and width of the image in pixels.
    """
    boxes = target["boxes"]
    rows, columns = visible.shape
    down = _overlap(boxes[:, 1::2], rows, size[0] / rows)  # (N, gh)
    across = _overlap(boxes[:, ::2], columns, size[1] / columns)  # (N, gw)
    # not as a product of matrices, which autocast would round
    shown = (down[:, :, None] * across[:, None] * visible).sum(dim=(1, 2))
    kept = shown >= LEAST_SEEN * (down.sum(dim=1) * across.sum(dim=1))
    return {"boxes": boxes[kept], "labels": target["labels"][kept]}


def _overlap(spans: Tensor, cells: int, side: float) -> Tensor:
    """Length of (N, 2) spans, from and to in pixels, that lies in each of some cells of a side: (N, cells)."""
    begin = torch.arange(cells, device=spans.device, dtype=spans.dtype) * side
    return (torch.minimum(spans[:, 1:], begin + side) - torch.maximum(spans[:, :1], begin)).clamp(min=0)


def padded(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Detections of each image as tensors of one shape: `boxes`, `box_label` and `box_score`, filled up with -1."""
    names = {"boxes": "boxes", "box_label": "labels", "box_score": "scores"}
    return {
        ours: pad_sequence([own[theirs] for own in found], batch_first=True, padding_value=PADDING)
        for ours, theirs in names.items()
    }
