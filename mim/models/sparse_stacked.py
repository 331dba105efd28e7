"""Layers on stacked visible cells: nothing is computed for what is hidden."""

import torch
import torch.nn.functional as F
from timm.layers import BlurPool2d, Conv2dSame, DropPath
from timm.layers.grn import GlobalResponseNorm
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn

from mim.models.sparse import CHANNEL_GATES, WINDOWED
from mim.models.sparse_cells import VisibleCells, Window, wide
from mim.models.sparse_dense import channel_gate, one_position

# a convolution to so few positions of a cell is quicker as a product of matrices
FEW_POSITIONS = 16


def run_stacked(module: nn.Module, x: Tensor, cells: VisibleCells) -> Tensor | None:
    """Runs a layer that `mim.models.sparse` knows on visible cells.

    Args:
        module: the layer.
        x: (n, C, h, w), or (n, h, w, C) where the network has turned it so.
        cells: of the batch.

    Returns:
        What the layer makes of them; None where it can only be had from whole feature maps.
    """
    if isinstance(module, WINDOWED):
        return _windowed(module, x, cells)
    if isinstance(module, nn.BatchNorm2d) and module.training and x.shape[0] * x.shape[2] * x.shape[3] < 2:
        raise one_position()
    if isinstance(module, CHANNEL_GATES):
        return x * cells.of_image(channel_gate(module, cells.mean_by_image(x)).to(x.dtype))
    if isinstance(module, GlobalResponseNorm):
        return _global_response_norm(module, x, cells)
    if isinstance(module, DropPath):
        # the same draw as on whole images: an image keeps a branch or loses it
        return x * cells.of_image(module(x.new_ones(cells.batch, 1, 1, 1)))
    return module(x)  # type: ignore[no-any-return]


def window_of(module: nn.Module, size: tuple[int, int]) -> Window | None:
    """What a layer reads of a feature map of `size`; None for what is not so simple."""
    if isinstance(module, BlurPool2d):
        left, right, top, bottom = module.padding
        kernel, stride = (module.filt_size,) * 2, (module.stride,) * 2
        reflect = module.pad_mode == "reflect"
        known = reflect and all(side > module.filt_size for side in size)
        return Window(kernel, stride, (1, 1), (top, left), (bottom, right), reflect) if known else None
    kernel, stride, dilation = (_pair(getattr(module, key, 1)) for key in ("kernel_size", "stride", "dilation"))
    if isinstance(module, Conv2dSame):
        left, right, top, bottom = pad_same_arg(list(size), list(kernel), list(stride), list(dilation))
        return Window(kernel, stride, dilation, (top, left), (bottom, right))
    padding = getattr(module, "padding", 0)
    if isinstance(padding, str):
        return None
    window = Window(kernel, stride, dilation, _pair(padding), _pair(padding))
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and module.ceil_mode:
        whole = not any(window.before) and not any(size[i] % stride[i] for i in range(2))
        return window if whole and kernel == stride else None
    return window


def stem(module: nn.Module, image: Tensor, cells: VisibleCells) -> Tensor | None:
    """Runs a first convolution on a whole image that is zero where hidden: (B, C, H, W) -> (n, C', h, w)."""
    size = (image.shape[2], image.shape[3])
    window = window_of(module, size) if isinstance(module, nn.Conv2d) else None
    if window is None or not window.fits((size[0] // cells.grid[0], size[1] // cells.grid[1]), cells.grid):
        return None
    assert isinstance(module, nn.Conv2d)
    return _convolve(cells.stack_windows(image, window), module, window)


def _windowed(module: nn.Module, x: Tensor, cells: VisibleCells) -> Tensor | None:
    cell = (x.shape[2], x.shape[3])
    size = (cell[0] * cells.grid[0], cell[1] * cells.grid[1])
    window = window_of(module, size)
    if window is None or not window.fits(cell, cells.grid):
        return None
    if window.keeps_all() or (window.stays_inside(cell) and not isinstance(module, nn.Conv2d)):
        return module(x)  # type: ignore[no-any-return]
    if isinstance(module, nn.AvgPool2d):
        return None
    if isinstance(module, nn.Conv2d) and module.groups == 1 and _few(window, cell):
        return _multiply(module, x, window, cells)
    if window.stays_inside(cell):
        return _convolve(x, module, window)
    extent = window.extent(cell)
    if cells.number * extent[0] * extent[1] > cells.batch * size[0] * size[1]:
        return None  # halos are more than what is hidden
    if isinstance(module, nn.MaxPool2d):
        fetched = cells.fetch(x, window, outside=-torch.inf)
        return F.max_pool2d(fetched, window.kernel, window.stride, 0, window.dilation)
    return _convolve(cells.fetch(x, window), module, window)


def _few(window: Window, cell: tuple[int, int]) -> bool:
    return cell[0] // window.stride[0] * (cell[1] // window.stride[1]) <= FEW_POSITIONS


def _convolve(fetched: Tensor, module: nn.Module, window: Window) -> Tensor:
    if isinstance(module, BlurPool2d):
        channels = fetched.shape[1]
        weight = module.filt.expand(channels, 1, *window.kernel)
        return F.conv2d(fetched, weight, stride=window.stride, groups=channels)
    assert isinstance(module, nn.Conv2d)
    return F.conv2d(fetched, module.weight, module.bias, window.stride, 0, window.dilation, module.groups)


def _multiply(module: nn.Conv2d, x: Tensor, window: Window, cells: VisibleCells) -> Tensor:
    h, w = x.shape[2] // window.stride[0], x.shape[3] // window.stride[1]
    weight = module.weight.to(x.dtype).permute(0, 2, 3, 1).reshape(module.out_channels, -1)  # (C', positions * C)
    rows = F.linear(cells.fetch_taps(x, window), weight, module.bias)
    return rows.view(cells.number, h, w, module.out_channels).permute(0, 3, 1, 2)


def _global_response_norm(norm: GlobalResponseNorm, x: Tensor, cells: VisibleCells) -> Tensor:
    """Woo et al., ConvNeXt V2, equations 1 to 3, the norm of a channel taken over visible positions of an image."""
    squares = cells.sum_by_image(wide(x).square().sum(norm.spatial_dim))  # (B, C)
    alive = squares > 0  # the root has no slope at zero
    response = torch.where(alive, squares, 1).sqrt() * alive
    weight = norm.weight * response / (response.mean(1, keepdim=True) + norm.eps)  # (B, C)
    factor = cells.of_image(1 + weight).to(x.dtype).view(cells.number, *norm.wb_shape[1:])
    return torch.addcmul(norm.bias.to(x.dtype).view(norm.wb_shape), x, factor)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
