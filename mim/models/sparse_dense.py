"""Masked-dense layers: everything is computed, and what is hidden is set to zero before anything mixes positions."""

import torch
import torch.nn.functional as F
from timm.layers import EcaModule, SEModule
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm_act import BatchNormAct2d
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.features import at_resolution
from mim.models.sparse import CHANNEL_GATES, WINDOWED
from mim.models.sparse_cells import wide


class DenseMask:
    """The mask of a batch at every resolution, and layers under it.

    Args:
        mask: (B, gh, gw) float, 1 = visible.
        several: whether every image is known to show something, and there are several: then a batch norm need not ask
            whether there is more than one visible position.
    """

    def __init__(self, mask: Tensor, several: bool = False) -> None:
        self.mask = mask
        self.several = several
        self._pyramid: dict[tuple[int, int], Tensor] = {}

    def at(self, x: Tensor) -> Tensor:
        """The mask at the resolution of (B, C, h, w): (B, 1, h, w)."""
        size = (x.shape[2], x.shape[3])
        if size not in self._pyramid:
            self._pyramid[size] = at_resolution(self.mask, size)
        return self._pyramid[size]

    def hide(self, x: Tensor) -> Tensor:
        """Sets hidden positions of (B, C, h, w) to zero."""
        return x * self.at(x).to(x.dtype)

    def mean(self, x: Tensor) -> Tensor:
        """Mean over visible positions, (B, C, h, w) -> (B, C, 1, 1), at least float32."""
        weight = self.at(x)
        return (wide(x) * weight).sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp(min=1e-6)

    def run(self, module: nn.Module, x: Tensor) -> Tensor:
        """Runs a layer that `mim.models.sparse` knows."""
        if isinstance(module, nn.BatchNorm2d):
            return self._batch_norm(module, x)
        if isinstance(module, CHANNEL_GATES):
            return x * channel_gate(module, self.mean(x)).to(x.dtype)
        if isinstance(module, GlobalResponseNorm):
            if module.channel_dim == -1:
                return module(self.hide(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # type: ignore[no-any-return]
            return module(self.hide(x))  # type: ignore[no-any-return]
        if isinstance(module, WINDOWED) and getattr(module, "kernel_size", None) != (1, 1):
            return module(self.hide(x))  # type: ignore[no-any-return]
        return module(x)  # type: ignore[no-any-return]

    def _batch_norm(self, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
        if not norm.training and norm.running_mean is not None:
            return norm(x)  # type: ignore[no-any-return]
        output = masked_batch_norm(norm, x, (self.at(x) > 0).float(), self.several)
        return norm.act(norm.drop(output)) if isinstance(norm, BatchNormAct2d) else output


def masked_batch_norm(norm: nn.BatchNorm2d, x: Tensor, weight: Tensor, several: bool) -> Tensor:
    """Batch norm whose statistics are of visible positions only.

    Args:
        norm: the layer; its running statistics are updated as by its own forward.
        x: (B, C, h, w).
        weight: (B, 1, h, w), 1 = visible, 0 = hidden.
        several: whether it is known that more than one position is visible.

    Returns:
        (B, C, h, w); arbitrary where hidden.

    Raises:
        MimError: there is only one visible position, of which no deviation can be taken.
    """
    momentum = _count_batch(norm)
    if x.device.type == "cpu":  # nothing waits here, and picking the visible rows out is several times as quick
        return _batch_norm_of_rows(norm, x, weight[:, 0] > 0, momentum)
    values = wide(x)
    number = weight.sum()
    if not several and number < 2:
        raise one_position()
    mean = (values * weight).sum((0, 2, 3)) / number  # (C,)
    centred = (values - mean[:, None, None]) * weight
    variance = centred.square().sum((0, 2, 3)) / number
    if momentum and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            unbiased = variance * number / (number - 1)
            # .data, for torch's own batch norm keeps these for its backward pass without needing them: a network that
            # is run twice before that, once in each form, would be refused
            norm.running_mean.data.lerp_(mean.to(norm.running_mean.dtype), momentum)
            norm.running_var.data.lerp_(unbiased.to(norm.running_var.dtype), momentum)
    return _affine(norm, centred * (variance + norm.eps).rsqrt()[:, None, None]).to(x.dtype)


def _count_batch(norm: nn.BatchNorm2d) -> float:
    """Counts a batch, and says how far running statistics follow it; 0 where they do not."""
    if not norm.training or not norm.track_running_stats or norm.num_batches_tracked is None:
        return 0.0
    norm.num_batches_tracked.add_(1)
    return 1.0 / float(norm.num_batches_tracked) if norm.momentum is None else float(norm.momentum)


def _batch_norm_of_rows(norm: nn.BatchNorm2d, x: Tensor, visible: Tensor, momentum: float) -> Tensor:
    """The same by torch's own batch norm on the visible positions: (B, C, h, w), zero where hidden."""
    rows = x.movedim(1, -1)[visible]  # (visible positions, C)
    if len(rows) < 2:
        raise one_position()
    running = (norm.running_mean, norm.running_var) if momentum else (None, None)
    rows = F.batch_norm(rows, *running, norm.weight, norm.bias, True, momentum, norm.eps)
    output = rows.new_zeros(*visible.shape, x.shape[1])
    output[visible] = rows
    return output.movedim(-1, 1)


def _affine(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    if not norm.affine:
        return x
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]


def one_position() -> MimError:
    """What is said where a batch norm has nothing to take a deviation of."""
    return MimError("a batch norm met one visible position only: raise training.batch_size or input.image_size")


def channel_gate(module: nn.Module, mean: Tensor) -> Tensor:
    """What squeeze-and-excitation and its kin multiply channels by.

    Args:
        module: one of `CHANNEL_GATES`.
        mean: (B, C, 1, 1) over visible positions.

    Returns:
        (B, C, 1, 1).
    """
    if isinstance(module, SqueezeExcite):
        return module.gate(module.conv_expand(module.act1(module.conv_reduce(mean))))  # type: ignore[no-any-return]
    if isinstance(module, SEModule):
        return module.gate(module.fc2(module.act(module.bn(module.fc1(mean)))))  # type: ignore[no-any-return]
    assert isinstance(module, EcaModule)
    weighed = module.conv(mean.flatten(1)[:, None])  # (B, 1, C)
    if module.conv2 is not None:
        weighed = module.conv2(module.act(weighed))
    return module.gate(weighed).view_as(mean)  # type: ignore[no-any-return]
