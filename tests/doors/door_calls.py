import json
import logging
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from mim.config import door

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
QUIET = ("tracking.tensorboard=false", "tracking.wandb=off")
BRIEF = (*QUIET, "training.workers=0", "training.batch_size=4", "training.accelerator=cpu", "training.max_steps=3")
NETWORK = ("input.image_size=[64,64]", "encoder.timm_args={depth: 1, embed_dim: 48, num_heads: 3}")
TINY = (*BRIEF, *NETWORK, "decoder={width: 48, depth: 1, heads: 3}")
PATIENCE = 120.0  # seconds, for a machine that is busy with other things


@dataclass(frozen=True)
class Said:
    """What a door came to: exit status, standard output, standard error."""

    status: int
    out: str
    err: str

    def error(self) -> str:
        """The one line of bad input."""
        errors = [line for line in self.err.split("\n") if line.startswith("error:")]
        assert self.status == 2, self.err
        assert len(errors) == 1, self.err
        assert self.err.endswith(f"{errors[0]}\n"), self.err
        assert "Traceback" not in self.err
        return errors[0]


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / f"{name}.py"), *map(str, arguments)]


def call(name: str, *arguments: object) -> Said:
    """What `python NAME.py ARGUMENTS` does, without the seconds that a new process takes to import everything."""
    main = runpy.run_path(str(ROOT / f"{name}.py"))["main"]
    out, err = StringIO(), StringIO()
    argv = patch.object(sys, "argv", command(name, *arguments)[1:])
    with argv, redirect_stdout(out), redirect_stderr(err), own_logging():
        status = door(main)
    return Said(status, out.getvalue(), err.getvalue())


def run(name: str, *arguments: object, cwd: Path | None = None) -> Said:
    """The same as a process of its own."""
    done = subprocess.run(
        command(name, *arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    return Said(done.returncode, done.stdout, done.stderr)


def succeed(name: str, *arguments: object) -> Said:
    said = call(name, *arguments)
    assert said.status == 0, said.err
    return said


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@contextmanager
def own_logging() -> Iterator[None]:
    """Lets the doors set up logging as in a new process: their handler holds the stream it found first."""
    logger = logging.getLogger("mim")
    before, propagate, level = logger.handlers[:], logger.propagate, logger.level
    logger.handlers.clear()
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before, propagate
        logger.setLevel(level)


@contextmanager
def started(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A door as a process that is gone in the end, whatever happens."""
    process = subprocess.Popen(
        command(name, *arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.005)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def read_metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[float]:
    return [record["train/loss"] for record in read_metrics(run) if "train/loss" in record]
