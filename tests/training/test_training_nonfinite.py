import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from tiny_run import STEPS_PER_EPOCH, TinyTask, kill_at, tiny_batches, tiny_config
from torch import Tensor, nn

from mim.errors import Interrupted, MimError
from mim.training import Outcome, load_weights, open_run, train_task
from mim.training.nonfinite import find_origin, load_batches

Stream = Iterator[dict[str, Tensor]]


class WithBatchNorm(TinyTask):
    """A tiny task with statistics that a forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return super().forward({**batch, "image": self.norm(batch["image"])})


def spoilt(bad: Sequence[int], accumulate: int = 1) -> Callable[[int], Stream]:
    """Batches in which one pixel is NaN in the steps given (from 1)."""

    def batches(step: int) -> Stream:
        for number, batch in enumerate(tiny_batches(step, accumulate), start=step * accumulate):
            if number // accumulate + 1 in bad and number % accumulate == accumulate - 1:
                batch["image"][3, 0, 5, 5] = torch.nan
            yield batch

    return batches


def train(fabric, path: Path, batches, task: nn.Module | None = None, **training) -> Outcome:
    config = tiny_config(
        training=training, optimizer={"ema_decay": 0.9}, tracking={"tensorboard": True, "wandb": "off"}
    )
    with open_run(fabric, path, "seed: 0\n") as folder:
        return train_task(
            fabric,
            task or WithBatchNorm(),
            batches,
            config=config,
            folder=folder,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint={},
        )


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(
    fabric, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        outcome = train(fabric, tmp_path, spoilt([2, 3, 9]), checkpoint_every=1, keep_checkpoints=99)
    assert (outcome.steps, outcome.skipped_steps) == (12, 3)
    counted = {line["step"]: line["train/skipped_steps"] for line in records(tmp_path) if "train/skipped_steps" in line}
    assert counted == {2: 1, 3: 2, 9: 3}
    assert [line["step"] for line in records(tmp_path) if line["train/loss"] is None] == [2, 3, 9]
    assert caplog.text.count("the step is skipped") == 3
    states = [torch.load(tmp_path / "checkpoints" / f"step-{step:08d}.pt", weights_only=True) for step in range(1, 5)]
    for part in ("task", "average"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), name
            assert torch.equal(tensor, states[2][part][name]), name
    assert not torch.equal(states[2]["task"]["norm.running_mean"], states[3]["task"]["norm.running_mean"])
    assert all(torch.isfinite(tensor).all() for tensor in load_weights(tmp_path / "model.safetensors").values())
    assert not (tmp_path / "nonfinite").exists()


def test_the_count_goes_on_where_a_run_does(fabric, tmp_path: Path) -> None:
    bad = spoilt([4, 5, 6, 7])
    with pytest.raises(Interrupted):
        train(fabric, tmp_path / "stopped", lambda step: kill_at(bad(step), 4, 15), max_skipped=4)
    train(fabric, tmp_path / "stopped", bad, max_skipped=4)
    train(fabric, tmp_path / "whole", bad, max_skipped=4)
    stopped, whole = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("stopped", "whole"))
    assert stopped == whole
    with pytest.raises(Interrupted):
        train(fabric, tmp_path / "few", lambda step: kill_at(bad(step), 4, 15), max_skipped=3)
    with pytest.raises(MimError, match="at step 7 and so it was in the 3 steps before"):
        train(fabric, tmp_path / "few", bad, max_skipped=3)


def test_too_many_in_a_row_stop_the_run_and_what_it_met_is_kept(fabric, tmp_path: Path) -> None:
    with pytest.raises(MimError) as error:
        train(fabric, tmp_path, spoilt([2, 4, 5, 6], accumulate=2), max_skipped=2, accumulate=2)
    message = str(error.value)
    assert message.startswith("the loss is nan at step 6 and so it was in the 2 steps before (training.max_skipped=2)")
    assert "the checkpoint of step 3 is intact" in message
    assert f"python -m mim.stages.replay {tmp_path}" in message
    batches, bad = load_batches(tmp_path, 0)
    assert (bad.step, bad.in_a_row, bad.steps, len(batches)) == (6, 3, 12, 2)
    right = spoilt([6], accumulate=2)(5)
    for batch, met in zip(batches, right, strict=False):
        assert batch.keys() == met.keys()
        assert all(torch.equal(batch[name].nan_to_num(9), met[name].nan_to_num(9)) for name in batch)
    task = WithBatchNorm()
    task.load_state_dict(load_weights(tmp_path / "nonfinite" / "model.safetensors"))
    before = torch.load(tmp_path / "checkpoints" / "step-00000003.pt", weights_only=True)
    assert all(torch.equal(tensor, task.state_dict()[name]) for name, tensor in before["task"].items())
    origin = find_origin(task, batches, bad.seeds)
    assert origin == "batch 2 itself: image has 1 values that are not finite"


def test_weights_that_are_not_finite_stop_the_run(fabric, tmp_path: Path) -> None:
    task = WithBatchNorm()
    task.head.weight.data[0, 0] = torch.inf
    with pytest.raises(MimError, match="at step 4 and so it was in the 3 steps before"):
        train(fabric, tmp_path, tiny_batches, task)
    batches, bad = load_batches(tmp_path, 0)
    assert find_origin(task, batches, bad.seeds) == "the weights: head.weight has 1 values that are not finite"


@pytest.mark.parametrize(
    ("spoil", "origin"),
    [
        (lambda value: value / 0, "batch 1: what encoder.backbone.blocks.1.mlp.act (Spoil) gives"),
        (
            lambda value: value + (value * 0).abs().sqrt(),
            "batch 1: the gradient that reaches what encoder.backbone.blocks.1.mlp.fc1 (Linear) gives, from what comes "
            "after it",
        ),
    ],
)
def test_the_module_in_which_it_begins_is_named(spoil: Callable[[Tensor], Tensor], origin: str) -> None:
    class Spoil(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return spoil(value)

    task = TinyTask()
    batches = [next(tiny_batches(0))]
    assert find_origin(task, batches, [1]) is None
    task.encoder.backbone.blocks[1].mlp.act = Spoil()
    assert find_origin(task, batches, [1]) == origin
    assert not any(module._forward_hooks for module in task.modules())


def test_a_run_without_such_a_step_has_nothing_to_replay(tmp_path: Path) -> None:
    with pytest.raises(MimError, match=r"no nonfinite/rank-0\.pt in it"):
        load_batches(tmp_path, 0)
    (tmp_path / "nonfinite").mkdir()
    (tmp_path / "nonfinite" / "rank-0.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(MimError, match="cannot be read"):
        load_batches(tmp_path, 0)
