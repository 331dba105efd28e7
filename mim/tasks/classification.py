"""A class for each film, from what a masker lets the encoder see."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.gates import budget_loss
from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.patterns import random_visible_batch
from mim.models.encoder import Encoder
from mim.models.heads import ClassificationHead


@dataclass(frozen=True)
class MaskTraining:
    """How a learned masker and the network behind it are trained together.

    A mask learnt together with its head can carry the label in its shape. Part of every batch therefore meets random
    masks, so that head and encoder can never rely on the shape; and they alone are trained during the warm-up.

    Attributes:
        budget_weight: weight of the squared distance between the expected and the wanted share of visible cells.
        random_share: share of a batch that meets random masks.
        random_keep: range of the share of cells that those keep.
        warmup: share of the training in which only random masks are met.
    """

    budget_weight: float = 1.0
    random_share: float = 0.5
    random_keep: tuple[float, float] = (0.1, 1.0)
    warmup: float = 0.3


class MaskedClassifier(nn.Module):
    """head(encoder(image, visible)), where a masker decides what is visible.

    Args:
        encoder: any encoder.
        num_classes: number of classes.
        masker: `masker(batch) -> Mask`, or None: everything is seen.
        class_weights: (num_classes,) weights of the cross entropy, or None.
        smoothing: label smoothing.
        mask_training: for a masker that learns.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int = 2,
        masker: nn.Module | None = None,
        class_weights: Tensor | None = None,
        smoothing: float = 0.0,
        mask_training: MaskTraining | None = None,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.head = ClassificationHead(encoder, num_classes)
        self.masker = masker
        self.register_buffer("class_weights", class_weights)
        self.smoothing = smoothing
        self.mask_training = mask_training or MaskTraining()
        self.mean = mean
        self.std = std
        self.progress = 1.0
        self.fit_to_grid = GridFit()

    def set_progress(self, fraction: float) -> None:
        """Tells how much of the training lies behind, in [0, 1]; the warm-up of the masker ends by it."""
        self.progress = fraction

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Classifies a batch.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; `label` (B,) integers where a loss is wanted.

        Returns:
            `logits` (B, num_classes) and `visible` (B, gh, gw) bool; with labels also `loss`, its parts
            `loss_class` and `loss_budget`, and `keep`, the share of cells that was visible.
        """
        if self.training and isinstance(self.masker, PatchMasker):
            return self._learn_mask(batch, self.masker)
        image = batch["image"]
        visible = None
        if self.masker is not None:
            visible = self.fit_to_grid(self.masker(batch), self.encoder.grid()).visible
        logits = self.classify(image, visible)
        if visible is None:
            visible = torch.ones(len(image), *self.encoder.grid(), dtype=torch.bool, device=image.device)
        out = {"logits": logits, "visible": visible}
        if "label" in batch:
            out["loss"] = out["loss_class"] = self._cross_entropy(logits, batch["label"])
            out["keep"] = visible.float().mean()
        return out

    def classify(self, image: Tensor, visible: Tensor | None) -> Tensor:
        """Classifies what is seen through a given mask; the masker is not asked.

        Args:
            image: (B, C, H, W) with pixels in [0, 1].
            visible: (B, gh, gw) bool or gate; None = everything is seen.

        Returns:
            (B, num_classes) logits.
        """
        logits: Tensor = self.head(self.encoder((image - self.mean) / self.std, visible), visible)
        return logits

    def _learn_mask(self, batch: dict[str, Tensor], masker: PatchMasker) -> dict[str, Tensor]:
        """First part of the batch: random masks. Rest: the masker's gates, whose gradient reaches the masker."""
        image = (batch["image"] - self.mean) / self.std
        settings = self.mask_training
        warming_up = self.progress < settings.warmup
        count = len(image) if warming_up else round_at_random(settings.random_share * len(image))
        mask = self.fit_to_grid(masker(batch), self.encoder.grid())
        assert mask.gate is not None
        assert mask.scores is not None
        visible = mask.visible.clone()
        logits = []
        if count:
            low, high = settings.random_keep
            keep = low + (high - low) * torch.rand(())
            visible[:count] = random_visible_batch(count, self.encoder.grid(), keep, image.device)
            logits.append(self.head(self.encoder(image[:count], visible[:count]), visible[:count]))
        if count < len(image):
            logits.append(self.head(self.encoder(image[count:], mask.gate[count:]), mask.gate[count:]))
        together = torch.cat(logits)
        loss_class = self._cross_entropy(together, batch["label"])
        loss_budget = budget_loss(mask.scores, masker.keep)
        return {
            "loss": loss_class + settings.budget_weight * loss_budget,
            "loss_class": loss_class,
            "loss_budget": loss_budget,
            "keep": mask.visible.float().mean(),
            "logits": together,
            "visible": visible,
        }

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(), label, weight=self.class_weights, label_smoothing=self.smoothing if self.training else 0.0
        )


def round_at_random(value: float) -> int:
    """Rounds so that the mean is the value itself: half a film is one film in every second batch."""
    whole = int(value)
    return whole if value == whole else whole + int(torch.rand(()).item() < value - whole)
