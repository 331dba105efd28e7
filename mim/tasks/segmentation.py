"""Pixels of each film, from what a masker lets the encoder see."""

import logging
from typing import Final, Literal, get_args

import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import Tensor, nn

from mim.masking.learned import PatchMasker
from mim.models.encoder import Encoder
from mim.models.features import at_resolution
from mim.models.segmentation_head import Kind, SegmentationHead
from mim.tasks.dense import DenseTask, stacked
from mim.tasks.look import look
from mim.tasks.mask_training import MaskTraining, Rebuilding
from mim.tasks.staged import draw_lesson, summed

Loss = Literal["dice_ce", "dice_focal"]
LOSSES: Final = {"dice_ce": DiceCELoss, "dice_focal": DiceFocalLoss}

logger = logging.getLogger("mim")


class MaskedSegmenter(DenseTask):
    """segmenter(encoder(image, visible)), where a masker decides what is visible.

    The maps stay dense: a hidden cell is zero there, and what is said of its pixels comes from its neighbours alone. So
    a masker that hides more than half is refused where its settings say so, and told of where only the films do; a soft
    gate may weigh cells as it likes.

    The loss is MONAI's: Dice (Milletari et al. 2016) over all pixels of a batch together, plus cross entropy or focal
    loss (Lin et al. 2017). Dice of the batch, because of a film without a lesion alone it has nothing to say.

    Args:
        encoder: any encoder.
        masker: `masker(batch) -> Mask`, or None: everything is seen.
        num_classes: classes of pixels, independent of each other: a pixel may be of several, or of none.
        head: `unet` or `upernet`.
        channels: of each scale of the decoder, a multiple of 16.
        finest: stride of the decoder's finest scale in pixels.
        loss: `dice_ce` or `dice_focal`.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        mask_training: for a masker that learns; random masks show at least half. None = `MaskTraining` with that.
        rebuilding: gives the error of rebuilding what a mask hides; needed where `mask_training` has a weight for it.

    Raises:
        ValueError: the masker, or random masks, hide more than half; the masker is to follow the network, which Dice
            cannot; or the head does not fit the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        masker: nn.Module | None = None,
        num_classes: int = 1,
        head: Kind = "unet",
        channels: int = 64,
        finest: int = 4,
        loss: Loss = "dice_ce",
        mean: float = 0.0,
        std: float = 1.0,
        mask_training: MaskTraining | None = None,
        rebuilding: Rebuilding | None = None,
    ) -> None:
        super().__init__(encoder, masker, "pixels", mean, std, mask_training, rebuilding)
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be dice_ce or dice_focal, not {loss!r}")
        self.head = SegmentationHead(encoder, num_classes, head, channels, finest)
        self.loss = LOSSES[loss](sigmoid=True, batch=True)
        self.num_classes = num_classes

    def set_progress(self, fraction: float) -> None:
        """Hears how much of the training lies behind, in [0, 1]; while only the masker learns, the rest is frozen.

        Where this is never told, masker and network learn together, as in the last stage.
        """
        self.progress = fraction
        if self.training and isinstance(self.masker, PatchMasker):
            self._rest((self.encoder, self.head), self.mask_training.stage(fraction) == "masker")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Says of each pixel what it is.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; in training also `lesion` (B, num_classes, H, W) bool,
                the pixels of each class. A film without any is one without a lesion.

        Returns:
            `logits` (B, num_classes, H, W), whose sigmoid is the probability of each class; `visible` (B, gh, gw) bool,
            a masker's `scores`, and `keep`, the share of cells that was visible. With `lesion` also `loss`, and where a
            masker learns its parts `loss_<name>`; while it learns by itself and not from the pixels, there are no
            logits.

        Raises:
            ValueError: in training a batch without pixels, or pixels of another number of classes or another size.
        """
        lesion = self._wanted(batch)
        if self.training and lesion is not None and isinstance(self.masker, PatchMasker):
            return self._learn(batch, lesion, self.masker)
        image = (batch["image"] - self.mean) / self.std
        mask = self.decide(batch)
        maps, gated = stacked([look(self.encoder, image, mask)])
        logits = self.head(maps, (image.shape[-2], image.shape[-1]), gated)
        out = {"logits": logits, **self.describe(mask, image)}
        if lesion is not None:
            out["loss"] = self._compare(logits, lesion)
        return out

    def _learn(self, batch: dict[str, Tensor], lesion: Tensor, masker: PatchMasker) -> dict[str, Tensor]:
        """One of the stages A, B and C of `MaskTraining`."""
        image = (batch["image"] - self.mean) / self.std
        of_any = {**batch, "lesion": lesion.any(dim=1, keepdim=True)}
        lesson = draw_lesson(of_any, masker, self.encoder, self.mask_training, self.progress, self.rebuilding)
        if not lesson.met:
            return summed(lesson.parts) | lesson.figures
        if lesson.random:
            by_chance = lesson.met[0][1].visible
            lesion = torch.cat([in_sight(lesion[: lesson.random], by_chance), lesion[lesson.random :]])
        maps, gated = stacked([look(self.encoder, image[own], mask) for own, mask in lesson.met])
        logits = self.head(maps, (image.shape[-2], image.shape[-1]), gated)
        pixels = self._compare(logits, lesion)
        return summed({"pixels": (pixels, lesson.weight), **lesson.parts}) | lesson.figures | {"logits": logits}

    def _wanted(self, batch: dict[str, Tensor]) -> Tensor | None:
        """The pixels of each class; None where a loss is neither given nor needed."""
        if "lesion" not in batch:
            if self.training:
                raise ValueError("a segmenter trains on pixels, and the batch has no lesion; set data.boxes")
            return None
        image, lesion = batch["image"], batch["lesion"]
        shape = (len(image), self.num_classes, *image.shape[-2:])
        if lesion.shape != shape:
            raise ValueError(f"lesion must be {shape}, a plane a class, not {tuple(lesion.shape)}")
        return lesion

    def _compare(self, logits: Tensor, lesion: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            # a class at a time: of several channels MONAI's cross entropy would take the classes to exclude each other
            planes = zip(logits.unbind(1), lesion.float().unbind(1), strict=True)
            return torch.stack([self.loss(given[:, None], wanted[:, None]) for given, wanted in planes]).mean()


def in_sight(lesion: Tensor, visible: Tensor) -> Tensor:
    """The pixels of lesions (B, K, H, W) that lie in the cells (B, gh, gw) which random masks show.

    What chance hides is nobody's decision: a network that had to draw it all the same would learn to guess.
    """
    return lesion & (at_resolution(visible.float(), (lesion.shape[-2], lesion.shape[-1])) > 0)
