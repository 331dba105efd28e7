"""What an encoder gives back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHT_FLOOR = 1e-6  # of a sum of weights that is divided by, and of a closed gate whose gradient must stay finite


@dataclass(frozen=True)
class Features:
    """An encoder's answer, the same for every family of network.

    Attributes:
        pooled: (B, D) mean over what is visible, after the backbone's final norm. Where hidden pixels are filled: what
            the plain network pools, which is not told of the mask.
        maps: feature maps, finest first, (B, C_i, H / s_i, W / s_i); hidden cells are zero.
        tokens: (B, N, D) what a token encoder kept, without class or register tokens; None for CNNs. Where hidden cells
            are dropped and images keep different numbers, the shorter ones are padded with zeros at the end. Where a
            mask token or a fill stands for hidden cells, all cells are here, and the hidden ones hold what the network
            makes of them.
        index: (B, N) place of each token on the row-major patch grid, -1 for padding; None for CNNs.
        even: whether every image kept exactly N tokens, so that there is no padding. What is said here need not be
            found out from `index`, for which a GPU would have to be waited for.
        prefix: (B, P, D) class and register tokens, after the backbone's final norm; None where there are none.
    """

    pooled: Tensor
    maps: Sequence[Tensor]
    tokens: Tensor | None = None
    index: Tensor | None = None
    even: bool = False
    prefix: Tensor | None = None


def at_resolution(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings a mask over the patch grid to the resolution of a feature map.

    Args:
        mask: (B, gh, gw) float.
        size: (h, w).

    Returns:
        (B, 1, h, w); a position that covers several cells is as visible as the most visible of them.
    """
    rows, columns = mask.shape[-2:]
    cells = mask[:, None]
    if any(max(pair) % min(pair) for pair in zip(size, (rows, columns), strict=True)):
        return F.adaptive_max_pool2d(cells, size)
    if size[0] >= rows:
        return cells.repeat_interleave(size[0] // rows, 2).repeat_interleave(size[1] // columns, 3)
    return F.max_pool2d(cells, (rows // size[0], columns // size[1]))


def scatter_tokens(tokens: Tensor, index: Tensor, canvas: Tensor) -> Tensor:
    """Lays tokens onto a canvas at their places; padding (index -1) is left out.

    Args:
        tokens: (B, N, D).
        index: (B, N) places in [0, L), or -1.
        canvas: (B, L, D) what stands where no token goes.

    Returns:
        (B, L, D), a new tensor.
    """
    length = canvas.shape[1]
    spare = canvas.new_zeros(canvas.shape[0], 1, canvas.shape[2])  # padding is written here and cut off
    places = torch.where(index < 0, length, index)[..., None].expand(-1, -1, tokens.shape[-1])
    return torch.cat([canvas, spare], dim=1).scatter(1, places, tokens.to(canvas.dtype))[:, :length]


def places(chosen: Tensor, count: int | None = None) -> tuple[Tensor, bool]:
    """Finds where the chosen cells of each image stand.

    Args:
        chosen: (B, L) bool.
        count: how many every image has, where that is known; nothing then waits for the device, and shapes are static.

    Returns:
        (B, N) places in grid order, N the most that an image has but at least 1, -1 for padding; and whether there is
        no padding.

    Raises:
        RuntimeError: an image has another number than `count`; on a GPU it may come later, with the step's result.
    """
    even = count is not None
    if count is not None:  # a wrong count would bring hidden cells in
        torch._assert_async((chosen.sum(dim=1) == count).all(), f"not every image has {count} chosen cells")
    counts = None
    if count is None:
        counts = chosen.sum(dim=1)
        count = max(int(counts.max()), 1)
        even = bool((counts == count).all())
    ramp = torch.arange(chosen.shape[1], 0, -1, device=chosen.device, dtype=torch.int32)  # earlier cells are larger
    index = (chosen * ramp).topk(count, dim=1).indices  # (B, N)
    if not even:
        assert counts is not None
        index = index.masked_fill(torch.arange(count, device=chosen.device) >= counts[:, None], -1)
    return index, even


def weighted_mean(tokens: Tensor, weight: Tensor) -> Tensor:
    """Mean over N of what is visible; with weights of 1 it is the plain mean, to the last bit.

    Args:
        tokens: (B, N, D).
        weight: (B, N), from 0 to 1.

    Returns:
        (B, D), zero where nothing is visible.
    """
    return (tokens * weight[..., None]).mean(dim=1) / weight.mean(dim=1, keepdim=True).clamp(min=WEIGHT_FLOOR)


def take_cells(cells: Tensor, index: Tensor | None) -> Tensor:
    """Takes some cells of each image.

    Args:
        cells: (B, gh * gw, P), row-major.
        index: (B, M) places, -1 for padding; None = all.

    Returns:
        (B, M, P), the first cell where there is padding.
    """
    if index is None:
        return cells
    return cells.gather(1, index.clamp(min=0)[..., None].expand(-1, -1, cells.shape[-1]))
