"""A class for each film, from what a masker lets the encoder see."""

from collections.abc import Mapping
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.gates import budget_loss
from mim.masking.grids import GridFit
from mim.masking.ideal import lesion_loss
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.masking.patterns import random_visible_batch
from mim.models.encoder import Encoder
from mim.models.heads import ClassificationHead
from mim.models.ordered_head import OrderedHead
from mim.models.tuning import hold_still
from mim.tasks.focal import focal_loss
from mim.tasks.label_loss import several_labels_loss
from mim.tasks.look import look, seen
from mim.tasks.mask_training import MaskTraining, Rebuilding, Stage

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
        trained_blocks: last blocks of the backbone that learn; 0 = the encoder stays as it is; None = all of it learns.
        labels: `classes`: a film has one of them. `ordered`: they are grades, the mildest first, and the logits are
            log-probabilities of a cumulative link (`mim.models.ordered_head`). `several`: each label is 0 or 1 for
            itself, or -1 where that is not known.

    Raises:
        ValueError: the backbone has fewer blocks than `trained_blocks`, or there are fewer than three grades.
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
        trained_blocks: int | None = None,
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
        self._frozen: list[nn.Parameter] = []
        self._still = () if trained_blocks is None else tuple(hold_still(encoder, trained_blocks))

    def train(self, mode: bool = True) -> Self:
        """Leaves in evaluation mode what does not learn."""
        super().train(mode)
        self._keep_still()
        return self

    def _keep_still(self) -> None:
        for module in self._still:
            module.eval()

    def set_progress(self, fraction: float) -> None:
        """Hears how much of the training lies behind, in [0, 1]; while only the masker learns, the rest is frozen.

        Where this is never told, masker and network learn together, as in the last stage.
        """
        self.progress = fraction
        if not self.training or not isinstance(self.masker, PatchMasker):
            return
        frozen = self.mask_training.stage(fraction) == "masker"
        for part in (self.encoder, self.head):
            part.train(not frozen)  # statistics of norms stand still as well
        self._keep_still()
        if frozen and not self._frozen:
            parts = (*self.encoder.parameters(), *self.head.parameters())
            self._frozen = [parameter for parameter in parts if parameter.requires_grad]
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        elif not frozen and self._frozen:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = []

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
        recipe = self.mask_training
        network, masker = (1.0, recipe.spans("network")), (recipe.lr_scale, recipe.spans("masker"))
        return {"encoder": network, "head": network, "masker": masker}

    def _learn(self, batch: dict[str, Tensor], masker: PatchMasker) -> dict[str, Tensor]:
        """One of the stages A, B and C of `MaskTraining`."""
        image = (batch["image"] - self.mean) / self.std
        recipe = self.mask_training
        stage: Stage = "joint" if self.progress is None else recipe.stage(self.progress)
        if stage == "network":
            visible = self._random_visible(image)
            loss_class = self._class_loss(self._look(image, Mask(visible)), batch["label"])
            return {"loss": loss_class, "loss_class": loss_class, "keep": visible.float().mean(), "visible": visible}
        mask = masker(batch)
        parts = self._mask_losses(batch, masker, mask)
        figures = {"visible": mask.visible, "keep": seen(mask).float().mean()}
        if stage == "masker" and not recipe.task:
            return summed(parts) | figures
        # the network hears nothing of the task but through what it sees
        met = mask if recipe.task else Mask(mask.visible, mask.gate.detach() if masker.gate == "soft" else None)
        logits = []
        count = round_at_random(recipe.random_share * len(image)) if stage == "joint" else 0
        if count:
            logits.append(self._look(image[:count], Mask(self._random_visible(image[:count]))))
        if count < len(image):
            logits.append(self._look(image[count:], part_of(met, count)))
        together = torch.cat(logits)
        weight = (
            recipe.task if stage == "masker" else 1.0
        )  # with nothing else to learn from, the network needs all of it
        if stage == "masker" and recipe.follow == "network":
            with torch.no_grad():
                whole = self.probabilities(self._look(image, None).float())
            loss_class = self._distance(together.float(), whole)
        else:
            loss_class = self._class_loss(together, batch["label"])
        return summed({"class": (loss_class, weight), **parts}) | figures | {"logits": together}

    def _mask_losses(
        self, batch: dict[str, Tensor], masker: PatchMasker, mask: Mask
    ) -> dict[str, tuple[Tensor, float]]:
        """What a masker learns from beside the task: by name, each with its weight."""
        recipe = self.mask_training
        assert mask.scores is not None
        parts = {
            "budget": (
                budget_loss(mask.scores, masker.keep),
                recipe.budget_weight(1.0 if self.progress is None else self.progress),
            )
        }
        if recipe.supervised:
            if "lesion" not in batch:
                raise ValueError("the masker is to learn from lesions, and the batch has none; set data.boxes")
            parts["supervised"] = (lesion_loss(mask.scores, batch["lesion"]), recipe.supervised)
        if recipe.reconstruction:
            if self.rebuilding is None:
                raise ValueError("the masker is to learn from what can be rebuilt, and there is no pretrained model")
            parts["reconstruction"] = (self.rebuilding(batch["image"], mask), recipe.reconstruction)
        return parts

    def _random_visible(self, image: Tensor) -> Tensor:
        low, high = self.mask_training.random_keep
        keep = low + (high - low) * torch.rand(())
        return random_visible_batch(len(image), self.encoder.grid(), keep, image.device)

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


def summed(parts: Mapping[str, tuple[Tensor, float]]) -> dict[str, Tensor]:
    """`loss`, the weighted sum of parts, and each of them by name, without its weight."""
    loss = torch.stack([part * weight for part, weight in parts.values()]).sum()
    return {"loss": loss, **{f"loss_{name}": part for name, (part, _) in parts.items()}}


def part_of(mask: Mask, first: int) -> Mask:
    """The mask of the images from one on."""
    return Mask(mask.visible[first:], None if mask.gate is None else mask.gate[first:])


def round_at_random(value: float) -> int:
    """Rounds so that the mean is the value itself: half a film is one film in every second batch."""
    whole = int(value)
    return whole if value == whole else whole + int(torch.rand(()).item() < value - whole)
