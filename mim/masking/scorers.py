"""What scores cells, or pixels, in a learned masker: a small CNN, or a head on tokens that stay as they are."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

COARSEST = 16  # side in pixels of a position of the CNN's last level, however small the cells are


class CnnScorer(nn.Module):
    """A small CNN over the image.

    For cells smaller than 16 pixels it goes down to these and, summed with what it met on the way (Lin et al., Feature
    Pyramid Networks, CVPR 2017), back up: a lesion is not judged by its own pixels alone.

    Args:
        cell: side of what gets one score, in pixels.
        in_chans: channels of the image.
        width: channels of the first layer; they double with each halving of the resolution, up to four times.

    Raises:
        ValueError: if the cell is not a power of two, or the width no multiple of 4.
    """

    def __init__(self, cell: int, in_chans: int = 1, width: int = 16) -> None:
        super().__init__()
        halvings = int(math.log2(cell))
        if 2**halvings != cell:
            raise ValueError(f"the learned masker needs a patch size that is a power of two, not {cell}")
        if width % 4:
            raise ValueError(f"the learned masker's width must be a multiple of 4, not {width}")
        deepest = max(halvings, int(math.log2(COARSEST)))
        channels = [in_chans, *(width * 2 ** min(level, 2) for level in range(deepest))]
        self.stem = None
        if cell == 1:  # a pixel alone says little
            channels[0] = width
            self.stem = nn.Sequential(nn.Conv2d(in_chans, width, 3, padding=1), nn.GELU())
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(fewer, more, 3, stride=2, padding=1), nn.GroupNorm(4, more), nn.GELU())
            for fewer, more in pairwise(channels)
        )
        self.middle = nn.Sequential(nn.Conv2d(channels[-1], channels[-1], 3, padding=1), nn.GELU())
        # from the coarsest level up to that of the cells
        self.up = nn.ModuleList(
            nn.Conv2d(channels[level + 1], channels[level], 1) for level in range(halvings, deepest)
        )
        self.score = new_score(channels[halvings])

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) with pixels in [0, 1] -> (B, H / cell, W / cell)."""
        x = image - image.mean(dim=(1, 2, 3), keepdim=True)
        if self.stem is not None:
            x = self.stem(x)
        met = [x]
        for level in self.down:
            x = level(x)
            met.append(x)
        x = self.middle(x)
        first = len(self.down) - len(self.up)
        for number in reversed(range(len(self.up))):
            finer = met[first + number]
            x = finer + self.up[number](F.interpolate(x, finer.shape[-2:], mode="bilinear", align_corners=False))
            x = F.gelu(x)
        return self.score(x).squeeze(1)  # type: ignore[no-any-return]


class TokenScorer(nn.Module):
    """A head on the tokens that another network, which stays as it is, makes of the image.

    Args:
        tokens: gives (B, D, gh, gw) from an image with pixels in [0, 1]. Where it is a module it becomes a part of this
            one, for a masker is of no use without it; it must see to it that its weights are not trained and that it
            stays in evaluation mode.
        channels: D.
        grid: rows and columns of the scores; where the tokens are of another grid they are interpolated.
        width: channels between the two layers of the head.
    """

    def __init__(
        self, tokens: Callable[[Tensor], Tensor], channels: int, grid: tuple[int, int], width: int = 64
    ) -> None:
        super().__init__()
        self.tokens = tokens
        self.grid = grid
        self.head = nn.Sequential(
            nn.GroupNorm(1, channels), nn.Conv2d(channels, width, 1), nn.GELU(), nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
        )  # fmt: skip
        self.score = new_score(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) with pixels in [0, 1] -> (B, gh, gw)."""
        # torch 2.11 dies in the backward pass of a group norm whose input is channels-last and has no gradient
        features = self.head(self.tokens(image).detach().float().contiguous())
        scores = self.score(features)
        if tuple(scores.shape[-2:]) != self.grid:
            scores = F.interpolate(scores, self.grid, mode="bilinear", align_corners=False)
        return scores.squeeze(1)  # type: ignore[no-any-return]


def new_score(channels: int) -> nn.Conv2d:
    """The last layer: odds that differ from cell to cell at once.

    From nearly equal ones the ranking takes hundreds of steps to form.
    """
    score = nn.Conv2d(channels, 1, 1)
    nn.init.normal_(score.weight, std=0.2)
    return score
