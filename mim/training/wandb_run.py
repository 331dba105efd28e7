"""Weights & Biases, kept to the figures: offline unless asked, and nothing of the machine, its user or its code."""

import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mim.errors import MimError
from mim.files import write_atomically
from mim.training.signals import held_back

logger = logging.getLogger(__name__)


class WandbRun:
    """One run of wandb, in the folder of ours; when ours goes on, it goes on under the same id.

    Args:
        folder: the run's folder; wandb writes to `wandb` in it.
        mode: online is the only one that sends anything.
        project: wandb's project.
        hyperparameters: what is written down beside the figures.

    Raises:
        MimError: mode is online and wandb could not begin.
    """

    def __init__(
        self, folder: Path, mode: Literal["offline", "online"], project: str, hyperparameters: Mapping[str, Any]
    ) -> None:
        # wandb reports its own errors over the network unless told not to before it begins, offline or not.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ["WANDB_MODE"] = mode
        import wandb

        self._place = folder / "wandb"
        self._place.mkdir(exist_ok=True)
        self._errors: type[Exception] = wandb.Error
        self._run: Any = None
        try:
            with held_back():
                self._run = wandb.init(
                    project=project,
                    name=folder.resolve().name,
                    id=_run_id(self._place / "run_id.txt"),
                    resume="allow",
                    dir=str(folder),
                    config=dict(hyperparameters),
                    settings=wandb.Settings(**_settings(mode)),
                )
        except self._errors as error:
            problem = str(error).splitlines()[0]
            if mode == "online":
                raise MimError(f"tracking.wandb=online: {problem}; log in, or give tracking.wandb=offline") from error
            logger.warning("wandb could not begin (%s); the figures are in metrics.jsonl all the same", problem)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Adds figures to a step."""
        if self._run is None:
            return
        try:
            self._run.log(dict(figures), step=step)
        except self._errors as error:
            logger.warning("wandb stopped (%s); the figures are in metrics.jsonl all the same", error)
            self._run = None

    def close(self, *, failed: bool) -> None:
        """Ends the run and removes wandb's debug logs: they name the folder's absolute path, hence often a user."""
        if self._run is None:
            return
        run, self._run = self._run, None
        try:
            run.finish(exit_code=int(failed))
        except self._errors as error:
            logger.warning("wandb did not end well (%s); the figures are in metrics.jsonl all the same", error)
        for logs in self._place.glob("*/logs"):
            shutil.rmtree(logs, ignore_errors=True)


def _run_id(path: Path) -> str:
    if not path.is_file():
        write_atomically(path, uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()


def _settings(mode: str) -> dict[str, Any]:
    """Everything that wandb lets one switch off or set to nothing."""
    return {
        "mode": mode,
        "silent": True,
        "console": "off",
        "symlink": False,
        "disable_git": True,
        "disable_code": True,
        "disable_job_creation": True,
        "save_code": False,
        "x_save_requirements": False,
        "x_disable_meta": True,
        "x_disable_machine_info": True,
        "x_disable_stats": True,
        "x_disable_viewer": mode == "offline",
        "host": "none",
        "username": "none",
        "email": "none",
        "program": "mim",
        "program_abspath": "",
        "program_relpath": "",
        "x_executable": "python",
    }
