"""Weights of others as tensors by name. Nothing that a file holds is run."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mim.errors import MimError

ENVELOPES = ("model", "module", "state_dict", "model_state")  # under which projects keep the weights in their files


class AnySettings:
    """Takes the place of an object in a file that is no tensor, such as the settings of a run, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Ignores what the object was made of; PyTorch puts what it held into nothing but dictionaries."""
        return OrderedDict()


class AnyFigure:
    """Takes the place of a number or an array of numpy, whose making ends with a state that is no dictionary."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Ignores the number."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the rest of it."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads a checkpoint: `.safetensors`, or a file of torch.save with a state_dict in it, bare or in an envelope.

    Beside the weights such files hold settings, optimisers and figures. They are read with `weights_only=True`, and
    every class that PyTorch does not hold for safe is replaced by one that does nothing.

    Args:
        path: the file.

    Returns:
        The tensors by name, on the CPU, without the `module.` of a model that was trained on several devices.

    Raises:
        MimError: the file is missing, damaged or hostile, or holds no weights.
    """
    if not path.is_file():
        raise MimError(f"{path}: is not there; give a file of weights (.pth, .pt, .bin or .safetensors)")
    if path.suffix == ".safetensors":
        content = _try_reading(path, lambda: safetensors.torch.load_file(path))
    else:
        content = _try_reading(path, lambda: _load(path))
    tensors = _unwrap(content)
    if not tensors:
        raise MimError(f"{path}: holds no weights by name (looked for a state_dict, bare or under {_listed()})")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise MimError(f"{path}: {name} has values that are not finite; the file is damaged, or its run went wrong")
    return tensors


def _try_reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as error:  # a damaged file fails in any way that zip, pickle and PyTorch know
        # PyTorch says what is wrong behind a page of advice
        said = str(error).rpartition("WeightsUnpickler error:")[2].strip().splitlines() or [type(error).__name__]
        raise MimError(f"{path}: cannot be read as weights ({said[0].strip()})") from error


def _load(path: Path) -> Any:
    try:
        unsafe = get_unsafe_globals_in_checkpoint(str(path))
    except ValueError:  # a file of before PyTorch 1.6, which cannot be searched
        unsafe = ["argparse.Namespace", "yacs.config.CfgNode"]
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (AnyFigure if name.startswith("numpy.") else AnySettings, name) for name in unsafe
    ]
    with safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def _unwrap(content: Any) -> dict[str, Tensor]:
    for _ in range(2):
        inner = [content[key] for key in ENVELOPES if isinstance(content, dict) and isinstance(content.get(key), dict)]
        content = inner[0] if inner else content
    if not isinstance(content, dict):
        return {}
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    parallel = "module."
    if all(name.startswith(parallel) for name in tensors):
        return {name.removeprefix(parallel): tensor for name, tensor in tensors.items()}
    return tensors


def _listed() -> str:
    return ", ".join(repr(name) for name in ENVELOPES)
