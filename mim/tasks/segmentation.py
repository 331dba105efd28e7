"""Pixels of each film, from what a masker lets the encoder see."""

import logging
from typing import Final, Literal, get_args

import torch
from monai.losses import DiceCELoss, DiceFocalLoss
from torch import Tensor, nn

from mim.masking.gates import budget_loss
from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.models.encoder import Encoder
from mim.models.segmentation_head import Kind, SegmentationHead
from mim.tasks.detection import LEAST_SEEN, kept_share
from mim.tasks.look import look, seen

Loss = Literal["dice_ce", "dice_focal"]
LOSSES: Final = {"dice_ce": DiceCELoss, "dice_focal": DiceFocalLoss}

logger = logging.getLogger("mim")


class MaskedSegmenter(nn.Module):
    """segmenter(encoder(image, visible)), where a masker decides what is visible.

    The maps stay dense: a hidden cell is zero there, and what is said of its pixels comes from its neighbours alone. So
    a masker that hides more than half is refused where its settings say so, and told of where only the films do; a soft
    gate may weigh cells as it likes.

    The loss is MONAI's: Dice (Milletari et al. 2016) over all pixels of a batch together, plus cross entropy or focal
    loss (Lin et al. 2017). Dice of the batch, because of a film without a lesion alone it has nothing to say.

    Args:
        encoder: any encoder.
        masker: `masker(batch) -> Mask`, or None: everything is seen. One that learns, learns together with the rest,
            its share of cells held by a budget.
        num_classes: classes of pixels, independent of each other: a pixel may be of several, or of none.
        head: `unet` or `upernet`.
        channels: of each scale of the decoder, a multiple of 16.
        finest: stride of the decoder's finest scale in pixels.
        loss: `dice_ce` or `dice_focal`.
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
        head: Kind = "unet",
        channels: int = 64,
        finest: int = 4,
        loss: Loss = "dice_ce",
        mean: float = 0.0,
        std: float = 1.0,
        budget: float = 1.0,
    ) -> None:
        super().__init__()
        share = kept_share(masker)
        if share is not None and share < LEAST_SEEN:
            raise ValueError(
                f"the masker shows {share:.0%} of the cells, and nothing is known of those that are hidden: for pixels "
                "let it show at least half, or give a soft gate"
            )
        if loss not in get_args(Loss):
            raise ValueError(f"loss must be dice_ce or dice_focal, not {loss!r}")
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.masker = masker
        self.head = SegmentationHead(encoder, num_classes, head, channels, finest)
        self.loss = LOSSES[loss](sigmoid=True, batch=True)
        self.num_classes = num_classes
        self.mean = mean
        self.std = std
        self.budget = budget
        self.fit_to_grid = GridFit()
        self._warned = False

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Says of each pixel what it is.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; in training also `lesion` (B, num_classes, H, W) bool,
                the pixels of each class. A film without any is one without a lesion.

        Returns:
            `logits` (B, num_classes, H, W), whose sigmoid is the probability of each class; `visible` (B, gh, gw) bool,
            a masker's `scores`, and `keep`, the share of cells that was visible. With `lesion` also `loss`, and where a
            masker learns its parts `loss_pixels` and `loss_budget`.

        Raises:
            ValueError: in training a batch without pixels, or pixels of another number of classes or another size.
        """
        image = (batch["image"] - self.mean) / self.std
        mask = None if self.masker is None else self._fit(self.masker(batch))
        features, _ = look(self.encoder, image, mask)
        logits = self.head(features.maps, (image.shape[-2], image.shape[-1]))
        if mask is None:
            mask = Mask(torch.ones(len(image), *self.encoder.grid(), dtype=torch.bool, device=image.device))
        out = {"logits": logits, "visible": mask.visible, "keep": seen(mask).float().mean()}
        if mask.scores is not None:
            out["scores"] = mask.scores
        if "lesion" in batch:
            out |= self._losses(logits, batch["lesion"], mask)
        elif self.training:
            raise ValueError("a segmenter trains on pixels, and the batch has no lesion; set data.boxes")
        if not self.training:
            self._warn(mask)
        return out

    def _losses(self, logits: Tensor, lesion: Tensor, mask: Mask) -> dict[str, Tensor]:
        if lesion.shape != logits.shape:
            raise ValueError(f"lesion must be {tuple(logits.shape)}, a plane a class, not {tuple(lesion.shape)}")
        with torch.autocast(logits.device.type, enabled=False):
            # a class at a time: of several channels MONAI's cross entropy would take the classes to exclude each other
            planes = zip(logits.unbind(1), lesion.float().unbind(1), strict=True)
            pixels = torch.stack([self.loss(given[:, None], wanted[:, None]) for given, wanted in planes]).mean()
        if not (self.training and isinstance(self.masker, PatchMasker) and mask.scores is not None):
            return {"loss": pixels}
        budget = budget_loss(mask.scores, self.masker.keep)
        return {"loss": pixels + self.budget * budget, "loss_pixels": pixels, "loss_budget": budget}

    def _fit(self, mask: Mask) -> Mask:
        """Brings a decision about cells to the encoder's grid; one about pixels is a filter, and stays as it is."""
        if isinstance(self.masker, PatchMasker) and self.masker.per == "pixel":
            return mask
        return self.fit_to_grid(mask, self.encoder.grid())

    def _warn(self, mask: Mask) -> None:
        share = float(mask.visible.float().mean())
        if share < LEAST_SEEN and not self._warned:
            self._warned = True
            logger.warning(
                "the masker shows %.0f %% of these films: nothing is known of the rest; choose another threshold",
                100 * share,
            )
