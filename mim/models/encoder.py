"""The contract that every encoder keeps."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mim.models.features import Features


@dataclass(frozen=True)
class EncoderSpec:
    """All that is needed to build an encoder again.

    Attributes:
        name: timm model name.
        image_size: height and width in pixels.
        in_chans: channels of the image.
        hidden: how cells are hidden.
        patch_size: side of one cell in pixels.
        timm_args: further arguments of timm.create_model.
        fill: what hidden pixels are replaced by where `hidden` is `fill`, else None.
    """

    name: str
    image_size: tuple[int, int]
    in_chans: int
    hidden: str
    patch_size: int
    timm_args: dict[str, Any] = field(default_factory=dict)
    fill: str | None = None


class Encoder(nn.Module, ABC):
    """A timm backbone that looks only at the visible cells of an image.

    Attributes:
        backbone: the timm model itself; its state_dict loads into timm.create_model, strict.
        spec: what it was built from.
        width: D, the length of `Features.pooled`.
        map_channels: channels of `Features.maps`, finest first.
        overwrites_hidden: whether hidden pixels are set to zero before `encode`. An encoder that never reads them saves
            the copy of the image.
        black: what normalising makes of a black pixel; 0 until `set_normalisation` is told.
    """

    backbone: Any  # an nn.Module; timm is not typed
    overwrites_hidden: ClassVar[bool] = True

    def __init__(self, backbone: nn.Module, spec: EncoderSpec, width: int, map_channels: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.spec = spec
        self.width = width
        self.map_channels = map_channels
        self.black = 0.0
        self._still: tuple[nn.Module, ...] = ()

    def hold_still(self, modules: Iterable[nn.Module]) -> None:
        """Puts modules into evaluation mode for good, so that neither dropout nor statistics of norms move them.

        Args:
            modules: of this encoder, or the encoder itself.
        """
        self._still = tuple(modules)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As any module; what is held still stays in evaluation mode."""
        super().train(mode)
        for module in self._still:
            nn.Module.train(module, False)
        return self

    def set_normalisation(self, mean: float, std: float) -> None:
        """Tells how the images are normalised that it will meet; only a black fill depends on it.

        Args:
            mean: subtracted from pixels in [0, 1].
            std: what the difference is divided by.
        """
        self.black = (0.0 - mean) / std

    @property
    def patch_size(self) -> int:
        """Side of one cell of `visible` in pixels."""
        return self.spec.patch_size

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self.spec.image_size

    def grid(self, image_size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Rows and columns of the patch grid of `visible` for an image size (by default the encoder's own).

        Raises:
            ValueError: if the image is not a whole number of cells.
        """
        height, width = image_size or self.spec.image_size
        check_divisible((height, width), self.patch_size)
        return height // self.patch_size, width // self.patch_size

    def forward(self, image: Tensor, visible: Tensor | None = None, count: int | None = None) -> Features:
        """Looks at the visible cells of an image.

        Args:
            image: (B, C, H, W), normalised. Hidden pixels may hold anything, NaN included: they are not used.
            visible: (B, gh, gw) bool, True = seen; or a gate, float in [0, 1], while a masker trains: cells are then
                weighted, not left out; None = all seen.
            count: how many cells every image of the batch shows, where that is known beforehand. Shapes are then static
                and nothing waits for the device. It must be right.

        Raises:
            ValueError: if the image or the mask has the wrong shape or type.
        """
        self._check(image, visible)
        if self.overwrites_hidden and visible is not None and visible.dtype == torch.bool:
            hidden_pixels = ~self.upsample(visible, (image.shape[-2], image.shape[-1]))
            image = image.masked_fill(hidden_pixels, 0)  # 0 * NaN is NaN: only overwriting keeps it out
        return self.encode(image, visible, count)

    @abstractmethod
    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Does the work of `forward` on checked input, whose hidden pixels are zero if `overwrites_hidden`."""

    @staticmethod
    def upsample(visible: Tensor, size: tuple[int, int]) -> Tensor:
        """Repeats every cell over its pixels: (B, gh, gw) -> (B, 1, H, W)."""
        rows, columns = size[0] // visible.shape[1], size[1] // visible.shape[2]
        return visible[:, None].repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)

    def _check(self, image: Tensor, visible: Tensor | None) -> None:
        expected = (self.spec.in_chans, *self.spec.image_size)
        if image.ndim != 4 or tuple(image.shape[1:]) != expected:
            raise ValueError(
                f"this encoder takes images (B, {', '.join(map(str, expected))}), not {tuple(image.shape)}"
            )
        if visible is None:
            return
        if tuple(visible.shape) != (image.shape[0], *self.grid()):
            raise ValueError(
                f"visible must be {(image.shape[0], *self.grid())}, one value a cell, not {tuple(visible.shape)}"
            )
        if visible.dtype != torch.bool and not visible.is_floating_point():
            raise ValueError(f"visible must be boolean, or a float gate, not {visible.dtype}")


def check_divisible(image_size: tuple[int, int], patch_size: int) -> None:
    """Refuses an image that is not a whole number of cells, naming the nearest size that is.

    Raises:
        ValueError: with the nearest size.
    """
    if any(side < 1 or side % patch_size for side in image_size):
        nearest = [max(patch_size, round(side / patch_size) * patch_size) for side in image_size]
        raise ValueError(
            f"image size {image_size[0]}x{image_size[1]} is not divisible by the patch size {patch_size}; "
            f"the nearest that is: {nearest[0]}x{nearest[1]}"
        )
