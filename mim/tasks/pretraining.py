"""Hide cells, rebuild them."""

import torch
from torch import Tensor, nn

from mim.models.decoders import create_decoder
from mim.models.encoder import Encoder
from mim.models.targets import normalize_cells, patchify, unpatchify


class MaskedImageModel(nn.Module):
    """Masked image modelling: an encoder that sees the visible cells, a decoder that rebuilds the hidden ones.

    Args:
        encoder: any encoder.
        decoder: called with the encoder's features and `visible`; None = the default that fits the encoder.
        normalize_pixels: whether each cell of the target is normalised by its own mean and deviation.
        mean: subtracted from pixels in [0, 1].
        std: what the difference is divided by.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module | None = None,
        normalize_pixels: bool = True,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder if decoder is not None else create_decoder(encoder)
        self.normalize_pixels = normalize_pixels
        self.mean = mean
        self.std = std

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the loss of one batch.

        Args:
            batch: `image` (B, C, H, W) with pixels in [0, 1]; `visible` (B, gh, gw) bool, True = seen.

        Returns:
            `loss`: mean squared error over the hidden cells of an image, averaged over images; and
            `prediction`, (B, gh * gw, pixels of a cell).
        """
        visible = batch["visible"]
        image = (batch["image"] - self.mean) / self.std
        prediction = self.decoder(self.encoder(image, visible), visible)  # (B, N, P)
        target = patchify(image, self.encoder.patch_size)
        if self.normalize_pixels:
            target = normalize_cells(target)[0]
        hidden = (~visible).flatten(1).float()  # (B, N)
        error = (prediction.float() - target.float()).square().mean(dim=-1)
        per_image = (error * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)
        return {"loss": per_image.mean(), "prediction": prediction}

    @torch.no_grad()
    def reconstruct(self, batch: dict[str, Tensor]) -> Tensor:
        """Rebuilds the hidden cells of an image and leaves the visible ones as they are.

        Where the target is normalised, each rebuilt cell is given the true mean and deviation of its pixels: the
        picture shows what shape was understood, not what brightness.

        Returns:
            (B, C, H, W) with pixels in [0, 1].
        """
        visible, size = batch["visible"], self.encoder.patch_size
        cells = patchify((batch["image"] - self.mean) / self.std, size)
        rebuilt = self(batch)["prediction"].to(cells.dtype)
        if self.normalize_pixels:
            _, mean, deviation = normalize_cells(cells)
            rebuilt = rebuilt * deviation + mean
        cells = torch.where(visible.flatten(1)[..., None], cells, rebuilt)
        return (unpatchify(cells, size, self.encoder.grid()) * self.std + self.mean).clamp(0, 1)
