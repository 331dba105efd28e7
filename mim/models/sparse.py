"""Which layers of a timm CNN can keep hidden cells out, and the graph of the network down to these layers.

Tian et al., Designing BERT for Convolutional Networks (SparK), ICLR 2023; Woo et al., ConvNeXt V2 (FCMAE), CVPR 2023.
"""

from collections.abc import Set
from typing import Any

from timm.layers import BlurPool2d, DropPath, EcaModule, LayerScale, LayerScale2d, SEModule
from timm.layers.activations import GELU, GELUTanh, HardSigmoid, HardSwish, Mish, QuickGELU, Sigmoid, Swish
from timm.layers.grn import GlobalResponseNorm
from timm.layers.norm import LayerNorm, LayerNorm2d, RmsNorm, RmsNorm2d, SimpleNorm2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import fx, nn

ELEMENTWISE = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.ELU,
    nn.Sigmoid, Sigmoid, GELU, GELUTanh, HardSigmoid, HardSwish, QuickGELU, Swish, Mish, nn.Dropout, nn.Linear,
    nn.LayerNorm, LayerNorm, LayerNorm2d, RmsNorm, RmsNorm2d, SimpleNorm2d, LayerScale, LayerScale2d,
)  # fmt: skip
# fetch from neighbouring positions
WINDOWED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
# weigh channels by what the whole image holds
CHANNEL_GATES = (SqueezeExcite, SEModule, EcaModule)
# what traced timm code does between modules; none of it mixes positions
ELEMENTWISE_CALLS = frozenset({"add", "iadd", "mul", "imul", "permute", "reshape", "getattr", "relu", "contiguous"})


class MaskTrace(fx.Tracer):
    """Traces `forward_features` of a timm CNN down to layers that can keep hidden cells out, and refuses others."""

    traced_func_name = "forward_features"

    def __init__(self, stages: list[str]) -> None:
        super().__init__()
        self.stages = stages
        self.stage_nodes: dict[str, str] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is not traced into."""
        return isinstance(m, (BatchNormAct2d, *CHANNEL_GATES)) or not any(True for _ in m.children())

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Traces a call; notes the outputs that are wanted, refuses layers that are not known."""
        name = self.path_of_module(m)
        if self.is_leaf_module(m, name) and not self.is_supported(m):
            raise ValueError(
                f"cells cannot be hidden in its layer {name} ({type(m).__name__}), which may mix positions"
            )
        output = super().call_module(m, forward, args, kwargs)
        if name in self.stages:
            self.stage_nodes[output.node.name] = name
        return output

    def is_supported(self, m: nn.Module) -> bool:
        """Whether hidden cells can be kept out of this layer."""
        return is_supported(m)


def is_supported(module: nn.Module) -> bool:
    """Whether hidden cells can be kept out of this layer."""
    if isinstance(module, nn.Conv2d):
        # a subclass may do anything with its weight: of these only timm's padding to "same" is known
        return module.padding_mode == "zeros" and type(module).__name__ in ("Conv2d", "Conv2dSame")
    if isinstance(module, SEModule):
        return not module.add_maxpool
    others = (DropPath, nn.BatchNorm2d, GlobalResponseNorm, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
    return isinstance(module, (*ELEMENTWISE, *CHANNEL_GATES, *others))


def trace_backbone(
    backbone: nn.Module, stages: list[str], tracer: MaskTrace | None = None, calls: Set[str] = ELEMENTWISE_CALLS
) -> tuple[fx.Graph, dict[str, str]]:
    """Traces a timm CNN.

    Args:
        backbone: the model.
        stages: names of the modules whose outputs are wanted.
        tracer: which layers are left whole, and which are refused; made for the same stages.
        calls: operations between layers that whoever runs the graph can deal with.

    Returns:
        The graph of `forward_features`, and for each node that is a stage's output the stage's name.

    Raises:
        ValueError: if a layer mixes positions in an unknown way; it is named.
    """
    tracer = tracer or MaskTrace(stages)
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
