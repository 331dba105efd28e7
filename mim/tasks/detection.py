"""Boxes on each film, from what a masker lets the encoder see."""

import logging
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mim.masking.gates import budget_loss
from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.masking.threshold import ThresholdMasker
from mim.models.detection_head import Assignment, DetectionHead, Kind, Target
from mim.models.encoder import Encoder
from mim.tasks.look import look, seen

LEAST_SEEN: Final = 0.5
PADDING: Final = -1

logger = logging.getLogger("mim")


class MaskedDetector(nn.Module):
    """detector(encoder(image, visible)), where a masker decides what is visible.

    The maps stay dense: a hidden cell is zero there. Of what is hidden nothing can be found, so a masker that hides
    more than half is refused where its settings say so, and told of where only the films do; a soft gate may weigh
    cells as it likes.

    Args:
        encoder: any encoder.
        masker: `masker(batch) -> Mask`, or None: everything is seen. One that learns, learns together with the rest,
            its share of cells held by a budget.
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
        budget: weight of a learning masker's budget loss.

    Raises:
        ValueError: the masker hides more than half, or the head does not fit the encoder.
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
        budget: float = 1.0,
    ) -> None:
        super().__init__()
        share = kept_share(masker)
        if share is not None and share < LEAST_SEEN:
            raise ValueError(
                f"the masker shows {share:.0%} of the cells, and nothing is found in those that are hidden: for boxes "
                "let it show at least half, or give a soft gate"
            )
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.masker = masker
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
        self.mean = mean
        self.std = std
        self.budget = budget
        self.fit_to_grid = GridFit()
        self._warned = False

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Trains on a batch, or finds boxes in it.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; in training also `boxes` (B, M, 4) xyxy in pixels of the
                image and `box_label` (B, M), -1 = padding.

        Returns:
            In training `loss` and its parts `loss_<name>`; else `boxes` (B, K, 4) in pixels of the image, `box_label`
            (B, K) with -1 = padding and `box_score` (B, K), highest first. Always `visible` (B, gh, gw) bool, a
            masker's `scores`, and `keep`, the share of cells that was visible.

        Raises:
            ValueError: in training a batch without boxes, or one with a label that is no class.
        """
        image = (batch["image"] - self.mean) / self.std
        mask = None if self.masker is None else self._fit(self.masker(batch))
        features, _ = look(self.encoder, image, mask)
        losses, found = self.head(features.maps, image, self._targets(batch) if self.training else None)
        if mask is None:
            mask = Mask(torch.ones(len(image), *self.encoder.grid(), dtype=torch.bool, device=image.device))
        out = {"visible": mask.visible, "keep": seen(mask).float().mean()}
        if mask.scores is not None:
            out["scores"] = mask.scores
        if not self.training:
            self._warn(mask)
            return out | padded(found)
        total = torch.stack(list(losses.values())).sum()
        if isinstance(self.masker, PatchMasker) and mask.scores is not None:
            losses = {**losses, "budget": budget_loss(mask.scores, self.masker.keep)}
            total = total + self.budget * losses["budget"]
        return out | {"loss": total, **{f"loss_{name}": value for name, value in losses.items()}}

    def _fit(self, mask: Mask) -> Mask:
        """Brings a decision about cells to the encoder's grid; one about pixels is a filter, and stays as it is."""
        if isinstance(self.masker, PatchMasker) and self.masker.per == "pixel":
            return mask
        return self.fit_to_grid(mask, self.encoder.grid())

    def _targets(self, batch: dict[str, Tensor]) -> list[Target] | None:
        """Boxes of each image without padding, and without those of which no area is left."""
        if "boxes" not in batch:
            return None
        targets: list[Target] = []
        for boxes, labels in zip(batch["boxes"].float(), batch["box_label"], strict=True):
            real = (labels >= 0) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            targets.append({"boxes": boxes[real], "labels": labels[real]})
        return targets

    def _warn(self, mask: Mask) -> None:
        share = float(mask.visible.float().mean())
        if share < LEAST_SEEN and not self._warned:
            self._warned = True
            logger.warning(
                "the masker shows %.0f %% of these films: nothing can be found in the rest; choose another threshold",
                100 * share,
            )


def kept_share(masker: nn.Module | None) -> float | None:
    """The share of cells that a masker's settings say is visible; None where they do not, or where none is hidden."""
    if isinstance(masker, PatchMasker):
        return None if masker.gate == "soft" or masker.decide == "odds" else masker.keep
    if isinstance(masker, ThresholdMasker) and isinstance(masker.threshold, str) and ":" in masker.threshold:
        share = float(masker.threshold.partition(":")[2])
        return 1 - share if masker.keep == "above" else share
    return None


def padded(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Detections of each image as tensors of one shape: `boxes`, `box_label` and `box_score`, filled up with -1."""
    names = {"boxes": "boxes", "box_label": "labels", "box_score": "scores"}
    return {
        ours: pad_sequence([own[theirs] for own in found], batch_first=True, padding_value=PADDING)
        for ours, theirs in names.items()
    }
