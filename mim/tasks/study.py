"""A class for each study, from films that a masker weighs against each other."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.grids import GridFit
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.masking.sequence import check_present, present_films, put_back
from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.heads import ClassificationHead
from mim.tasks.look import look, seen
from mim.tasks.mask_training import MaskTraining, Rebuilding
from mim.tasks.staged import Rest, draw_lesson, staged_plan, summed

WEIGHT_FLOOR = 1e-6  # of a weight beside the study's largest: keeps logarithm and gradient finite


class MaskedStudyClassifier(nn.Module):
    """head(weighted films), where a masker over the films of a study says how much each of them counts.

    The head is that of single films, `ClassificationHead`: its linear layer meets the weighted mean of the films'
    features, and its smooth maximum runs over the places of all films, weighted alike. A study of one film gets the
    logits that the film would get, whatever its weight. Films that are absent are not computed.

    Args:
        encoder: any encoder.
        masker: gives a `Mask` over films (B, S) from `features` (B, S, encoder.width) and `present` (B, S), such as
            `SequenceMasker`; None = all films count alike.
        film_masker: says which cells of a film the encoder may look at, the same one for all films. A `PatchMasker`
            learns, by `mask_training`: there `masker` is a part of the network. Any other is applied as it is.
        num_classes: number of classes.
        class_weights: (num_classes,) weights of the cross entropy, or None.
        smoothing: label smoothing.
        freeze_encoder: whether the encoder stays as it is: in evaluation mode, and without gradients.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
        mask_training: for a film masker that learns. Random masks are drawn for whole studies.
        rebuilding: gives the error of rebuilding what a mask hides; needed where `mask_training` has a weight for it.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        masker: nn.Module | None = None,
        film_masker: nn.Module | None = None,
        num_classes: int = 2,
        class_weights: Tensor | None = None,
        smoothing: float = 0.0,
        freeze_encoder: bool = False,
        mean: float = 0.0,
        std: float = 1.0,
        mask_training: MaskTraining | None = None,
        rebuilding: Rebuilding | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        encoder.set_normalisation(mean, std)
        self.head = ClassificationHead(encoder, num_classes)
        self.masker = masker
        self.film_masker = film_masker
        self.register_buffer("class_weights", class_weights)
        self.smoothing = smoothing
        self.freeze_encoder = freeze_encoder
        self.mean = mean
        self.std = std
        self.mask_training = mask_training or MaskTraining()
        self.rebuilding = rebuilding
        self.fit_to_grid = GridFit()
        self.progress: float | None = None
        self._rest = Rest()
        if freeze_encoder:
            encoder.requires_grad_(False)
        if film_masker is not None and not isinstance(film_masker, PatchMasker):
            film_masker.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        if self.film_masker is not None and not isinstance(self.film_masker, PatchMasker):
            self.film_masker.eval()
        return self

    def set_progress(self, fraction: float) -> None:
        """Hears how much of the training lies behind, in [0, 1]; while only the film masker learns, the rest is frozen.

        Where this is never told, all learn together, as in the last stage.
        """
        self.progress = fraction
        if not self.training or not isinstance(self.film_masker, PatchMasker):
            return
        # on a GPU a recurrence gives a gradient in training mode alone
        weighing = () if self.masker is None else (self.masker,)
        resting = self.mask_training.stage(fraction) == "masker"
        self._rest((self.encoder, self.head), resting, answering=weighing)
        if self.freeze_encoder:
            self.encoder.eval()

    def learning_plan(self) -> Mapping[str, tuple[float, tuple[tuple[float, float], ...]]]:
        """Of parts by name: a factor on the learning rate, and the shares of the training between which they learn."""
        if not isinstance(self.film_masker, PatchMasker):
            return {}
        network = ("encoder", "head") if self.masker is None else ("encoder", "head", "masker")
        return staged_plan(self.mask_training, network, "film_masker")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Classifies studies.

        Args:
            batch: `image` (B, S, C, H, W) with pixels in [0, 1], the films of each study in their order; `present`
                (B, S) bool, False = padding or a film that is missing, whose pixels may hold anything; `label` (B,)
                integers where a loss is wanted; `lesion` (B, S, 1, H, W) bool where a film masker learns from it.

        Returns:
            `logits` (B, num_classes); `weight` (B, S) from 0 to 1, exactly 0 for an absent film; `keep_rate` (B,), the
            share of a study's cells that was looked at, films of weight 0 counting as hidden; behind a film masker
            `visible` (N, gh, gw) bool, of the N films that are there, study after study, and its `scores`; with labels
            also `loss`, its parts `loss_<name>` and `keep`, the mean of `keep_rate`. While a film masker learns, `keep`
            is the share of the cells of all films; while it learns by itself and not from the task, there are no
            logits.

        Raises:
            ValueError: a study has no film at all, or a tensor has another shape or type.
        """
        present = check_present(batch)
        image = batch["image"]
        if image.ndim != 5 or image.shape[:2] != present.shape:
            raise ValueError(
                f"image must be (B, S, C, H, W) for present {tuple(present.shape)}, not {tuple(image.shape)}"
            )
        films = {"image": image[present]}  # (N, C, H, W)
        if "lesion" in batch:
            films["lesion"] = batch["lesion"][present]
        if self.training and isinstance(self.film_masker, PatchMasker):
            return self._learn(films, present, batch["label"], self.film_masker)
        mask = None if self.film_masker is None else self._fit(self.film_masker(films))
        out = self._judge(self._look(films["image"], [(slice(None), mask)]), present)
        shares = out["weight"].new_ones(int(present.sum())) if mask is None else seen(mask).float().mean(dim=(1, 2))
        by_film = torch.zeros_like(out["weight"], dtype=shares.dtype).masked_scatter(present, shares)
        out["keep_rate"] = (by_film * (out["weight"] > 0)).sum(dim=1) / present.sum(dim=1)
        if mask is not None:
            out["visible"] = mask.visible
            if mask.scores is not None:
                out["scores"] = mask.scores
        if "label" in batch:
            out["loss"] = out["loss_class"] = self._cross_entropy(out["logits"], batch["label"])
            out["keep"] = out["keep_rate"].mean()
        return out

    def _learn(
        self, films: dict[str, Tensor], present: Tensor, label: Tensor, masker: PatchMasker
    ) -> dict[str, Tensor]:
        """One of the stages A, B and C of `MaskTraining`, of films that are there."""
        recipe = self.mask_training
        counts = present.sum(dim=1)
        lesson = draw_lesson(films, masker, self.encoder, recipe, self.progress, self.rebuilding, counts)
        if not lesson.met:
            return summed(lesson.parts) | lesson.figures
        out = self._judge(self._look(films["image"], lesson.met), present)
        if lesson.stage == "masker" and recipe.follow == "network":
            with torch.no_grad():
                whole = self._judge(self._look(films["image"], [(slice(None), None)]), present)["logits"]
            loss = F.cross_entropy(out["logits"].float(), whole.float().softmax(dim=1))
        else:
            loss = self._cross_entropy(out["logits"], label)
        return summed({"class": (loss, lesson.weight), **lesson.parts}) | lesson.figures | out

    def _fit(self, mask: Mask) -> Mask:
        """Brings a decision about cells to the encoder's grid; one about pixels is a filter, and stays as it is."""
        if tuple(mask.visible.shape[1:]) == self.encoder.image_size:
            return mask
        return self.fit_to_grid(mask, self.encoder.grid())

    def _look(self, films: Tensor, met: Sequence[tuple[slice, Mask | None]]) -> tuple[Tensor, Tensor]:
        """Features (N, D) of films with pixels in [0, 1], and logits (N, classes) of their most suspicious places."""
        pooled, local = [], []
        for own, mask in met:
            features, shown = self._encode((films[own] - self.mean) / self.std, mask)
            pooled.append(features.pooled)
            local.append(self.head.local(features, shown))
        return torch.cat(pooled), torch.cat(local)

    def _encode(self, films: Tensor, mask: Mask | None) -> tuple[Features, Tensor | None]:
        gated = mask is not None and mask.gate is not None and mask.gate.requires_grad
        with torch.set_grad_enabled(torch.is_grad_enabled() and (gated or not self.freeze_encoder)):
            return look(self.encoder, films, mask)

    def _judge(self, looked: tuple[Tensor, Tensor], present: Tensor) -> dict[str, Tensor]:
        """`logits` of studies, and the `weight` (B, S) of their films, from what `_look` gives."""
        order = present_films(present)  # (B, L)
        pooled = lay_out(looked[0], order)  # (B, L, D)
        weight = (order >= 0).to(pooled.dtype)
        if self.masker is not None:
            weight = self.masker({"features": pooled, "present": order >= 0}).gate
        local = lay_out(looked[1], order)  # (B, L, classes)
        share = relative(weight)
        logits = self.head.whole(weighted_mean(pooled, share)) + weighted_maximum(local, share)
        return {"logits": logits, "weight": put_back(weight, order, present)}

    def _cross_entropy(self, logits: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(
            logits.float(), label, weight=self.class_weights, label_smoothing=self.smoothing if self.training else 0.0
        )


def lay_out(values: Tensor, order: Tensor) -> Tensor:
    """(N, D), a row a film that is there, study after study, to (B, L, D) by `present_films`, zeros behind them."""
    laid = values.new_zeros(*order.shape, values.shape[1])
    return laid.masked_scatter((order >= 0)[..., None], values)


def relative(weight: Tensor) -> Tensor:
    """(B, L) weights over the largest of each study, in float32: only their ratio counts, however small they are."""
    largest = weight.float().amax(dim=1, keepdim=True).detach()
    return weight.float() / largest.clamp(min=torch.finfo(torch.float32).tiny)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """(B, L, D) and (B, L) `relative` weights to (B, D)."""
    return ((values.float() * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)).to(values.dtype)


def weighted_maximum(values: Tensor, weight: Tensor) -> Tensor:
    """(B, L, K) and (B, L) `relative` weights to (B, K): log of a weighted mean of exponentials; 0 leaves out."""
    log_weight = torch.log(weight.clamp(min=WEIGHT_FLOOR)).masked_fill(weight == 0, -torch.inf)[..., None]
    return torch.logsumexp(values.float() + log_weight, dim=1) - torch.logsumexp(log_weight, dim=1)
