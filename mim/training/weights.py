"""Weights in safetensors, and the best of a run."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mim.errors import MimError
from mim.files import reason, write_atomically


@dataclass(frozen=True)
class Monitor:
    """Says which weights are the best.

    Attributes:
        figure: the figure that is watched.
        mode: whether more or less of it is better.
        since: steps that must be done before weights may be kept, for a task of which a part is trained later.
    """

    figure: str
    mode: Literal["max", "min"] = "max"
    since: int = 0


@dataclass(frozen=True)
class Best:
    """The best value so far and the step it was met at."""

    value: float
    step: int


def is_better(value: float, best: Best | None, mode: Literal["max", "min"]) -> bool:
    """Says whether a value beats the best so far. A tie goes to the earlier one, and what is not finite never wins."""
    if not math.isfinite(value):
        return False
    if best is None:
        return True
    return value > best.value if mode == "max" else value < best.value


def save_weights(path: Path, module: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a module's parameters and buffers, atomically. Tied tensors are written under each of their names.

    Args:
        path: the file, *.safetensors.
        module: any module, on any device.
        metadata: texts that travel with the weights.

    Raises:
        MimError: the file could not be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    content = safetensors.torch.save(tensors, dict(metadata or {}))
    try:
        write_atomically(path, content)
    except OSError as error:
        raise MimError(f"{path}: could not be written, {reason(error)}; make room and start again") from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads what `save_weights` wrote, onto the CPU; `load_state_dict` takes it.

    Raises:
        MimError: the file is missing or is not whole.
    """
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise MimError(f"{path}: is not there; let the run come to its end first") from error
    except SafetensorError as error:
        raise MimError(f"{path}: is not a whole safetensors file; start the run again") from error


def save_best(path: Path, module: nn.Module, best: Best) -> None:
    """Writes the best weights with the value and the step that they are the best by."""
    save_weights(path, module, {"value": repr(best.value), "step": str(best.step)})


def read_best(path: Path) -> Best | None:
    """Reads the value and the step that `save_best` wrote; None where there is no file that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return Best(float(metadata["value"]), int(metadata["step"]))
    except (FileNotFoundError, SafetensorError, KeyError, ValueError):
        return None
