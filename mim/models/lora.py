"""Low-rank adaptation of a timm backbone: its weights stay, a product of two thin matrices is learnt beside each.

Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

Layers = Literal["attention", "all"]


@dataclass(frozen=True)
class LowRank:
    """Which layers are adapted, and how.

    Attributes:
        rank: of each update; below the smaller side of every adapted weight.
        alpha: the update is multiplied by alpha / rank.
        layers: `attention` = the linear layers of the attention; `all` = every linear layer of the backbone.
        norms: whether the weights of the norms learn as well.
    """

    rank: int = 8
    alpha: float = 16.0
    layers: Layers = "all"
    norms: bool = False


class LowRankUpdate(nn.Module):
    """W -> W + alpha / rank * up @ down, for the weight of a linear layer; exactly W until `up` has learnt.

    Args:
        weight: (outputs, inputs), gives shapes, type and device.
        rank: of the update.
        alpha: as in `LowRank`.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.down = nn.Parameter(torch.empty(rank, inputs, dtype=weight.dtype, device=weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, dtype=weight.dtype, device=weight.device))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as torch starts a linear layer

    def forward(self, weight: Tensor) -> Tensor:
        """(outputs, inputs) -> (outputs, inputs)."""
        return torch.addmm(weight, self.up, self.down, alpha=self.scale)

    def beside(self, output: Tensor, x: Tensor) -> Tensor:
        """Adds what the update makes of an input to what the weight made of it.

        The product is never formed, and so the backward pass needs no gradient of the size of the weight.

        Args:
            output: (..., outputs), of the weight.
            x: (..., inputs).
        """
        return torch.add(output, F.linear(F.linear(x, self.down), self.up), alpha=self.scale)


class _ThinLinear(nn.Linear):
    """A linear layer with a low-rank update, where it is called and not only its weight read."""

    def forward(self, x: Tensor) -> Tensor:
        weight: Any = self.parametrizations.weight  # type: ignore[union-attr]  # made by torch's parametrize
        output: Tensor = weight[0].beside(F.linear(x, weight.original, self.bias), x)
        return output


def adapted_layers(backbone: Any, settings: LowRank) -> dict[str, nn.Linear]:
    """Finds the layers to adapt.

    A classifier is left alone, and so is the small network by which a Swin V2 makes a bias of distances.

    Args:
        backbone: a timm model.
        settings: `layers` and `rank` are read.

    Returns:
        Linear layers by name.

    Raises:
        ValueError: there is none, or one is too narrow for the rank.
    """
    classifier = backbone.get_classifier()
    found = {}
    for name, module in backbone.named_modules():
        parts = name.split(".")
        wanted = settings.layers == "all" or any(part.startswith("attn") for part in parts)
        if isinstance(module, nn.Linear) and module is not classifier and wanted and "cpb_mlp" not in parts:
            found[name] = module
    kind = type(backbone).__name__
    if not found:
        where = " in its attention" if settings.layers == "attention" else ""
        raise ValueError(f"a {kind} has no linear layer{where} to adapt")
    name, narrowest = min(found.items(), key=lambda item: min(item[1].weight.shape))
    if settings.rank >= (side := min(narrowest.weight.shape)):
        raise ValueError(f"rank {settings.rank} is no less than that of the weights of {name}, which is {side}")
    return found


def adapt(backbone: Any, settings: LowRank) -> None:
    """Holds the weights of a backbone still and puts a low-rank update beside those of some of its layers.

    Whatever reads a layer's `weight` meets the updated one: some of timm's attentions do so without calling the layer.

    Args:
        backbone: a timm model; changed in place.
        settings: which layers, and how.

    Raises:
        ValueError: as `adapted_layers`.
    """
    layers = adapted_layers(backbone, settings)
    backbone.requires_grad_(False)
    if settings.norms:
        for module in backbone.modules():
            if "Norm" in type(module).__name__:
                module.requires_grad_(True)
    for layer in layers.values():
        update = LowRankUpdate(layer.weight, settings.rank, settings.alpha)
        if type(layer) is nn.Linear:
            layer.__class__ = _ThinLinear  # as parametrize does, whose own class is then derived from this one
        parametrize.register_parametrization(layer, "weight", update)


def plain_state(backbone: nn.Module) -> dict[str, Tensor]:
    """The state_dict of a backbone with its low-rank updates, if it has any, added to the weights: timm's own names.

    Args:
        backbone: adapted or not; it is left as it is.

    Returns:
        Tensors without gradient, by name.
    """
    state: dict[str, Tensor] = dict(backbone.state_dict())
    for name, module in backbone.named_modules():
        if not parametrize.is_parametrized(module, "weight"):
            continue
        inner = f"{name}.parametrizations.weight."
        state = {key: value for key, value in state.items() if not key.startswith(inner)}
        weight: Any = module.weight
        state[f"{name}.weight"] = weight.detach()
    return state
