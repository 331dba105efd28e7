"""Hide cells, rebuild them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mim.models.cpu_kernels import quick_on_cpu
from mim.models.decoders import create_decoder
from mim.models.encoder import Encoder
from mim.models.prediction import Prediction
from mim.models.targets import PixelTarget, Target, patchify, unpatchify


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
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module | None = None,
        targets: Sequence[tuple[Target, float]] | None = None,
        normalize_pixels: bool = True,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        targets = targets or [(PixelTarget(encoder, normalize_pixels), 1.0)]
        self.targets = nn.ModuleList([target for target, _ in targets])
        self.weights = [weight for _, weight in targets]
        self.sizes = [target.size for target, _ in targets]
        self.decoder = decoder if decoder is not None else create_decoder(encoder, sum(self.sizes))
        self.mean = mean
        self.std = std

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; `visible` (B, gh, gw) bool, True = seen.

        Returns:
            `loss`, the weighted sum of the targets' errors, each the mean over the hidden cells of an image, averaged
            over images; with several targets also `loss_<name>` of each.
        """
        visible = batch["visible"]
        image = (batch["image"] - self.mean) / self.std
        prediction = self._decode(image, visible)
        parts = self._errors(prediction, image, visible)
        loss = torch.stack([weight * part for weight, part in zip(self.weights, parts.values(), strict=True)]).sum()
        named = {f"loss_{name}": part.detach() for name, part in parts.items()} if len(parts) > 1 else {}
        return {"loss": loss, **named}

    @torch.no_grad()
    def predict(self, batch: dict[str, Tensor]) -> Prediction:
        """Gives what the decoder makes of a batch as `forward` takes it."""
        image = (batch["image"] - self.mean) / self.std
        return self._decode(image, batch["visible"])

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
        for target, values in zip(self._targets(), laid, strict=True):
            rebuilt = target.to_cells(values, image)
            if rebuilt is not None:
                black = torch.full_like(rebuilt, -self.mean / self.std)
                rebuilt = torch.where(prediction.is_laid(cells.shape[1])[..., None], rebuilt, black)
                cells = torch.where(visible.flatten(1)[..., None], cells, rebuilt)
                return (unpatchify(cells, size, self.encoder.grid()) * self.std + self.mean).clamp(0, 1)
        return None

    def _decode(self, image: Tensor, visible: Tensor) -> Prediction:
        with quick_on_cpu(image.device):
            prediction: Prediction = self.decoder(self.encoder(image, visible), visible)
        return prediction

    def _targets(self) -> list[Target]:
        return [target for target in self.targets if isinstance(target, Target)]

    def _errors(self, prediction: Prediction, image: Tensor, visible: Tensor) -> dict[str, Tensor]:
        """Error of each target, a scalar: mean over the hidden cells of an image, then over images."""
        counted = prediction.counted(visible).float()  # (B, M)
        weight = counted / counted.sum(dim=1, keepdim=True).clamp(min=1) / len(counted)
        parts = {}
        split = torch.split(prediction.values, self.sizes, dim=-1)
        for target, values in zip(self._targets(), split, strict=True):
            with torch.no_grad():
                right = prediction.take(target(image))
            parts[target.name] = (target.error(values, right) * weight).sum()
        return parts
