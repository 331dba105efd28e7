"""Where the figures of a run go: metrics.jsonl and timings.jsonl always, TensorBoard and wandb as asked."""

import logging
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from mim.config import RunConfig
from mim.errors import MimError
from mim.files import reason
from mim.training.metrics_file import MetricsFile
from mim.training.run_folder import RunFolder
from mim.training.tensorboard_file import EventFile
from mim.training.wandb_run import WandbRun

# Blocks of the configuration that hold paths of the user's: they stay on the machine.
_PRIVATE = {"data", "init", "output", "probe", "tracking"}


logger = logging.getLogger(__name__)


class Tracker:
    """Writes figures on rank 0.

    Args:
        folder: the run's folder.
        config: its configuration; `tracking` says where figures go.
        step: the step the run goes on from.
        lines: lines of metrics.jsonl at that step.

    Raises:
        MimError: a place cannot be written, or wandb is online and cannot begin.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, step: int, lines: int) -> None:
        self.metrics = MetricsFile(folder.metrics, step, lines)
        self.timings = MetricsFile(folder.timings, step, sys.maxsize)
        self._tensorboard: EventFile | None = None
        self._wandb: WandbRun | None = None
        try:
            if config.tracking.tensorboard:
                self._tensorboard = EventFile(folder.tensorboard, step)
            if config.tracking.wandb != "off":
                self._wandb = WandbRun(
                    folder.path, config.tracking.wandb, config.tracking.wandb_project, hyperparameters(config)
                )
        except OSError as error:
            self.close(failed=True)
            raise MimError(
                f"{folder.path}: could not be written, {reason(error)}; make room and start the same command again"
            ) from error

    def write(
        self, step: int, epoch: int, figures: Mapping[str, float], timings: Mapping[str, float] | None = None
    ) -> None:
        """Writes the figures of a step.

        Args:
            step: steps done, from 1.
            epoch: the epoch the last of them was in, from 1.
            figures: values by name, which follow from the run alone.
            timings: values that no two runs share; they go to timings.jsonl, and metrics.jsonl goes without them.

        Raises:
            MimError: they cannot be written.
        """
        self.metrics.write(step, epoch, figures)
        if timings:
            self.timings.write(step, epoch, timings)
        everything = {**figures, **(timings or {})}
        if self._tensorboard is not None:
            try:
                self._tensorboard.write(step, everything)
            except OSError as error:
                raise MimError(
                    f"{self._tensorboard.path}: could not be written, {reason(error)}; "
                    f"make room and start the same command again"
                ) from error
        if self._wandb is not None:
            self._wandb.write(step, everything)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool) -> None:
        """Closes all places."""
        self.metrics.close()
        self.timings.close()
        if self._tensorboard is not None:
            try:
                self._tensorboard.close()
            except OSError as error:
                logger.warning("TensorBoard's file could not be ended: %s", reason(error))
        if self._wandb is not None:
            self._wandb.close(failed=failed)


def hyperparameters(config: RunConfig) -> dict[str, Any]:
    """The settings that are written down beside the figures: all but those that name files or folders."""
    return config.model_dump(mode="json", exclude=_PRIVATE)
