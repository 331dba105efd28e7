import json
from pathlib import Path

import pytest
import torch
from tiny_run import STEPS_PER_EPOCH, TinyTask, kill_at, tiny_batches, tiny_config
from torch import nn

from mim.errors import Interrupted
from mim.training import Looks, Outcome, log_spaced, open_run, train_task


def train(fabric, path: Path, looks: Looks | None, stop_after: int | None = None, dropout: float = 0.2) -> Outcome:
    config = tiny_config(optimizer={"ema_decay": 0.9})
    with open_run(fabric, path, "seed: 0\n") as folder:
        return train_task(
            fabric,
            TinyTask(dropout),
            lambda step: tiny_batches(step) if stop_after is None else kill_at(tiny_batches(step), stop_after, 15),
            config=config,
            folder=folder,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint={},
            looks=looks,
        )


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def noisy_look(step: int, epoch: int, module: nn.Module) -> dict[str, float]:
    """Asks the module, and draws from the generator that the training uses."""
    assert not module.training
    assert not torch.is_grad_enabled()
    module(next(tiny_batches(1)))
    return {"looked": torch.rand(()).item()}


@pytest.mark.parametrize(("total", "count"), [(1, 12), (2, 12), (10, 9), (12, 12), (5, 3), (800_000, 12), (97, 40)])
def test_looks_are_spaced_in_log_steps(total: int, count: int) -> None:
    steps = log_spaced(total, count)
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1], len(steps)) == (1, total, min(total, count))
    assert log_spaced(total, 1) == [total]
    assert log_spaced(total, 0) == []


def test_looks_of_a_long_run_are_in_a_constant_ratio() -> None:
    assert log_spaced(1024, 11) == [2**power for power in range(11)]


def test_a_look_changes_no_step(fabric, tmp_path: Path) -> None:
    outcome = train(fabric, tmp_path / "looked", Looks(frozenset({1, 2, 6, 12}), noisy_look))
    train(fabric, tmp_path / "blind", None)
    lines = records(tmp_path / "looked")
    assert [line["step"] for line in lines if "looked" in line] == [1, 2, 6, 12]
    assert [line for line in lines if "looked" not in line] == records(tmp_path / "blind")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("looked", "blind")]
    assert weights[0] == weights[1]
    assert outcome.figures == {"looked": lines[-1]["looked"]}


def test_a_look_that_a_stop_came_before_is_taken_later(fabric, tmp_path: Path) -> None:
    looks = Looks(frozenset({2, 6, 12}), noisy_look)
    with pytest.raises(Interrupted):
        train(fabric, tmp_path / "stopped", looks, stop_after=5)
    assert [line["step"] for line in records(tmp_path / "stopped") if "looked" in line] == [2]
    train(fabric, tmp_path / "stopped", looks)
    train(fabric, tmp_path / "whole", looks)
    stopped, whole = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("stopped", "whole"))
    assert stopped == whole
