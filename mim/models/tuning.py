"""Which part of a pretrained encoder goes on learning."""

from timm.models import group_parameters
from torch import nn

from mim.models.encoder import Encoder


def hold_still(encoder: Encoder, trained_blocks: int = 0) -> list[nn.Module]:
    """Take the gradient from an encoder, apart from its last blocks.

    Blocks are the groups of layers that timm gives the backbone, those of the layer-wise learning-rate decay: a block
    of a transformer or of a residual network. What follows the last block, such as a norm, learns as well.

    Args:
        encoder: Its parameters change whether they require a gradient.
        trained_blocks: How many of the last blocks go on learning; 0 = none.

    Returns:
        The modules that must stay in evaluation mode, so that neither dropout nor statistics of norms move what is
        held still.

    Raises:
        ValueError: The backbone has fewer blocks.
    """
    encoder.requires_grad_(False)
    if not trained_blocks:
        return [encoder]
    backbone = encoder.backbone
    blocks: dict[str, int] = group_parameters(backbone, backbone.group_matcher(coarse=False), reverse=True)
    parameters = dict(backbone.named_parameters())
    # a group of norms alone, which some backbones have behind their last block, is none
    last = max(place for name, place in blocks.items() if name in parameters and parameters[name].ndim > 1)
    below = last + 1 - trained_blocks
    if below < 1:
        raise ValueError(f"the backbone has {last} blocks above its first layer, not {trained_blocks}")
    for name, parameter in parameters.items():
        parameter.requires_grad_(blocks.get(name, 0) >= below)
    return [module for module in backbone.modules() if module is not backbone and _is_still(module, backbone)]


def _is_still(module: nn.Module, backbone: nn.Module) -> bool:
    """Whether nothing in a module learns; one without parameters does only where it stands beside the blocks."""
    parameters = list(module.parameters())
    if not parameters:
        return any(module is child for child in backbone.children())
    return not any(parameter.requires_grad for parameter in parameters)
