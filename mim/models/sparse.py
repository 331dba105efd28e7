"""Convolutional networks that see visible cells only: zeros at hidden cells, restored before anything mixes positions.

Tian et al., Designing BERT for Convolutional Networks (SparK), ICLR 2023, in masked-dense form. The mask is an argument
of each call: the traced graph of the backbone is interpreted with it, and nothing is kept between calls.
"""

from typing import Any

import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, LayerScale2d
from timm.layers.activations import GELU, GELUTanh, Mish, QuickGELU, Sigmoid, Swish
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm import LayerNorm, LayerNorm2d
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, fx, nn

from mim.errors import MimError
from mim.models.features import at_resolution

ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Mish, nn.ELU, nn.Sigmoid, Sigmoid,
    GELU, GELUTanh, QuickGELU, Swish, Mish, nn.Dropout, nn.Linear, nn.LayerNorm, LayerNorm, LayerNorm2d,
    LayerScale, LayerScale2d, DropPath,
)  # fmt: skip
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
# what traced timm code does between modules; none of it mixes positions
ELEMENTWISE_CALLS = {"add", "iadd", "mul", "imul", "permute", "reshape", "getattr", "relu", "contiguous"}


class MaskTrace(fx.Tracer):
    """Traces `forward_features` of a timm CNN down to the modules that the interpreter knows, and refuses others."""

    traced_func_name = "forward_features"

    def __init__(self, stages: list[str]) -> None:
        super().__init__()
        self.stages = stages
        self.stage_nodes: dict[str, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is not traced into."""
        return isinstance(m, BatchNormAct2d) or not any(True for _ in m.children())

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Traces a call; notes the outputs that are wanted, refuses layers that are not known."""
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name) and not is_supported(m):
            raise ValueError(
                f"cells cannot be hidden in its layer {name} ({type(m).__name__}), which may mix positions"
            )
        output = super().call_module(m, forward, args, kwargs)
        if name in self.stages:
            self.stage_nodes[output.node.name] = name
        return output


def is_supported(module: nn.Module) -> bool:
    """Whether hidden cells can be kept out of this layer."""
    known = isinstance(module, (*ELEMENTWISE, *POOLS, nn.BatchNorm2d, GlobalResponseNorm))
    return known or (isinstance(module, nn.Conv2d) and module.padding_mode == "zeros")


def trace_backbone(
    backbone: nn.Module, stages: list[str], calls: frozenset[str] = frozenset(ELEMENTWISE_CALLS)
) -> tuple[fx.Graph, dict[str, str]]:
    """Traces a timm CNN.

    Args:
        backbone: the model.
        stages: names of the modules whose outputs are wanted.
        calls: operations between modules that whoever runs the graph can deal with.

    Returns:
        The graph of `forward_features`, and for each node that is a stage's output the stage's name.

    Raises:
        ValueError: if a layer mixes positions in an unknown way; it is named.
    """
    tracer = MaskTrace(stages)
    try:
        graph = tracer.trace(backbone)
    except fx.proxy.TraceError as error:
        raise ValueError(f"its code cannot be traced ({error})") from error
    for node in graph.nodes:
        if node.op in ("call_function", "call_method"):
            name = node.target if isinstance(node.target, str) else node.target.__name__
            if name not in calls:
                raise ValueError(f"cells cannot be hidden in its operation {name}, which may mix positions")
    return graph, tracer.stage_nodes


class MaskedRun(fx.Interpreter):
    """One forward pass of a traced backbone under one mask.

    Args:
        backbone: the traced model.
        graph: its graph.
        stage_nodes: nodes whose outputs are kept in `stage_outputs`.
        mask: (B, gh, gw) float, 1 = visible, or None = everything is.
    """

    def __init__(self, backbone: nn.Module, graph: fx.Graph, stage_nodes: dict[str, str], mask: Tensor | None) -> None:
        super().__init__(backbone, graph=graph)
        self.extra_traceback = False  # else the node is written into messages that a user reads
        self.stage_nodes = stage_nodes
        self.stage_outputs: dict[str, Tensor] = {}
        self.mask = mask
        self._pyramid: dict[tuple[int, int], Tensor] = {}

    def at(self, size: tuple[int, int]) -> Tensor:
        """The mask at a resolution, (B, 1, h, w)."""
        assert self.mask is not None
        if size not in self._pyramid:
            self._pyramid[size] = at_resolution(self.mask, size)
        return self._pyramid[size]

    def run_node(self, n: fx.Node) -> Any:
        """Runs one node and keeps its output, hidden cells zero, if it is a stage's."""
        output = super().run_node(n)
        if n.name in self.stage_nodes:
            self.stage_outputs[self.stage_nodes[n.name]] = self.hide(output)
        return output

    def hide(self, x: Tensor) -> Tensor:
        """Sets hidden positions of (B, C, h, w) to zero."""
        return x if self.mask is None else x * self.at((x.shape[2], x.shape[3])).to(x.dtype)

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Runs one layer; one that mixes positions meets zeros at hidden cells."""
        module = self.fetch_attr(target)
        if self.mask is None or isinstance(module, ELEMENTWISE):
            return module(*args, **kwargs)
        x = args[0]
        if isinstance(module, nn.BatchNorm2d):
            return masked_batch_norm(module, x, self.at((x.shape[2], x.shape[3]))[:, 0] > 0)
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride == (1, 1):
            return module(x)  # mixes channels, not positions
        if isinstance(module, GlobalResponseNorm) and module.channel_dim == -1:
            return module(self.hide(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return module(self.hide(x))


def masked_batch_norm(norm: nn.BatchNorm2d, x: Tensor, visible: Tensor) -> Tensor:
    """Batch norm whose statistics in training are of visible positions only.

    Args:
        norm: the layer; its running statistics are updated as by its own forward.
        x: (B, C, h, w).
        visible: (B, h, w) bool.

    Returns:
        (B, C, h, w); hidden positions are zero in training, arbitrary constants of the hidden input in evaluation.

    Raises:
        MimError: there is only one visible position, of which no deviation can be taken.
    """
    if not norm.training and norm.running_mean is not None:
        return norm(x)  # type: ignore[no-any-return]
    momentum = norm.momentum
    if norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        momentum = 1.0 / float(norm.num_batches_tracked) if momentum is None else momentum
    rows = x.movedim(1, -1)[visible]  # (visible positions, C)
    if len(rows) < 2:
        raise MimError("a batch norm met one visible position only: raise training.batch_size or input.image_size")
    rows = F.batch_norm(
        rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, momentum or 0.0, norm.eps
    )
    output = rows.new_zeros(*visible.shape, x.shape[1])
    output[visible] = rows
    output = output.movedim(-1, 1)
    if isinstance(norm, BatchNormAct2d):
        output = norm.act(norm.drop(output))
    return output
