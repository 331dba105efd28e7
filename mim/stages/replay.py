"""Does the step again that stopped a run: `python -m mim.stages.replay RUN`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from mim.config import FinetuneConfig, PretrainConfig, TrainingConfig, door, load_config
from mim.errors import MimError
from mim.stages.classifier import DESCRIPTION, TaskDescription
from mim.stages.common import start_logging, write_lines
from mim.stages.pretrain_model import build_task
from mim.stages.task_kinds import TASK_KINDS
from mim.training import load_weights, make_fabric
from mim.training.loop import tell_progress
from mim.training.nonfinite import FOLDER, find_origin, load_batches


def replay(run: Path, rank: int = 0, accelerator: str = "cpu") -> str:
    """Does the step that a run kept in `nonfinite/` again, and says where the first value that is not finite appears.

    Args:
        run: folder of a run that was stopped because of such steps.
        rank: whose batches.
        accelerator: "cpu", "cuda" or "auto"; what overflows on one device may not on another.

    Returns:
        One line.

    Raises:
        MimError: the run kept no such step, or it cannot be read.
    """
    batches, bad = load_batches(run, rank)
    fabric = make_fabric(TrainingConfig.model_validate({"accelerator": accelerator, "precision": bad.precision}))
    task = fabric.to_device(_build(run))
    try:
        task.load_state_dict(load_weights(run / FOLDER / "model.safetensors"))
    except RuntimeError as error:
        raise MimError(f"{run / FOLDER / 'model.safetensors'}: does not fit config.yaml of the run") from error
    task.train()
    tell_progress(task, (bad.step - 1) / bad.steps)  # it may put parts that are frozen back into evaluation mode
    with fabric.autocast():
        origin = find_origin(task, [fabric.to_device(batch) for batch in batches], bad.seeds)
    if origin is None:
        return f"step {bad.step}, where {bad.problem}: here all is finite; try another rank, or another accelerator"
    return f"step {bad.step}, where {bad.problem}: first not finite in {origin}"


def _build(run: Path) -> nn.Module:
    if not (run / DESCRIPTION).is_file():
        # what the encoder started from need not be at hand any more
        unloaded = ["encoder.pretrained=false", "encoder.weights=null"]
        return build_task(load_config(PretrainConfig, run / "config.yaml", unloaded))
    description = TaskDescription.load(run)
    config = load_config(FinetuneConfig, run / "config.yaml", [])
    return TASK_KINDS[config.task].rebuild(run, config, description, load_weights(run / FOLDER / "model.safetensors"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and writes what was found to standard output."""
    parser = argparse.ArgumentParser(prog="python -m mim.stages.replay", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run that was stopped")
    parser.add_argument("--rank", type=int, default=0, help="whose batches")
    parser.add_argument("--accelerator", choices=("cpu", "cuda", "auto"), default="cpu", help="device")
    chosen = parser.parse_args(arguments)
    start_logging()
    write_lines(replay(chosen.run, chosen.rank, chosen.accelerator))


if __name__ == "__main__":
    sys.exit(door(main))
