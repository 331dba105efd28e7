"""A class for each film, from what a masker lets the encoder see."""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.models.encoder import Encoder
from mim.models.heads import ClassificationHead
from mim.models.ordered_head import OrderedHead
from mim.tasks.focal import focal_loss
from mim.tasks.label_loss import several_labels_loss
from mim.tasks.look import look, seen
from mim.tasks.mask_training import MaskTraining, Rebuilding
from mim.tasks.staged import Rest, draw_lesson, staged_plan, summed

Labels = Literal["classes", "ordered", "several"]


class MaskedClassifier(nn.Module):
    """head(encoder(image, visible)), where a masker decides what is visible.

    A mask of single pixels in front of an encoder with larger cells is a filter: a pixel that it hides is replaced by
    the mean of the film, and all cells are seen.

    Args:
        encoder: any encoder.
        num_classes: number of classes, of grades, or of labels.
        masker: `masker(batch) -> Mask`, or None: everything is seen.
        class_weights: (num_classes,) weights of the cross entropy, or None; of several labels the weight of films that
            have one, against 1 of those that do not.
        smoothing: label smoothing.
        mask_training: for a masker that learns.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        rebuilding: gives the error of rebuilding what a mask hides; needed where `mask_training` has a weight for it.
        focal_gamma: learns by the focal loss with this gamma in the place of the cross entropy, without smoothing;
            None = cross entropy.
        labels: `classes`: a film has one of them. `ordered`: they are grades, the mildest first, and the logits are
            log-probabilities of a cumulative link (`mim.models.ordered_head`). `several`: each label is 0 or 1 for
            itself, or -1 where that is not known.

    Raises:
        ValueError: there are fewer than three grades.
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
        rebuilding: Rebuilding | None = None,
        focal_gamma: float | None = None,
        labels: Labels = "classes",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.labels = labels
        self.num_classes = num_classes
        head = OrderedHead if labels == "ordered" else ClassificationHead
        self.head: ClassificationHead | OrderedHead = head(encoder, num_classes)
        self.masker = masker
        self.register_buffer("class_weights", class_weights)
        self.smoothing = smoothing
        self.focal_gamma = focal_gamma
        self.mask_training = mask_training or MaskTraining()
        self.mean = mean
        self.std = std
        self.rebuilding = rebuilding
        self.fit_to_grid = GridFit()
        self.progress: float | None = None
        self._rest = Rest()

    def set_progress(self, fraction: float) -> None:
        """Hears how much of the training lies behind, in [0, 1]; while only the masker learns, the rest is frozen.

        Where this is never told, masker and network learn together, as in the last stage.
        """
        self.progress = fraction
        if not self.training or not isinstance(self.masker, PatchMasker):
            return
        self._rest((self.encoder, self.head), self.mask_training.stage(fraction) == "masker")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Classifies a batch.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; `label` (B,) integers where a loss is wanted, of several
                labels (B, num_classes) of 0, 1 and -1; `lesion` (B, 1, H, W) bool where a masker learns from lesions.

        Returns:
            `logits` (B, num_classes), `visible` (B, gh, gw) bool and a masker's `scores`; with labels also `loss`,
            its parts `loss_<name>`, and `keep`, the share of cells that was visible. While a masker learns by itself
            and not from the task, there are no logits.
        """
        if self.training and isinstance(self.masker, PatchMasker):
            return self._learn(batch, self.masker)
        image = (batch["image"] - self.mean) / self.std
        mask = None if self.masker is None else self._fit(self.masker(batch))
        logits = self._look(image, mask)
        if mask is None:
            visible = torch.ones(len(image), *self.encoder.grid(), dtype=torch.bool, device=image.device)
            mask = Mask(visible)
        out = {"logits": logits, "visible": mask.visible}
        if mask.scores is not None:
            out["scores"] = mask.scores
        if "label" in batch:
            out["loss"] = out["loss_class"] = self._class_loss(logits, batch["label"])
            out["keep"] = seen(mask).float().mean()
        return out

    def classify(self, image: Tensor, visible: Tensor | None) -> Tensor:
        """Classifies what is seen through a given mask; the masker is not asked.

        Args:
            image: (B, C, H, W) with pixels in [0, 1].
            visible: (B, gh, gw) bool or gate, or such a mask of all pixels; None = everything is seen.

        Returns:
            (B, num_classes) logits.
        """
        mask = None
        if visible is not None:
            hard = visible.dtype == torch.bool
            mask = Mask(visible if hard else visible > 0, None if hard else visible)
        return self._look((image - self.mean) / self.std, mask)

    def probabilities(self, logits: Tensor) -> Tensor:
        """(B, num_classes) logits to probabilities, which add up to 1 but where there are several labels."""
        return to_probabilities(logits, self.labels)

    def _fit(self, mask: Mask) -> Mask:
        """Brings a decision about cells to the encoder's grid; one about pixels is a filter, and stays as it is."""
        if tuple(mask.visible.shape[1:]) == self.encoder.image_size:
            return mask
        return self.fit_to_grid(mask, self.encoder.grid())

    def learning_plan(self) -> Mapping[str, tuple[float, tuple[tuple[float, float], ...]]]:
        """Of parts by name: a factor on the learning rate, and the shares of the training between which they learn."""
        if not isinstance(self.masker, PatchMasker):
            return {}
        return staged_plan(self.mask_training, ("encoder", "head"), "masker")

    def _learn(self, batch: dict[str, Tensor], masker: PatchMasker) -> dict[str, Tensor]:
        """One of the stages A, B and C of `MaskTraining`."""
        image = (batch["image"] - self.mean) / self.std
        lesson = draw_lesson(batch, masker, self.encoder, self.mask_training, self.progress, self.rebuilding)
        if not lesson.met:
            return summed(lesson.parts) | lesson.figures
        together = torch.cat([self._look(image[own], mask) for own, mask in lesson.met])
        if lesson.stage == "masker" and self.mask_training.follow == "network":
            with torch.no_grad():
                whole = self.probabilities(self._look(image, None).float())
            loss_class = self._distance(together.float(), whole)
        else:
            loss_class = self._class_loss(together, batch["label"])
        return summed({"class": (loss_class, lesson.weight), **lesson.parts}) | lesson.figures | {"logits": together}

    def _look(self, image: Tensor, mask: Mask | None) -> Tensor:
        """Logits of what a mask shows of a normalised image.

        Raises:
            ValueError: the mask is neither of the encoder's grid nor of the image's pixels.
        """
        features, shown = look(self.encoder, image, mask)
        return self.head(features, shown)  # type: ignore[no-any-return]

    def _distance(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """Cross entropy to probabilities that somebody else gives."""
        if self.labels == "several":
            return F.binary_cross_entropy_with_logits(logits, probabilities)
        return F.cross_entropy(logits, probabilities)

    def _class_loss(self, logits: Tensor, label: Tensor) -> Tensor:
        smoothing = self.smoothing if self.training else 0.0
        if self.labels == "several":
            return several_labels_loss(logits.float(), label, self.class_weights, self.focal_gamma or 0.0, smoothing)
        if self.focal_gamma is not None:
            return focal_loss(logits.float(), label, self.focal_gamma, self.class_weights)
        return F.cross_entropy(logits.float(), label, weight=self.class_weights, label_smoothing=smoothing)


def to_probabilities(logits: Tensor, labels: Labels) -> Tensor:
    """(B, K) logits to probabilities, which add up to 1 but where there are several labels."""
    return logits.sigmoid() if labels == "several" else logits.softmax(dim=1)
