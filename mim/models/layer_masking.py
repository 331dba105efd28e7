"""Layer masking: hidden positions are filled from their visible neighbours before every convolution.

Balasubramanian and Feizi, Towards Improved Input Masking for Convolutional Neural Networks, ICCV 2023. Neither the
colour nor the shape of the mask is seen by the network. Their loop fills ring after ring around what is visible, as
many as the kernel is wide, and multiplies by the mask after every layer. Most of that is never read: here a plan, made
once from the traced network, says for each convolution how many rings are read by an output that counts, and for each
layer whether hidden positions must be zero before it. What counts is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import AvgPool2dSame, Conv2dSame, pad_same
from timm.layers.grn import GlobalResponseNorm
from timm.layers.pool2d_same import MaxPool2dSame
from torch import Tensor, fx, nn

from mim.models.mask_windows import Key, MaskShape, Reach, Window, rings_read

DENSITY_FLOOR = 1e-5  # added to the number of visible neighbours, as published
SHARE_FLOOR = 1e-8  # added to the visible share of a map under a global mean, as published
KEEPS_ZERO = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.ELU, nn.Dropout)
Masks = Callable[[MaskShape], Tensor]


@dataclass(frozen=True)
class NodePlan:
    """What is known of a node of the traced network before any mask is.

    Attributes:
        mask: of its output; None where that has no positions, as behind a global mean.
        clean: whether its output is zero at hidden positions.
        rings: how many rings around the visible positions its input must be filled in (convolutions).
        last: whether channels are the last dimension of its output.
    """

    mask: MaskShape | None
    clean: bool
    rings: int = 0
    last: bool = False


@dataclass
class _Draft:
    masks: dict[fx.Node, MaskShape | None] = field(default_factory=dict)
    clean: dict[fx.Node, bool] = field(default_factory=dict)
    last: dict[fx.Node, bool] = field(default_factory=dict)


def plan_masks(
    backbone: nn.Module, graph: fx.Graph, stages: set[str], patch_size: int, *, batch_statistics: bool
) -> dict[str, NodePlan]:
    """Plans a traced network.

    Args:
        backbone: the traced model.
        graph: of its `forward_features`.
        stages: names of the nodes whose outputs are wanted whole.
        patch_size: side of a cell in pixels.
        batch_statistics: whether batch norms take statistics of the batch, for which all positions count.

    Returns:
        A plan for each node, by its name.
    """
    modules = dict(backbone.named_modules())
    draft = _Draft()
    for node in graph.nodes:
        _plan_output(node, modules, draft, patch_size, batch_statistics)
    used: dict[fx.Node, MaskShape] = {}
    plans = {}
    for node in reversed(graph.nodes):
        own = draft.masks[node]
        module = modules[node.target] if node.op == "call_module" else None
        wanted = own if node.name in stages or node not in used else used[node]
        rings = 0
        if own is not None and wanted is not None and isinstance(module, nn.Conv2d) and is_spatial(module):
            given = draft.masks[_first(node)]
            assert given is not None
            most = max(_pair(module.kernel_size))  # as many as the published loop fills
            same = isinstance(module, Conv2dSame)
            rings = most if same else rings_read(given, wanted, own, reach_of(module), most)
        plans[node.name] = NodePlan(own, draft.clean[node], rings, draft.last[node])
        through = _passes_demand(node, module, batch_statistics)
        for earlier in node.all_input_nodes:
            if (mask := draft.masks[earlier]) is not None:
                passed = wanted if through and wanted is not None and wanted.within(mask) else mask
                used[earlier] = _union(used.get(earlier), passed, mask)
    return plans


def _first(node: fx.Node) -> fx.Node:
    first = node.args[0]
    assert isinstance(first, fx.Node)
    return first


def _union(known: MaskShape | None, more: MaskShape, all_of_it: MaskShape) -> MaskShape:
    if known is None or known.within(more):
        return more
    return known if more.within(known) else all_of_it


def _plan_output(
    node: fx.Node, modules: dict[str, nn.Module], draft: _Draft, patch_size: int, batch_statistics: bool
) -> None:
    """Finds mask, cleanness and layout of a node's output from those of its inputs."""
    if node.op == "placeholder":
        draft.masks[node], draft.clean[node], draft.last[node] = MaskShape.of_cells(patch_size), True, False
        return
    given = [earlier for earlier in node.all_input_nodes if draft.masks[earlier] is not None]
    if not given or (node.op == "call_method" and node.target == "mean"):
        draft.masks[node], draft.clean[node], draft.last[node] = None, True, False
        return
    mask = draft.masks[given[0]]
    assert mask is not None
    clean = all(draft.clean[earlier] for earlier in given)
    last = draft.last[given[0]]
    if node.op == "call_module":
        module = modules[str(node.target)]
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            mask = mask_behind(mask, module)
        pool = isinstance(module, nn.MaxPool2d | nn.AvgPool2d)
        clean = pool or (clean and isinstance(module, KEEPS_ZERO))
    elif node.op == "call_method" and node.target == "permute":
        last = tuple(node.args[1:]) == (0, 2, 3, 1) or (not last and node.args[1:] == ((0, 2, 3, 1),))
    else:
        for other in given[1:]:
            second = draft.masks[other]
            assert second is not None
            # a sum of two clean maps is not clean where only one of them is visible
            clean = clean and mask.key == second.key
            mask = mask.times(second)
        # x * gate is as clean as x; the gate of squeeze-and-excite has no positions
    draft.masks[node], draft.clean[node], draft.last[node] = mask, clean, last


def mask_behind(mask: MaskShape, module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> MaskShape:
    """The mask of what a convolution or pool gives: the max-pool of the mask of its input.

    Raises:
        ValueError: its kind, stride or padding cannot be followed.
    """
    if isinstance(module, Conv2dSame):  # pads as TensorFlow does, by the size of what it is given
        key = ("same", mask.key, _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation))
        return MaskShape(key, Window(key, 1, 0, 0))
    if isinstance(module, AvgPool2dSame | MaxPool2dSame):
        raise ValueError(f"cells cannot be hidden by 'layer' in a {type(module).__name__}")
    return mask.pooled(reach_of(module), pool_of(module))


def _passes_demand(node: fx.Node, module: nn.Module | None, batch_statistics: bool) -> bool:
    """Whether an output of this node at a position depends on its inputs at that position alone."""
    if node.op == "output":
        return False
    if module is None:
        return node.target not in ("mean", "reshape")
    if isinstance(module, nn.BatchNorm2d):
        return not batch_statistics
    if isinstance(module, nn.Conv2d):
        return not is_spatial(module) and module.stride == (1, 1)
    return not isinstance(module, nn.MaxPool2d | nn.AvgPool2d | GlobalResponseNorm)


def is_spatial(module: nn.Conv2d) -> bool:
    """Whether a convolution mixes positions."""
    return module.kernel_size != (1, 1)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def pool_of(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Key:
    """Kernel, stride, padding and dilation of a layer, for rows and columns.

    Raises:
        ValueError: its padding depends on the size of its input.
    """
    if isinstance(module.padding, str):
        raise ValueError(f"padding {module.padding!r} cannot be followed by a mask")
    dilation = getattr(module, "dilation", 1)
    return (_pair(module.kernel_size), _pair(module.stride), _pair(module.padding), _pair(dilation))


def reach_of(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> Reach:
    """What a layer reads, taking the wider of rows and columns."""
    kernel, stride, padding, dilation = pool_of(module)
    if stride[0] != stride[1]:
        raise ValueError(f"stride {stride[0]}x{stride[1]} cannot be followed by a mask")
    high = max(d * (k - 1) - p for k, p, d in zip(kernel, padding, dilation, strict=True))
    return Reach(stride[0], -max(padding), high)


class MaskPyramid:
    """The masks of one batch at every resolution and reach, made when they are first asked for.

    Args:
        visible: (B, gh, gw) float, 1 = visible.
        patch_size: side of a cell in pixels.
    """

    def __init__(self, visible: Tensor, patch_size: int) -> None:
        self.visible = visible
        self.patch_size = patch_size
        self._masks: dict[Key, Tensor] = {}
        self._fills: dict[tuple[Key, int], Tensor] = {}

    def mask(self, key: Key) -> Tensor:
        """The mask that a key describes, (B, 1, h, w)."""
        if key not in self._masks:
            self._masks[key] = self._make(key)
        return self._masks[key]

    def fill(self, x: Tensor, key: Key, rings: int) -> Tensor:
        """Fills the hidden positions next to visible ones with the mean of these, ring after ring, without gradient.

        Args:
            x: (B, C, h, w), zero at hidden positions.
            key: of its mask.
            rings: how many.
        """
        if not rings:
            return x
        with torch.no_grad():
            filled = x
            for ring in range(rings):
                filled = torch.addcmul(filled, box_sum(filled), self._ring_weight(key, ring).to(x.dtype))
            added = filled - x if x.requires_grad else None
        return filled if added is None else x + added

    def _make(self, key: Key) -> Tensor:
        if key[0] == "cells":
            repeat = self.patch_size // key[1]
            return self.visible[:, None].repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
        if key[0] == "product":
            return self.mask(key[1]) * self.mask(key[2])
        if key[0] == "same":
            _, parent, kernel, stride, dilation = key
            return F.max_pool2d(pad_same(self.mask(parent), kernel, stride, dilation), kernel, stride, 0, dilation)
        _, parent, kernel, stride, padding, dilation = key
        return F.max_pool2d(self.mask(parent), kernel, stride, padding, dilation)

    def _ring_weight(self, key: Key, ring: int) -> Tensor:
        """What the sum over 3 x 3 positions is multiplied by to fill a ring: zero at what is known already."""
        if (key, ring) not in self._fills:
            known = self.mask(key)
            for _ in range(ring):
                known = (known + box_sum(known)).clamp(max=1)
            self._fills[key, ring] = (1 - known) / (box_sum(known) + DENSITY_FLOOR)
        return self._fills[key, ring]


def box_sum(x: Tensor) -> Tensor:
    """Sum over 3 x 3 positions, zeros beyond the border, for (B, C, h, w) of any type and memory format."""
    if x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] > 1:
        ones = x.new_ones(x.shape[1], 1, 3, 3)
        return F.conv2d(x, ones, padding=1, groups=x.shape[1])
    # pools and grouped convolutions of this layout take ten times as long on a CPU as shifted sums
    rows = x.clone()
    rows[..., 1:] += x[..., :-1]
    rows[..., :-1] += x[..., 1:]
    total = rows.clone()
    total[..., 1:, :] += rows[..., :-1, :]
    total[..., :-1, :] += rows[..., 1:, :]
    return total


class LayerMaskedRun(fx.Interpreter):
    """One forward pass of a traced backbone under one mask.

    Args:
        backbone: the traced model.
        graph: its graph.
        plans: from `plan_masks`.
        stage_nodes: nodes whose outputs are kept in `stage_outputs`, and under what name.
        pyramid: the masks of the batch.
    """

    def __init__(
        self,
        backbone: nn.Module,
        graph: fx.Graph,
        plans: dict[str, NodePlan],
        stage_nodes: dict[str, str],
        pyramid: MaskPyramid,
    ) -> None:
        super().__init__(backbone, graph=graph)
        self.extra_traceback = False  # else the node is written into messages that a user reads
        self.plans = plans
        self.stage_nodes = stage_nodes
        self.pyramid = pyramid
        self.stage_outputs: dict[str, Tensor] = {}
        self.final: MaskShape | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node, its input prepared as planned; keeps its output, hidden positions zero, if it is a stage's."""
        output = self._layer(n)
        if n.name in self.stage_nodes:
            output = self._hide(output, self.plans[n.name])
            self.stage_outputs[self.stage_nodes[n.name]] = output
        if n.op == "output":
            self.final = self.plans[n.all_input_nodes[0].name].mask
        return output

    def mask(self, shape: MaskShape) -> Tensor:
        """A mask of this batch, (B, 1, h, w)."""
        return self.pyramid.mask(shape.key)

    def _hide(self, x: Tensor, plan: NodePlan) -> Tensor:
        if plan.mask is None or plan.clean:
            return x
        mask = self.mask(plan.mask).to(x.dtype)
        return x * (mask.permute(0, 2, 3, 1) if plan.last else mask)

    def _layer(self, n: fx.Node) -> Any:
        earlier = n.all_input_nodes[0] if n.all_input_nodes else None
        given = None if earlier is None else self.plans[earlier.name]
        if earlier is None or given is None or given.mask is None:
            return super().run_node(n)
        if n.op == "call_method" and n.target == "mean":
            return self._visible_mean(n, self._hide(self.env[earlier], given), given.mask)
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if isinstance(module, nn.Conv2d) and is_spatial(module):
            rings = self.plans[n.name].rings
            x = self.env[earlier]
            # without rings nothing hidden is read by an output that counts
            return module(self.pyramid.fill(self._hide(x, given), given.mask.key, rings) if rings else x)
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            # a position is hidden where all that it reads is, and then all that it reads is zero
            return module(self._hide(self.env[earlier], given))
        counts_all = isinstance(module, GlobalResponseNorm) or (
            isinstance(module, nn.BatchNorm2d) and (module.training or module.running_mean is None)
        )
        if module is not None and counts_all:
            return module(self._hide(self.env[earlier], given))
        return super().run_node(n)

    def _visible_mean(self, n: fx.Node, x: Tensor, shape: MaskShape) -> Tensor:
        share = self.mask(shape).mean((2, 3), keepdim=True) + SHARE_FLOOR
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        return x.mean(*args[1:], **kwargs) / share.to(x.dtype)
