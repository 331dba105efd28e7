"""A class for each study, from films that a masker weighs against each other."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.sequence import check_present, present_films, put_back
from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.heads import ClassificationHead

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
        film_masker: says which cells of a film the encoder may look at. It is applied as it is, and not trained.
        num_classes: number of classes.
        class_weights: (num_classes,) weights of the cross entropy, or None.
        smoothing: label smoothing.
        freeze_encoder: whether the encoder stays as it is: in evaluation mode, and without gradients.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
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
        if freeze_encoder:
            encoder.requires_grad_(False)
        if film_masker is not None:
            film_masker.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.freeze_encoder:
            self.encoder.eval()
        if self.film_masker is not None:
            self.film_masker.eval()
        return self

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Classifies studies.

        Args:
            batch: `image` (B, S, C, H, W) with pixels in [0, 1], the films of each study in their order; `present`
                (B, S) bool, False = padding or a film that is missing, whose pixels may hold anything; `label` (B,)
                integers where a loss is wanted.

        Returns:
            `logits` (B, num_classes); `weight` (B, S) from 0 to 1, exactly 0 for an absent film; `keep_rate` (B,), the
            share of a study's cells that was looked at, films of weight 0 counting as hidden; with labels also `loss`,
            `loss_class` and `keep`, the mean of `keep_rate`.

        Raises:
            ValueError: a study has no film at all, or a tensor has another shape or type.
        """
        present = check_present(batch)
        image = batch["image"]
        if image.ndim != 5 or image.shape[:2] != present.shape:
            raise ValueError(
                f"image must be (B, S, C, H, W) for present {tuple(present.shape)}, not {tuple(image.shape)}"
            )
        films = (image[present] - self.mean) / self.std  # (N, C, H, W)
        visible = None
        if self.film_masker is not None:
            with torch.no_grad():
                visible = self.film_masker({"image": image[present]}).visible
        features = self._encode(films, visible)
        order = present_films(present)  # (B, L)
        pooled = lay_out(features.pooled, order)  # (B, L, D)
        weight = (order >= 0).to(pooled.dtype)
        if self.masker is not None:
            weight = self.masker({"features": pooled, "present": order >= 0}).gate
        local = lay_out(self.head.local(features, visible), order)  # (B, L, classes)
        share = relative(weight)
        logits = self.head.whole(weighted_mean(pooled, share)) + weighted_maximum(local, share)
        seen = features.pooled.new_ones(len(films)) if visible is None else visible.float().mean(dim=(1, 2))
        seen_by_film = lay_out(seen[:, None], order).squeeze(2) * (weight > 0)
        keep_rate = seen_by_film.sum(dim=1) / present.sum(dim=1)
        out = {"logits": logits, "weight": put_back(weight, order, present), "keep_rate": keep_rate}
        if "label" in batch:
            out["loss"] = out["loss_class"] = self._cross_entropy(logits, batch["label"])
            out["keep"] = keep_rate.mean()
        return out

    def _encode(self, films: Tensor, visible: Tensor | None) -> Features:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
            features: Features = self.encoder(films, visible)
        return features

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
