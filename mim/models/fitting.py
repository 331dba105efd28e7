"""Weights fitted to another number of channels and to another size of image."""

from math import isqrt
from typing import Any

from timm.layers import resample_abs_pos_embed
from timm.models import adapt_input_conv
from timm.models.hiera import Hiera
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def adapt_channels(state: dict[str, Tensor], own: dict[str, Tensor], backbone: nn.Module) -> list[str]:
    """Fits the first convolution: a gray film gives what it gave as a picture of three equal channels.

    Args:
        state: what is to be loaded; changed in place.
        own: what the model has.
        backbone: the timm model, which knows its first convolution.

    Returns:
        What was adapted, in words.

    Raises:
        ValueError: the channels are neither of gray nor of colour pictures.
    """
    described: Any = getattr(backbone, "pretrained_cfg", None) or {}
    first = described.get("first_conv") or ()
    adapted = []
    for layer in (first,) if isinstance(first, str) else tuple(first):
        name = f"{layer}.weight"
        if name not in state or name not in own or state[name].ndim != 4 or state[name].shape[1] == own[name].shape[1]:
            continue
        there, here = state[name].shape[1], own[name].shape[1]
        if there == 1:
            state[name] = state[name].repeat(1, here, 1, 1) / here
        elif here == 1:
            state[name] = adapt_input_conv(1, state[name], base_chans=there)
        else:
            raise ValueError(f"{name} takes {there} channels there and {here} here, and only 1 can be adapted")
        adapted.append(f"{layer} from {there} to {here} channels")
    return adapted


def resize_positions(
    state: dict[str, Tensor], own: dict[str, Tensor], backbone: nn.Module, image_size: tuple[int, int] = (1, 1)
) -> list[str]:
    """Resamples absolute positions from the grid of a file to the grid of the model.

    Args:
        state: what is to be loaded; changed in place.
        own: what the model has.
        backbone: the timm model.
        image_size: height and width of the images that the file's network took; only their ratio is read. A square
            unless the file says otherwise.

    Returns:
        What was adapted, in words.

    Raises:
        ValueError: the positions in the file are not those of such a grid.
    """
    name = "pos_embed"
    grid, prefix = _grid(backbone)
    if grid is None or name not in state or name not in own or state[name].shape[-1] != own[name].shape[-1]:
        return []
    cells = state[name].shape[1] - prefix
    rows, columns = (isqrt(max(cells, 0) * image_size[i] // image_size[1 - i]) for i in range(2))
    if rows * columns != cells:
        if cells == grid[0] * grid[1]:
            return []
        raise ValueError(f"{name} has {cells} cells there, which are no square, and {grid[0]}x{grid[1]} here")
    if (rows, columns) == grid:
        return []
    state[name] = resample_abs_pos_embed(
        state[name], new_size=list(grid), old_size=[rows, columns], num_prefix_tokens=prefix
    )
    return [f"{name} from {rows}x{columns} to {grid[0]}x{grid[1]} cells"]


def _grid(backbone: Any) -> tuple[tuple[int, int] | None, int]:
    """Rows and columns of the positions, and how many tokens stand before them; None where there are none."""
    if isinstance(backbone, VisionTransformer):
        rows, columns = backbone.patch_embed.grid_size
        return (int(rows), int(columns)), 0 if backbone.no_embed_class else int(backbone.num_prefix_tokens)
    if isinstance(backbone, Hiera):
        rows, columns = backbone.tokens_spatial_shape
        return (int(rows), int(columns)), 0
    return None, 0
