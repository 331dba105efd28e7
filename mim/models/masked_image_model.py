"""Hide cells, rebuild them."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mim.models.cpu_kernels import quick_on_cpu
from mim.models.decoders import create_decoder
from mim.models.encoder import Encoder
from mim.models.guides import Choice, Guide
from mim.models.prediction import Prediction
from mim.models.targets import LatentTarget, PixelTarget, Target, VisibleDistillation, patchify, unpatchify


class MaskedImageModel(nn.Module):
    """Masked image modelling: an encoder that sees the visible cells, and a decoder that answers for the others.

    Args:
        encoder: any encoder.
        decoder: called with the encoder's features and `visible`, gives a `Prediction` of as many numbers a cell as the
            targets have together; None = the default that fits the encoder.
        targets: what is to be found, and the weight of each in the loss; None = pixels.
        normalize_pixels: whether the pixels of each cell are normalised where `targets` is None.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        distillation: what holds the encoder's visible tokens against the teacher of a latent target, which must then be
            among `targets`, and its weight; None = nothing does.
        guide: chooses the hidden cells of a batch that has `mask_noise`; None = they are hidden as the batch says.

    Attributes:
        visible_count: how many cells every image of every batch shows, where the pattern makes that known: shapes are
            then static and nothing waits for the device. None = it is found out.

    Raises:
        ValueError: if two targets are of one kind, or there is distillation without a teacher.
    """

    visible_count: int | None = None

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module | None = None,
        targets: Sequence[tuple[Target, float]] | None = None,
        normalize_pixels: bool = True,
        mean: float = 0.0,
        std: float = 1.0,
        distillation: tuple[VisibleDistillation, float] | None = None,
        guide: Guide | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        targets = targets or [(PixelTarget(encoder, normalize_pixels), 1.0)]
        self.targets = nn.ModuleList([target for target, _ in targets])
        self.weights = {target.name: weight for target, weight in targets}
        self.sizes = [target.size for target, _ in targets]
        self.decoder = decoder if decoder is not None else create_decoder(encoder, sum(self.sizes))
        self.mean = mean
        self.std = std
        self.guide = guide
        self.distillation: VisibleDistillation | None = None
        if distillation is not None:
            self.distillation, self.weights[VisibleDistillation.name] = distillation
        if len(self.weights) != len(targets) + (distillation is not None):
            raise ValueError("two targets are of one kind")
        if distillation is not None and not any(isinstance(target, LatentTarget) for target, _ in targets):
            raise ValueError("distillation needs the teacher of a latent target")
        self.progress = 0.0

    @property
    def draws(self) -> bool:
        """Whether there are pixels among the targets, so that `reconstruct` has something to show."""
        return any(isinstance(target, PixelTarget) for target in self.targets)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; `visible` (B, gh, gw) bool, True = seen; for a guide
                `mask_noise` (B, gh, gw) float in [0, 1), without which nothing is guided.

        Returns:
            `loss`, the weighted sum of the targets' errors, each the mean over the hidden cells of an image, averaged
            over images; with several parts, or a guide, also `loss_<name>` of each, without its weight; with a guide
            that learns `loss_guide`, which `loss` then holds as well; and whatever scalars the targets log.
        """
        image = (batch["image"] - self.mean) / self.std
        choice = self._choose(batch, image)
        visible = batch["visible"] if choice is None else choice.visible
        with quick_on_cpu(image.device):
            features = self.encoder(image, visible, self.visible_count)
            prediction = self.decoder(features, visible)
        right, whole = self._right(image, prediction)
        errors = self._errors(prediction, right)
        parts = self._over_hidden(errors, prediction, visible)
        if self.distillation is not None:
            parts[self.distillation.name] = self.distillation(features, visible, whole)
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        several = len(parts) > 1 or choice is not None
        named = {f"loss_{name}": part.detach() for name, part in parts.items()} if several else {}
        if choice is not None and (lesson := self._teach_guide(choice, errors, prediction)) is not None:
            loss = loss + lesson
            named["loss_guide"] = lesson.detach()
        figures = {name: figure for target in self.listed_targets() for name, figure in target.figures().items()}
        return {"loss": loss, **named, **figures}

    def set_progress(self, fraction: float) -> None:
        """Hears, before each step, which share of the steps is done; teachers and guides change with it."""
        self.progress = fraction

    def after_step(self) -> None:
        """Hears that a step has changed the weights; teachers then follow.

        Raises:
            MimError: a target is no longer one to train for.
        """
        for target in self.listed_targets():
            target.after_step(self.encoder, self.progress)

    @torch.no_grad()
    def predict(self, batch: dict[str, Tensor]) -> Prediction:
        """Gives what the decoder makes of a batch as `forward` takes it; nothing is guided."""
        image = (batch["image"] - self.mean) / self.std
        visible = batch["visible"]
        with quick_on_cpu(image.device):
            prediction: Prediction = self.decoder(self.encoder(image, visible, self.visible_count), visible)
        return prediction

    @torch.no_grad()
    def cell_errors(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Gives the error of each hidden cell, as the loss sums it up over the targets; nothing is guided.

        Args:
            batch: `image` and `visible` as `forward` takes them; any number of cells may be visible.

        Returns:
            Errors (B, gh * gw), zero where a cell was not predicted or is visible; and (B, gh * gw) bool, where there
            is one.
        """
        image, visible = (batch["image"] - self.mean) / self.std, batch["visible"]
        with quick_on_cpu(image.device):
            prediction: Prediction = self.decoder(self.encoder(image, visible), visible)
        right, _ = self._right(image, prediction)
        errors = self._errors(prediction, right)
        together = torch.stack([self.weights[name] * error for name, error in errors.items()]).sum(dim=0)
        counted = prediction.counted(visible)
        both = torch.stack([together.float().masked_fill(~counted, 0), counted.float()], dim=-1)
        laid = replace(prediction, values=both).lay(visible[0].numel())
        return laid[..., 0], laid[..., 1] > 0

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Rebuilds the hidden cells of an image and leaves the visible ones as they are.

        Where the target is normalised, each rebuilt cell is given the true mean and deviation of its pixels: the
        picture shows what shape was understood, not what brightness. Hidden cells that the decoder passed over, as one
        may that decodes a share of them, are black.

        Returns:
            (B, C, H, W) with pixels in [0, 1]; None where no target is made of pixels.
        """
        visible, size = batch["visible"], self.encoder.patch_size
        image = (batch["image"] - self.mean) / self.std
        cells = patchify(image, size)
        prediction = self.predict(batch)
        laid = torch.split(prediction.lay(cells.shape[1]).to(cells.dtype), self.sizes, dim=-1)
        for target, values in zip(self.listed_targets(), laid, strict=True):
            rebuilt = target.to_cells(values, image)
            if rebuilt is not None:
                black = torch.full_like(rebuilt, -self.mean / self.std)
                rebuilt = torch.where(prediction.is_laid(cells.shape[1])[..., None], rebuilt, black)
                cells = torch.where(visible.flatten(1)[..., None], cells, rebuilt)
                return (unpatchify(cells, size, self.encoder.grid()) * self.std + self.mean).clamp(0, 1)
        return None

    def listed_targets(self) -> list[Target]:
        """Gives the targets, in the order in which their numbers stand in a prediction."""
        return [target for target in self.targets if isinstance(target, Target)]

    def _choose(self, batch: dict[str, Tensor], image: Tensor) -> Choice | None:
        if self.guide is None or "mask_noise" not in batch:
            return None
        return self.guide.choose(self.encoder, image, batch["visible"], batch["mask_noise"], self.progress)

    def _teach_guide(self, choice: Choice, errors: dict[str, Tensor], prediction: Prediction) -> Tensor | None:
        """The loss that a guide learns by, from the weighted errors of the cells that it hid."""
        assert self.guide is not None
        scores = prediction.take(choice.scores[..., None])[..., 0]
        weighted = torch.stack([self.weights[name] * error for name, error in errors.items()]).sum(dim=0)
        return self.guide.loss(scores, weighted.detach(), prediction.counted(choice.visible))

    @torch.no_grad()
    def _right(self, image: Tensor, prediction: Prediction) -> tuple[list[Tensor], Tensor | None]:
        """What is right for each predicted cell, (B, M, P) of each target; and what a teacher says of all cells.

        The latter is None where nothing asks for it: only then need no more be made than what was predicted.
        """
        right: list[Tensor] = []
        whole = None
        for target in self.listed_targets():
            if self.distillation is not None and isinstance(target, LatentTarget):
                whole = target(image)
                right.append(prediction.take(whole))
            else:
                right.append(target(image, prediction.index))
        return right, whole

    def _errors(self, prediction: Prediction, right: list[Tensor]) -> dict[str, Tensor]:
        """Error of each predicted cell by each target: (B, M), without weights."""
        split = torch.split(prediction.values, self.sizes, dim=-1)
        targets = zip(self.listed_targets(), split, right, strict=True)
        return {target.name: target.error(values, wanted) for target, values, wanted in targets}

    @staticmethod
    def _over_hidden(errors: dict[str, Tensor], prediction: Prediction, visible: Tensor) -> dict[str, Tensor]:
        """Mean over the hidden cells of an image, then over images: a scalar for each target."""
        counted = prediction.counted(visible).float()  # (B, M)
        share = counted / counted.sum(dim=1, keepdim=True).clamp(min=1) / len(counted)
        return {name: (error * share).sum() for name, error in errors.items()}
