"""How projects name the tensors of an encoder, and what timm calls them."""

import re
import sys

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

# under which an encoder lies in the files of others: SparK; SimMIM and mim; detectors, mim; parallel training
PREFIXES = ("sparse_encoder.sp_cnn.", "encoder.", "backbone.", "module.")
BUFFERS = ("relative_position_index", "relative_coords_table", "attn_mask")  # what Swin can compute by itself


def find_network(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Finds the encoder among all that a file holds.

    Returns:
        Its tensors by the names that they have inside it, and the names of the others.
    """
    state, left = dict(tensors), []
    while prefix := next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)), None):
        left += [name for name in state if not name.startswith(prefix)]
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    return state, left


def rename(state: dict[str, Tensor], backbone: nn.Module) -> tuple[dict[str, Tensor], list[str]]:
    """Gives tensors the names that timm has for them.

    Args:
        state: of an encoder, by its project's names.
        backbone: a timm model of the same network.

    Returns:
        The tensors, and what was changed in them, in words.

    Raises:
        ValueError: the network has parts that the model has no place for.
    """
    state = {name: tensor for name, tensor in state.items() if not name.endswith(BUFFERS)}
    if isinstance(backbone, VisionTransformer):
        return _rename_vit(state)
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state, []
    converted: dict[str, Tensor] = convert(state, backbone)
    given = {id(tensor) for tensor in state.values()}  # what is renamed alone is the same tensor as before
    changed = [
        f"{name} from {_sides(state[name])} to {_sides(tensor)}"
        for name, tensor in converted.items()
        if id(tensor) not in given and name in state and state[name].shape != tensor.shape
    ]
    return converted, changed


def _sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))


def _rename_vit(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """BEiT's ways, which SimMIM shares: attention without a bias of keys, layer scale by other names."""
    relative = next((name for name in state if "relative_position_bias_table" in name), None)
    if relative is not None:
        raise ValueError(
            f"it has relative positions ({relative}), which timm's ViT has no place for; of SimMIM only a ViT that was "
            "trained with absolute positions can be used"
        )
    renamed, joined = {}, 0
    for name, tensor in state.items():
        if name.endswith(".v_bias"):
            continue
        if name.endswith(".q_bias"):
            value = state.get(name.replace(".q_bias", ".v_bias"))
            if value is None:
                raise ValueError(f"{name} stands without its v_bias")
            renamed[name.replace(".q_bias", ".qkv.bias")] = torch.cat([tensor, torch.zeros_like(tensor), value])
            joined += 1
        else:
            renamed[re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name)] = tensor
    return renamed, [f"q_bias and v_bias to qkv.bias in {joined} blocks"] if joined else []
