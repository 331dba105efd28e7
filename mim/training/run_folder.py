"""The folder of a run: what is in it, who may write to it, and whether it belongs to this configuration."""

import fcntl
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from lightning_fabric import Fabric

from mim.errors import MimError
from mim.files import reason, write_atomically
from mim.training.distributed import on_rank_zero

# What may change between two starts of a run: none of it changes a weight.
_FREE = (
    "output",
    "tracking.",
    "training.accelerator",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.max_skipped",
    "training.workers",
)

logger = logging.getLogger(__name__)


class RunFolder:
    """Names the places in the folder of a run.

    Args:
        path: the folder; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.jsonl"
        self.timings = path / "timings.jsonl"
        self.finished = path / "finished.json"
        self.pictures = path / "pictures"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.wandb = path / "wandb"
        self.best = self.checkpoints / "best.safetensors"
        self.weights = path / "model.safetensors"
        self._lock: BinaryIO | None = None

    def claim(self, config_text: str) -> None:
        """Locks the folder for this process and makes sure that it is new, or was begun with this configuration.

        Args:
            config_text: the whole configuration, as YAML; it is written if the folder is new. In a folder that was
                begun it may differ in what changes no weight: workers, accelerator, checkpoints, tracking, output, and
                when to give up.

        Raises:
            MimError: another process writes to the folder; it was begun with another configuration; it has other
                things in it; or it cannot be written.
        """
        try:
            self._claim(config_text)
        except OSError as error:
            self.release()
            raise MimError(f"{self.path}: cannot be written, {reason(error)}; give output=another folder") from error
        except MimError:
            self.release()
            raise

    def release(self) -> None:
        """Lets go of the lock. It also goes when the process dies."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def mark_finished(self, summary: Mapping[str, Any]) -> None:
        """Writes down that the run came to its end, with whatever sums it up."""
        try:
            write_atomically(self.finished, json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")
        except OSError as error:
            raise MimError(
                f"{self.finished}: could not be written, {reason(error)}; make room and start again"
            ) from error

    def read_finished(self) -> dict[str, Any] | None:
        """Gives what `mark_finished` was given, or None for a run that did not come to its end."""
        if not self.finished.is_file():
            return None
        try:
            summary = json.loads(self.finished.read_text(encoding="utf-8"))
        except ValueError as error:
            raise MimError(f"{self.finished}: is not JSON; remove it and start the same command again") from error
        return dict(summary)

    def _claim(self, config_text: str) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise MimError(f"{self.path}: is a file; give output=a folder")
        self.path.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if self.config.is_file():
            begun_with = self.config.read_text(encoding="utf-8")
            self._check_config(begun_with, config_text)
            if begun_with != config_text and not self.finished.is_file():
                write_atomically(self.config, config_text)
        else:
            others = sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))
            if others:
                raise MimError(
                    f"{self.path}: is not a run (it has {others[0]} and no config.yaml); give output=another folder"
                )
            write_atomically(self.config, config_text)
        for folder in (self.pictures, self.checkpoints):
            folder.mkdir(exist_ok=True)

    def _take_lock(self) -> None:
        # A POSIX lock and not flock: it is not inherited, so a reading process that outlives a killed run for a
        # moment does not hold it.
        self._lock = (self.path / ".lock").open("ab")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise MimError(
                f"{self.path}: another process is writing to it; wait for that one, or give output=another folder"
            ) from error
        except OSError as error:
            logger.warning("%s cannot be locked (%s): see to it that one run at a time writes there", self.path, error)

    def _check_config(self, begun_with: str, given: str) -> None:
        try:
            before, now = (_flatten(yaml.safe_load(text)) for text in (begun_with, given))
        except yaml.YAMLError as error:
            raise MimError(f"{self.config}: is not YAML any more; remove {self.path} or give another output") from error
        for key in sorted({*before, *now}):
            if not key.startswith(_FREE) and before.get(key) != now.get(key):
                raise MimError(
                    f"{self.config}: {key} is {_show(before, key)} in this run and {_show(now, key)} now; "
                    f"give output=another folder, or remove {self.path}"
                )


@contextmanager
def open_run(fabric: Fabric, path: Path, config_text: str) -> Iterator[RunFolder]:
    """Opens the folder of a run for all ranks; rank 0 claims it and lets go of it in the end.

    Args:
        fabric: a launched Fabric.
        path: the folder.
        config_text: see `RunFolder.claim`.

    Raises:
        MimError: on every rank, see `RunFolder.claim`.
    """
    folder = RunFolder(path)
    on_rank_zero(fabric, lambda: folder.claim(config_text))
    try:
        yield folder
    finally:
        folder.release()


def _finite(value: Any) -> Any:
    """Replaces what is not a finite number by null, which JSON knows."""
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of nested mappings."""
    if not isinstance(tree, dict):
        return {prefix.removesuffix("."): tree}
    return {key: value for name in tree for key, value in _flatten(tree[name], f"{prefix}{name}.").items()}


def _show(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], default=str) if key in settings else "not given"
