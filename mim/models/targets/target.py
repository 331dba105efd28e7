"""The contract that every target keeps."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Target(nn.Module, ABC):
    """Something that is known of every cell of an image, and that the decoder must find for the hidden ones.

    Attributes:
        name: of the part of the loss, logged as `loss_<name>`.
        size: P, numbers for one cell.
        fixed: whether it is a function of the image alone, the same during the whole run, as that of a teacher is not.
    """

    name: str
    size: int
    fixed: bool = True

    @abstractmethod
    def forward(self, image: Tensor) -> Tensor:
        """What is right, without gradient.

        Args:
            image: (B, C, H, W), normalised, whole: nothing is hidden in it.

        Returns:
            (B, gh * gw, P), cells row-major.
        """

    def error(self, predicted: Tensor, right: Tensor) -> Tensor:
        """How far off each cell is: the mean squared error, unless a target has its own.

        Args:
            predicted: (B, M, P), of some cells.
            right: (B, M, P), of the same cells.

        Returns:
            (B, M), float32.
        """
        return (predicted.float() - right.float()).square().mean(dim=-1)

    def to_cells(self, predicted: Tensor, image: Tensor) -> Tensor | None:
        """Turns predictions into pixels to look at, or gives None where they are not pixels.

        Args:
            predicted: (B, gh * gw, P).
            image: (B, C, H, W), normalised.

        Returns:
            (B, gh * gw, patch_size ** 2 * C), normalised pixels as `patchify` lays them.
        """
        return None
