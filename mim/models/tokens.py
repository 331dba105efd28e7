"""What the token encoders share: the mask token, and where tokens stand."""

import torch
from torch import Tensor, nn

GATE_FLOOR = 1e-9  # a millionth, summed over all hidden cells and blocks, could still be told from dropping


def new_mask_token(width: int) -> nn.Parameter:
    """A mask token to start from, (width,): noise like that of timm's other tokens."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(width), std=0.02))


def put_mask_token(cells: Tensor, visible: Tensor, mask_token: Tensor) -> Tensor:
    """Puts the mask token in place of hidden cells.

    Args:
        cells: (..., D) embedded cells.
        visible: (..., 1) bool, or a gate, by which the two are blended: exactly the cell at 1, the mask token at 0.
        mask_token: (D,).

    Returns:
        (..., D).
    """
    token = mask_token.to(cells.dtype)
    if visible.dtype == torch.bool:
        return torch.where(visible, cells, token)
    gate = visible.to(cells.dtype)
    return gate * cells + (1 - gate) * token


def all_places(grid: tuple[int, int], batch: int, device: torch.device) -> Tensor:
    """The places of all cells of a grid, (batch, rows * columns)."""
    return torch.arange(grid[0] * grid[1], device=device).expand(batch, -1)


def gate_bias(weight: Tensor) -> Tensor:
    """What is added to the logits of attention to a cell so that its weight there is multiplied by a gate, (B, N).

    A closed gate keeps `GATE_FLOOR`, so that its gradient is finite.
    """
    return torch.log(weight.float() * (1 - GATE_FLOOR) + GATE_FLOOR)


def padding_bias(index: Tensor, *, spare_first: bool = True) -> Tensor:
    """What is added to the logits of attention so that padding (index -1) is not attended to, (B, N).

    Args:
        index: (B, N).
        spare_first: leave the first place open to an image that has nothing but padding, so that it attends to that
            instead of to nothing at all; not needed where a class or register token is always there.
    """
    blocked = index < 0
    if spare_first:
        blocked[:, 0] &= ~blocked.all(dim=1)
    return torch.zeros(blocked.shape, device=index.device).masked_fill(blocked, -torch.inf)
