"""Checkpoints: the whole state of a run at a step, written beside and renamed, the last few kept."""

import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from mim.errors import MimError
from mim.files import reason, write_atomically
from mim.training.weights import Best

CHECKPOINT_VERSION = 2
_NAME = re.compile(r"step-(\d{8,})\.pt")

logger = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """What changes while a task is trained.

    Attributes:
        task: what is trained.
        optimizer: what trains it.
        average: the moving average of its weights, if there is one.
        step: steps done.
        seconds: time taken so far, over all starts.
        validated: last step after which figures were taken.
        figures: those figures.
        best: the best value of the one that is watched, if one is.
        skipped: steps in which nothing was learnt, because loss or gradient was not finite.
        skipped_in_a_row: those of them since the last step that was done.
    """

    task: nn.Module
    optimizer: torch.optim.Optimizer
    average: ModelEmaV3 | None = None
    step: int = 0
    seconds: float = 0.0
    validated: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0

    @property
    def exported(self) -> nn.Module:
        """The module whose weights count: the moving average where there is one."""
        return self.task if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain data. The learning rate and all random numbers follow from the step."""
        return {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "validated": self.validated,
            "figures": dict(self.figures),
            "best": None if self.best is None else asdict(self.best),
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        self.validated = state["validated"]
        self.figures = state["figures"]
        self.best = None if state["best"] is None else Best(**state["best"])
        self.skipped = state["skipped"]
        self.skipped_in_a_row = state["skipped_in_a_row"]


class CheckpointStore:
    """The checkpoints of one run.

    Args:
        folder: where they are.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, state: Mapping[str, Any]) -> Path:
        """Writes a checkpoint; the ones that are no longer wanted go when the new one is whole.

        Args:
            state: tensors and plain data, with a `step`.

        Raises:
            MimError: it could not be written; the earlier ones are untouched.
        """
        path = self.folder / f"step-{state['step']:08d}.pt"
        content = {"version": CHECKPOINT_VERSION, **state}
        try:
            write_atomically(path, lambda file: torch.save(content, file))
        except OSError as error:
            raise MimError(
                f"{self.folder}: the checkpoint of step {state['step']} could not be written, {reason(error)}; "
                f"{self.describe_newest()}; make room and start the same command again"
            ) from error
        self._prune(state["step"])
        return path

    def newest(self) -> Path | None:
        """Finds the newest checkpoint that is whole, or gives None where there is none at all.

        Raises:
            MimError: there are checkpoints, and none of them is whole.
        """
        paths = [path for _, path in reversed(self._list())]
        for path in paths:
            if _is_whole(path):
                return path
            logger.warning("%s is not whole; going back to the one before it", path)
        if paths:
            raise MimError(f"{self.folder}: none of its {len(paths)} checkpoints is whole; remove them to start anew")
        return None

    def load(self, path: Path) -> dict[str, Any]:
        """Reads a checkpoint onto the CPU.

        Raises:
            MimError: it is not there, or another version of mim wrote it.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except OSError as error:
            raise MimError(f"{path}: cannot be read, {reason(error)}; all ranks must share the folder") from error
        except (RuntimeError, pickle.UnpicklingError) as error:
            raise MimError(f"{path}: is not a checkpoint of mim; remove it, or give output=another folder") from error
        if not isinstance(state, dict) or state.get("version") != CHECKPOINT_VERSION:
            raise MimError(f"{path}: another version of mim wrote it; go on with that, or give output=another folder")
        return state

    def describe_newest(self) -> str:
        """Says in a few words which checkpoint a run would go on from."""
        whole = (step for step, path in reversed(self._list()) if _is_whole(path))
        step = next(whole, None)
        return "there is no earlier checkpoint" if step is None else f"the checkpoint of step {step} is intact"

    def _list(self) -> list[tuple[int, Path]]:
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.glob("step-*.pt"))
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _prune(self, step: int) -> None:
        """Keeps the newest up to a step. Later ones are of a past that was left: they were not whole."""
        listed = self._list()
        kept = [path for at, path in listed if at <= step][-self.keep :]
        for _, path in listed:
            if path not in kept:
                path.unlink(missing_ok=True)
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)


def check_fingerprint(path: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Makes sure that a run goes on with what it was begun with.

    Args:
        path: the checkpoint, for the message.
        saved: entries in the checkpoint, such as the hash of the split.
        given: the same entries now.

    Raises:
        MimError: an entry differs; it is named.
    """
    for name in sorted({*saved, *given}):
        if saved.get(name) != given.get(name):
            raise MimError(
                f"{path}: the run was begun with {name} {saved.get(name)} and now has {given.get(name)}; "
                f"put that back, or give output=another folder"
            )


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is complete and undamaged.

    PyTorch does not look at the checksums of its own archives: of a flipped bit it would say nothing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile):
        return False
