"""Encoders that others have trained: published checkpoints of MAE, SimMIM and SparK, and plain timm state_dicts."""

from pathlib import Path
from typing import Any

from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.checkpoint_file import read_tensors
from mim.models.create import create_encoder
from mim.models.encoder import Encoder
from mim.models.exported import LoadReport, read_exported
from mim.models.fitting import adapt_channels, resize_positions
from mim.models.layouts import find_network, rename

FINAL_NORMS = ("norm.", "head.norm.", "fc_norm.")
RUN_FILES = ("encoder.safetensors", "model.safetensors")  # of a run of mim, which says in encoder.json what it took
PRETRAINING = ("sparse_encoder.", "encoder.")  # begin the names in whole checkpoints of SparK and SimMIM
# parts that a network may have and an encoder has not, and what pretraining adds to one
HEADS = ("head.", "fc.", "fc_norm.", "classifier.", "mask_token", "norm.", "head_dist.")


def load_foreign_encoder(
    path: str | Path,
    name: str,
    image_size: tuple[int, int] = (224, 224),
    in_chans: int = 1,
    hidden: str | None = None,
    patch_size: int | None = None,
    **timm_args: Any,
) -> tuple[Encoder, LoadReport]:
    """Builds an encoder and fills it from a file of others.

    Args:
        path: the file, see `load_foreign_weights`.
        name: timm model name of the network that the file holds.
        image_size: height and width in pixels that are wanted; positions are resized.
        in_chans: channels that are wanted; the first convolution is adapted.
        hidden: how cells are hidden, see `create_encoder`.
        patch_size: side of a cell, see `create_encoder`.
        **timm_args: passed to timm.create_model.

    Returns:
        The encoder, and what became of each tensor in the file.

    Raises:
        MimError: the encoder cannot be built, or the file does not fit it; one line.
    """
    encoder = create_encoder(name, image_size, in_chans, hidden, patch_size, **timm_args)
    return encoder, load_foreign_weights(encoder.backbone, path)


def load_foreign_weights(backbone: nn.Module, path: str | Path) -> LoadReport:
    """Fills a timm model from a file of others, whole or not at all.

    Known are: state_dicts of timm; MAE, with its decoder or without; SimMIM (`encoder.*`: Swin, and ViT without
    relative positions); SparK (`sparse_encoder.sp_cnn.*`, or its encoder alone: ResNet, ConvNeXt); encoders that lie
    under `backbone.` or `module.`; files of a run. Where the network is the same but its input is not, the first
    convolution is adapted to the channels, and positions are resized, from a square grid, to the grid of the model.

    Args:
        backbone: a timm model; nothing in it changes if the file is refused.
        path: `.safetensors`, or a file of torch.save, of which nothing is run.

    Returns:
        What was loaded, what was adapted, what was left.

    Raises:
        MimError: the file cannot be read or holds another architecture; one line that names what differs.
    """
    path = Path(path)
    tensors = read_tensors(path)
    state, left = find_network(tensors)
    own = backbone.state_dict()
    try:
        state, adapted = rename(state, backbone)
        adapted += adapt_channels(state, own, backbone)
        adapted += resize_positions(state, own, backbone, _image_size(path))
    except (ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
        problem = " ".join(str(error).split())
        raise MimError(f"{path}: does not fit {_name(backbone)}: {problem}") from error
    fresh = _final_norm(tensors, state, backbone)
    _check(path, backbone, state, own, fresh)
    if fresh:
        adapted.append(f"{fresh[0].rpartition('.')[0]} stays fresh, the file has no final norm")
    backbone.load_state_dict({name: state.get(name, tensor) for name, tensor in own.items()})
    taken = [name for name in own if name in state]
    left += [name for name in state if name not in own]
    return LoadReport(loaded=len(taken), adapted=adapted, left=left)


def _image_size(path: Path) -> tuple[int, int]:
    """Height and width of the images of the file's network, or of any square where nothing beside it says them."""
    of_run = path.name in RUN_FILES and (path.parent / "encoder.json").is_file()
    return read_exported(path.parent).spec.image_size if of_run else (1, 1)


def _final_norm(tensors: dict[str, Tensor], state: dict[str, Tensor], backbone: nn.Module) -> list[str]:
    """Names of the final norm where the file's network has none: SparK, FCMAE and SimMIM may pretrain without one."""
    pretrained = isinstance(backbone, ConvNeXt) or any(name.startswith(PRETRAINING) for name in tensors)
    if not pretrained or any(name.startswith(FINAL_NORMS) for name in state):
        return []
    return [name for name in backbone.state_dict() if name.startswith(FINAL_NORMS)]


def _check(path: Path, backbone: nn.Module, state: dict[str, Tensor], own: dict[str, Tensor], fresh: list[str]) -> None:
    """Refuses a state that would leave weights of the network, or blocks of the file, aside."""
    differences = []
    for name, tensor in own.items():
        if name in fresh or (name not in state and name.endswith("num_batches_tracked")):
            continue
        there = tuple(state[name].shape) if name in state else "missing"
        if there != tuple(tensor.shape):
            differences.append(f"{name} is {there} there and {tuple(tensor.shape)} here")
    if differences and "fc_norm.weight" in state and "fc_norm.weight" not in own:
        differences.insert(0, "it pools before its norm, which encoder.timm_args={fc_norm: true} asks for")
    parts = {name.partition(".")[0] for name in own}
    differences += [
        f"{name} is {tuple(tensor.shape)} there and unknown here"
        for name, tensor in state.items()
        if name not in own and name.partition(".")[0] in parts and not name.startswith(HEADS)
    ]
    if differences:
        more = f", and {len(differences) - 1} more differ" if len(differences) > 1 else ""
        raise MimError(
            f"{path}: does not fit {_name(backbone)}: {differences[0]}{more}; name the network that the file holds"
        )


def _name(backbone: nn.Module) -> str:
    described = getattr(backbone, "pretrained_cfg", None) or {}
    return str(described.get("architecture") or type(backbone).__name__)
