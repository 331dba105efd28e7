"""What a slow copy of the encoder makes of the whole image."""

import copy
import math
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from mim.errors import MimError
from mim.models.encoder import Encoder
from mim.models.features import Features, take_cells
from mim.models.targets.collapse import CollapseGuard
from mim.models.targets.target import Target


class LatentTarget(Target):
    """The embedding that a teacher has of each cell when it sees the whole image.

    The teacher is a moving average of the encoder that is trained, and starts equal to it. It is never trained, is
    always in eval mode and is not exported. The target is the LayerNorm (without weights) of its patch tokens, averaged
    over its last blocks (the target of Baevski et al., data2vec, ICML 2022); the error is smooth L1. Of an encoder that
    has maps instead of tokens of one width it is the LayerNorm over the channels of the coarsest map that is no coarser
    than the cells, averaged over each cell.

    Our interpretation of the masked deep embeddings of patches of Almalki et al. (IEEE Access, 2025).

    Args:
        encoder: the one that is trained; it is copied, not kept.
        decay: what the teacher keeps of itself at a step.
        schedule: `cosine` = the decay rises to 1 by the end (Grill et al., BYOL, 2020); `fixed` = it stays.
        blocks: how many of the last blocks are averaged; None = half of them. Encoders with maps take none.
        guard: what stops a run whose targets collapse; None = the default.

    Raises:
        MimError: the encoder has not so many blocks.
    """

    name = "latent"
    fixed = False

    def __init__(
        self,
        encoder: Encoder,
        decay: float = 0.996,
        schedule: Literal["cosine", "fixed"] = "cosine",
        blocks: int | None = None,
        guard: CollapseGuard | None = None,
    ) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(encoder).requires_grad_(False).eval()
        self.decay = decay
        self.schedule = schedule
        self.blocks = _count_blocks(encoder, blocks)
        self.guard = guard or CollapseGuard()
        self.size = encoder.width if self.blocks else self._count_channels()

    def train(self, mode: bool = True) -> Self:
        """Changes the mode of all but the teacher."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def forward(self, image: Tensor, index: Tensor | None = None) -> Tensor:
        """Gives (B, M, D). The whole image is looked at, whatever is asked for."""
        layers = self._layers(image)
        tokens = torch.zeros_like(layers[0], dtype=torch.float32)
        for layer in layers:
            tokens += F.layer_norm(layer.float(), layer.shape[-1:]) / len(layers)
        if self.training:
            self.guard.watch(tokens)
        return take_cells(tokens, index)

    def error(self, predicted: Tensor, right: Tensor) -> Tensor:
        """Smooth L1, mean over the dimensions: (B, M)."""
        return smooth_l1(predicted, right)

    def figures(self) -> dict[str, Tensor]:
        """Deviation and effective rank of the targets, as they were last measured."""
        if not self.training:
            return {}
        spread, rank = self.guard.now.clone()
        return {"latent_deviation": spread, "latent_rank": rank}

    @torch.no_grad()
    def after_step(self, encoder: Encoder, progress: float) -> None:
        """Lets the teacher follow the encoder, and judges whether its targets are still worth finding.

        Buffers, which are statistics of normalisation, are taken over as they are: they are averages already.

        Raises:
            MimError: the targets have collapsed.
        """
        decay = self.decay_at(progress)
        for mine, theirs in zip(self.teacher.parameters(), encoder.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for kept, given in zip(self.teacher.buffers(), encoder.buffers(), strict=True):
            kept.copy_(given)
        self.guard.after_step()

    def decay_at(self, progress: float) -> float:
        """What the teacher keeps of itself at a step that is so far into the training."""
        if self.schedule == "fixed":
            return self.decay
        return 1 - (1 - self.decay) * (1 + math.cos(math.pi * progress)) / 2

    def _layers(self, image: Tensor) -> list[Tensor]:
        """What is averaged, (B, gh * gw, D) each."""
        if not self.blocks:
            return [cell_vectors(self.teacher(image), self.teacher.grid())]
        layers: list[Tensor] = self.teacher.backbone.forward_intermediates(
            image, indices=self.blocks, output_fmt="NLC", intermediates_only=True
        )
        return layers

    @torch.no_grad()
    def _count_channels(self) -> int:
        image = torch.zeros(1, self.teacher.spec.in_chans, *self.teacher.image_size)
        return self._layers(image)[0].shape[-1]


def smooth_l1(predicted: Tensor, right: Tensor) -> Tensor:
    """Huber's loss with its corner at 1, mean over the last dimension: (B, M, D) -> (B, M), float32."""
    return F.smooth_l1_loss(predicted.float(), right.float(), reduction="none").mean(dim=-1)


def cell_vectors(features: Features, grid: tuple[int, int]) -> Tensor:
    """Takes one vector a cell from maps: of the coarsest that is no coarser than the grid, averaged over each cell.

    Returns:
        (B, gh * gw, C), row-major.
    """
    fitting = [one for one in features.maps if one.shape[-2] >= grid[0] and one.shape[-1] >= grid[1]]
    chosen = fitting[-1] if fitting else features.maps[0]
    return F.adaptive_avg_pool2d(chosen, grid).flatten(2).transpose(1, 2)


def _count_blocks(encoder: Encoder, asked: int | None) -> int:
    """How many of the last blocks count; 0 where an encoder has maps instead of tokens of one width."""
    blocks = getattr(encoder.backbone, "blocks", None)
    if blocks is None or len(encoder.map_channels) > 1:
        if asked is not None:
            raise MimError(
                f"target.teacher_blocks={asked}: {encoder.spec.name} has maps and no row of blocks; leave it null"
            )
        return 0
    if asked is None:
        return max(len(blocks) // 2, 1)
    if not 1 <= asked <= len(blocks):
        raise MimError(f"target.teacher_blocks={asked}: {encoder.spec.name} has {len(blocks)} blocks")
    return asked
