"""Which part of a pretrained encoder goes on learning."""

from dataclasses import dataclass, field
from typing import Literal

from timm.models import group_parameters
from torch import nn

from mim.models.encoder import Encoder
from mim.models.lora import LowRank, adapt, adapted_layers


@dataclass(frozen=True)
class Tuning:
    """What of an encoder learns.

    Attributes:
        what: `full` = all of it; `probe` = nothing; `last_blocks` = its last blocks; `lora` = low-rank updates beside
            its weights.
        blocks: `last_blocks`: how many.
        low_rank: `lora`: which layers, and how.
    """

    what: Literal["full", "probe", "last_blocks", "lora"] = "full"
    blocks: int = 1
    low_rank: LowRank = field(default_factory=LowRank)


def check_tuning(encoder: Encoder, tuning: Tuning) -> None:
    """Makes sure that an encoder can be tuned so, and changes nothing.

    Raises:
        ValueError: the backbone has fewer blocks, or no layer that can be adapted.
    """
    if tuning.what == "last_blocks":
        _first_trained(encoder.backbone, tuning.blocks)
    elif tuning.what == "lora":
        adapted_layers(encoder.backbone, tuning.low_rank)


def tune(encoder: Encoder, tuning: Tuning) -> None:
    """Lets a part of an encoder learn and holds the rest still, in evaluation mode whatever its task is told.

    Blocks are the groups of layers that timm gives the backbone, those of the layer-wise learning-rate decay: a block
    of a transformer or of a residual network. What follows the last block, such as a norm, learns as well.

    Beside low-rank updates dropout goes on; only norms that keep statistics are in evaluation mode.

    Args:
        encoder: its parameters change whether they require a gradient; `lora` gives it more of them.
        tuning: what learns.

    Raises:
        ValueError: as `check_tuning`.
    """
    check_tuning(encoder, tuning)
    if tuning.what == "full":
        return
    encoder.requires_grad_(False)
    still: list[nn.Module] = [encoder]
    if tuning.what == "last_blocks":
        still = _hold_below(encoder.backbone, tuning.blocks)
    elif tuning.what == "lora":
        adapt(encoder.backbone, tuning.low_rank)
        still = [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    encoder.hold_still(still)


def _hold_below(backbone: nn.Module, trained: int) -> list[nn.Module]:
    """Leaves a gradient to the last blocks alone; gives the modules in which nothing learns then."""
    below, blocks = _first_trained(backbone, trained)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(blocks.get(name, 0) >= below)
    return [module for module in backbone.modules() if module is not backbone and _is_still(module, backbone)]


def _first_trained(backbone: nn.Module, trained: int) -> tuple[int, dict[str, int]]:
    """The number of the first block that learns where so many of the last do, and the blocks' numbers by parameter.

    Raises:
        ValueError: the backbone has fewer blocks.
    """
    matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]  # timm is not typed
    blocks: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
    parameters = dict(backbone.named_parameters())
    # a group of norms alone, which some backbones have behind their last block, is none
    last = max(place for name, place in blocks.items() if name in parameters and parameters[name].ndim > 1)
    below = last + 1 - trained
    if below < 1:
        raise ValueError(f"the backbone has {last} blocks above its first layer, not {trained}")
    return below, blocks


def _is_still(module: nn.Module, backbone: nn.Module) -> bool:
    """Whether nothing in a module learns; one without parameters does only where it stands beside the blocks."""
    parameters = list(module.parameters())
    if not parameters:
        return any(module is child for child in backbone.children())
    return not any(parameter.requires_grad for parameter in parameters)
