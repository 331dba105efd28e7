"""Steps whose loss or gradient is not finite: kept for later, and done again to see where it began."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mim.errors import MimError
from mim.files import reason, write_atomically
from mim.training.weights import save_weights

FOLDER = "nonfinite"
_FORMAT = 1


@dataclass(frozen=True)
class BadStep:
    """A step that was not done.

    Attributes:
        step: which, from 1.
        problem: what was not finite.
        in_a_row: steps before it, and itself, that were skipped without one done between them.
        seeds: seed of the noise inside the model, for each of the batches.
        precision: of the training.
        steps: steps of the whole run.
    """

    step: int
    problem: str
    in_a_row: int
    seeds: list[int]
    precision: str
    steps: int


def save_batches(folder: Path, rank: int, batches: Sequence[Mapping[str, Any]], bad: BadStep) -> None:
    """Writes what a rank met in a bad step: `rank-R.pt`, its batches, and `rank-R.json`, the seeds and the problem.

    Args:
        folder: of the run.
        rank: the rank.
        batches: those of the step; only tensors are kept.
        bad: the step, with the seeds of this rank.

    Raises:
        MimError: it cannot be written.
    """
    tensors = [
        {name: value.detach().cpu() for name, value in batch.items() if isinstance(value, Tensor)} for batch in batches
    ]
    place = folder / FOLDER / f"rank-{rank}"
    try:
        write_atomically(place.with_suffix(".pt"), lambda file: torch.save(tensors, file))
        text = json.dumps({"format": _FORMAT, **asdict(bad)}, indent=2) + "\n"
        write_atomically(place.with_suffix(".json"), text)
    except OSError as error:
        raise MimError(f"{place}.pt: {bad.problem}, and the batch could not be kept: {reason(error)}") from error


def save_model(folder: Path, task: nn.Module) -> None:
    """Writes the weights that a bad step was to change, and did not.

    Raises:
        MimError: they cannot be written.
    """
    save_weights(folder / FOLDER / "model.safetensors", task)


def load_batches(folder: Path, rank: int) -> tuple[list[dict[str, Tensor]], BadStep]:
    """Reads what `save_batches` wrote.

    Raises:
        MimError: there is nothing, or it cannot be understood.
    """
    place = folder / FOLDER / f"rank-{rank}"
    if not place.with_suffix(".pt").is_file():
        raise MimError(f"{folder}: no {FOLDER}/rank-{rank}.pt in it: the run was not stopped by what is not finite")
    try:
        batches = torch.load(place.with_suffix(".pt"), map_location="cpu", weights_only=True)
        content = json.loads(place.with_suffix(".json").read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT:
            raise MimError(f"{place}.json: another version of mim wrote it; replay it with that")
        return list(batches), BadStep(**content)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError) as error:
        raise MimError(f"{place}.pt and .json: cannot be read ({type(error).__name__}); start the run again") from error


def find_origin(task: nn.Module, batches: Sequence[Mapping[str, Tensor]], seeds: Sequence[int]) -> str | None:
    """Does a step again, up to the update, and says where the first value that is not finite appears.

    Looked at in this order: the batches, the weights, what each module gives forward, the loss, the gradients that
    reach what each module gave, the gradients of the weights.

    Args:
        task: with the weights from before the step, in training mode.
        batches: of the step, on the task's device.
        seeds: of the noise inside the task, one a batch.

    Returns:
        A few words; None where all is finite.
    """
    for number, batch in enumerate(batches):
        for name, value in batch.items():
            if not _finite(value):
                return f"batch {number + 1} itself: {name} has {_count(value)} values that are not finite"
    for name, tensor in task.state_dict().items():
        if not _finite(tensor):
            return f"the weights: {name} has {_count(tensor)} values that are not finite"
    for number, (batch, seed) in enumerate(zip(batches, seeds, strict=True)):
        found: list[str] = []
        torch.manual_seed(seed)
        with _watching(task, found.append):
            output = task(dict(batch))
            if not found and not _finite(output["loss"]):
                found.append("the loss, which the task makes of finite values of its parts")
            if not found:
                task.zero_grad()
                output["loss"].backward()
        found += [
            f"the gradient of {name}"
            for name, parameter in task.named_parameters()
            if parameter.grad is not None and not _finite(parameter.grad)
        ]
        if found:
            return f"batch {number + 1}: {found[0]}"
    return None


@contextmanager
def _watching(task: nn.Module, say: Callable[[str], None]) -> Iterator[None]:
    """Tells of each part of a task that has no parts of its own and gives, or is reached by, what is not finite."""
    hooks = [
        module.register_forward_hook(partial(_look_forward, name or "the task", say))
        for name, module in task.named_modules()
        if not any(True for _ in module.children())
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _look_forward(name: str, say: Callable[[str], None], module: nn.Module, given: Any, output: Any) -> None:
    if not isinstance(output, Tensor):
        return
    if not _finite(output):
        say(f"what {name} ({type(module).__name__}) gives")
    elif output.requires_grad:
        output.register_hook(partial(_look_backward, name, say, module))  # type: ignore[no-untyped-call]


def _look_backward(name: str, say: Callable[[str], None], module: nn.Module, gradient: Tensor) -> None:
    if not _finite(gradient):
        say(f"the gradient that reaches what {name} ({type(module).__name__}) gives, from what comes after it")


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _count(value: Tensor) -> int:
    return int((~torch.isfinite(value)).sum())
