"""The contract that every target keeps."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mim.models.encoder import Encoder


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
    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """What is right. It is called without gradient.

        Args:
            image: (B, C, H, W), normalised, whole: nothing is hidden in it.
            index: (B, M) places of the cells that are asked for, -1 for padding; None = all of them, in their order.

        Returns:
            (B, M, P), float32; anything where there is padding. Where `index` is None, M = gh * gw, row-major.
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

    def figures(self) -> dict[str, Tensor]:
        """Scalars to log beside the loss of the batch that was just met, by name."""
        return {}

    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Hears that a step has changed the weights; a target with a teacher lets it follow.

        Args:
            encoder: the one that is trained.
            progress: share of the steps that were done before this one, in [0, 1].

        Raises:
            MimError: the target is no longer one to train for.
        """
        return
