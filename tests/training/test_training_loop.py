import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_run import GLOBAL_BATCH, STEPS_PER_EPOCH, TinyTask, kill_at, run_tiny, tiny_batches, tiny_config
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mim.config import TrainingConfig
from mim.errors import Interrupted, MimError
from mim.training import Best, Monitor, Plan, load_weights, make_fabric, open_run, train_task
from mim.training.checkpoint import CheckpointStore
from mim.training.signals import STOP_SIGNALS
from mim.training.validation import evaluating


def records(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(fabric, path: Path, config, task: nn.Module | None = None, batches=None, **others):
    with open_run(fabric, path, "seed: 0\n") as folder:
        return train_task(
            fabric,
            task or TinyTask(),
            batches or (lambda step: tiny_batches(step, config.training.accumulate)),
            config=config,
            folder=folder,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint={},
            **others,
        )


def test_plan() -> None:
    plan = Plan.from_config(TrainingConfig(epochs=3, max_steps=10), 4)
    assert plan == Plan(10, 4)
    assert [plan.epoch(step) for step in (1, 4, 5, 10)] == [1, 1, 2, 3]
    assert [step for step in range(11) if plan.ends_epoch(step)] == [4, 8, 10]
    with pytest.raises(MimError, match="more films than there are"):
        Plan.from_config(TrainingConfig(), 0)


def test_a_run_leaves_its_files_and_figures(fabric, tmp_path: Path) -> None:
    outcome = run_tiny(tmp_path / "run", tiny_config())
    folder = tmp_path / "run"
    assert outcome.steps == 12
    assert outcome.images_per_second > 0
    lines = records(folder)
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(1, 13))
    assert [(line["step"], line["epoch"]) for line in lines if "val/loss" in line] == [(4, 1), (8, 2), (12, 3)]
    assert {"train/loss", "train/accuracy", "train/gradient_norm", "train/learning_rate"} < lines[0].keys()
    assert "train/prediction" not in lines[0]
    assert outcome.figures == {"val/loss": lines[-1]["val/loss"]}
    assert sorted(path.name for path in (folder / "checkpoints").glob("*.pt")) == [
        "step-00000009.pt",
        "step-00000012.pt",
    ]
    assert load_weights(folder / "model.safetensors").keys() == TinyTask().state_dict().keys()
    again = run_tiny(tmp_path / "run", tiny_config())
    assert (again.steps, again.figures, again.best) == (12, outcome.figures, outcome.best)
    assert records(folder) == lines


def test_the_time_spent_waiting_for_batches_is_told(fabric, tmp_path: Path) -> None:
    def slow(step: int) -> Iterator[dict[str, Tensor]]:
        for batch in tiny_batches(step, 2):
            time.sleep(0.2)
            yield batch

    config = tiny_config(training={"epochs": 1, "accumulate": 2})
    outcome = train(fabric, tmp_path / "slow", config, batches=slow)
    lines = [json.loads(line) for line in (tmp_path / "slow" / "timings.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in lines] == [(step, 1) for step in range(1, 5)]
    for line in lines:
        step_seconds = GLOBAL_BATCH * 2 / line["images_per_second"]
        assert 0.4 / step_seconds <= line["data_wait"] <= 1
    assert min(line["data_wait"] for line in lines) <= outcome.data_wait <= max(line["data_wait"] for line in lines)
    quick = train(fabric, tmp_path / "quick", config)
    assert 0 < quick.data_wait < outcome.data_wait
    assert "data_wait" not in (tmp_path / "slow" / "metrics.jsonl").read_text()


def test_a_task_is_told_how_far_the_run_is(fabric, tmp_path: Path) -> None:
    task = TinyTask()
    train(fabric, tmp_path, tiny_config(), task)
    assert task.progress[:12] == pytest.approx([step / 12 for step in range(12)])


def test_accumulated_batches_equal_one_batch(fabric, tmp_path: Path) -> None:
    def joined(step: int) -> Iterator[dict[str, Tensor]]:
        small = tiny_batches(step, 2)
        while True:
            first, second = next(small), next(small)
            yield {name: torch.cat([first[name], second[name]]) for name in first}

    train(fabric, tmp_path / "a", tiny_config(training={"accumulate": 2}), TinyTask(dropout=0))
    train(fabric, tmp_path / "b", tiny_config(), TinyTask(dropout=0), joined)
    ours, theirs = ([line["train/loss"] for line in records(tmp_path / name)] for name in "ab")
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_best_weights_are_kept_and_exported(fabric, tmp_path: Path) -> None:
    values = iter([0.5, float("nan"), 0.9, 0.9, 0.7])
    met: list[Tensor] = []

    def figures(step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        assert not module.training
        assert not torch.is_grad_enabled()
        met.append(module.head.weight.clone())
        return {"val/auroc": next(values)}

    task = TinyTask()
    config = tiny_config(training={"epochs": 5}, optimizer={"ema_decay": 0.9})
    outcome = train(fabric, tmp_path, config, task, on_epoch_end=figures, monitor=Monitor("val/auroc"))
    assert outcome.best == Best(0.9, 12)
    for name in ("checkpoints/best.safetensors", "model.safetensors"):
        assert torch.equal(load_weights(tmp_path / name)["head.weight"], met[2])
    assert torch.equal(task.head.weight, met[2])
    assert records(tmp_path)[9] == {"step": 8, "epoch": 2, "val/auroc": None}


def test_the_moving_average_is_what_is_exported(fabric, tmp_path: Path) -> None:
    train(fabric, tmp_path, tiny_config(optimizer={"ema_decay": 0.9}))
    saved = CheckpointStore(tmp_path / "checkpoints", 2).load(tmp_path / "checkpoints" / "step-00000012.pt")
    weights = load_weights(tmp_path / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in saved["average"].items())
    assert not torch.equal(weights["head.weight"], saved["task"]["head.weight"])


def test_no_finite_figure_exports_the_last_weights(fabric, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = train(fabric, tmp_path, tiny_config(), on_epoch_end=lambda *_: {"v": float("nan")}, monitor=Monitor("v"))
    assert outcome.best is None
    assert "v was never finite" in caplog.text
    assert (tmp_path / "model.safetensors").is_file()
    with pytest.raises(MimError, match="val/f1 is to be watched and is not among the figures: v"):
        train(fabric, tmp_path / "b", tiny_config(), on_epoch_end=lambda *_: {"v": 1.0}, monitor=Monitor("val/f1"))


def test_validation_does_not_disturb_the_training(fabric, tmp_path: Path) -> None:
    def noisy(step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        return {"noise": torch.rand(()).item()}

    train(fabric, tmp_path / "a", tiny_config(), on_epoch_end=noisy)
    train(fabric, tmp_path / "b", tiny_config())
    with_it, without = (
        [line["train/loss"] for line in records(tmp_path / name) if "train/loss" in line] for name in "ab"
    )
    assert with_it == without
    task = TinyTask()
    task.encoder.eval()
    task.head.train()
    with evaluating(task):
        assert not task.head.training
    assert task.head.training
    assert not task.encoder.backbone.training


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_run_before_it_spoils_the_weights(fabric, tmp_path: Path, what: str) -> None:
    class Spoilt(TinyTask):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            output = super().forward(batch)
            if len(self.progress) == 8:
                zero = self.head.bias.sum() * 0
                output["loss"] = output["loss"] + (zero / 0 if what == "loss" else zero.abs().sqrt())
            return output

    with pytest.raises(MimError) as error:
        train(fabric, tmp_path, tiny_config(training={"precision": "bf16-mixed", "max_skipped": 0}), Spoilt())
    message = str(error.value)
    assert message.startswith(f"the {what} is ")
    for words in ("at step 8", "lower optimizer.lr", "32-true", "the checkpoint of step 6 is intact"):
        assert words in message
    assert "\n" not in message
    saved = CheckpointStore(tmp_path / "checkpoints", 2).load(tmp_path / "checkpoints" / "step-00000006.pt")
    assert all(torch.isfinite(tensor).all() for tensor in saved["task"].values())


def test_bfloat16_is_used_where_it_is_asked_for(fabric, tmp_path: Path) -> None:
    met: list[torch.dtype] = []

    class Watched(TinyTask):
        def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            met.append(self.head(self.encoder.backbone(batch["image"])).dtype)
            return super().forward(batch)

    config = tiny_config(training={"precision": "bf16-mixed", "max_steps": 2})
    half = make_fabric(config.training)
    task = Watched()
    train(half, tmp_path / "a", config, task, on_epoch_end=lambda _, __, m: {"x": m(next(tiny_batches(0)))["loss"]})
    assert set(met) == {torch.bfloat16}
    assert len(met) == 3
    assert all(parameter.dtype == torch.float32 for parameter in task.parameters())


@pytest.mark.parametrize("name", STOP_SIGNALS)
def test_a_stop_signal_ends_the_step_saves_and_goes_on_later(fabric, tmp_path: Path, name: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOP_SIGNALS]
    config = tiny_config(training={"accumulate": 2})
    with pytest.raises(Interrupted) as interrupted:
        run_tiny(tmp_path / "a", config, stop_after=7, stop_by=name)
    # the eighth batch belongs to step 4, the end of an epoch: the figures of that epoch are taken later
    assert interrupted.value.step == 4
    assert [signal.getsignal(each) for each in STOP_SIGNALS] == before
    assert [line for line in records(tmp_path / "a") if "val/loss" in line] == []
    run_tiny(tmp_path / "a", config)
    run_tiny(tmp_path / "b", config)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


class Films(Dataset):
    """Films of which the sixth sends a stop signal to the whole family, the reading process included."""

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if index == 6:
            os.kill(self.parent, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return {"image": torch.full((1, 16, 16), index / 64), "label": torch.tensor(index % 2)}


def test_reading_processes_survive_a_signal_to_the_whole_group(fabric, tmp_path: Path) -> None:
    def batches(step: int) -> Iterator[dict[str, Tensor]]:
        yield from DataLoader(Films(os.getpid()), batch_size=2, num_workers=1, multiprocessing_context="fork")

    with pytest.raises(Interrupted) as interrupted:
        train(fabric, tmp_path, tiny_config(), batches=batches)
    assert multiprocessing.active_children() == []
    assert 1 <= interrupted.value.step <= 4
    assert (tmp_path / "checkpoints" / f"step-{interrupted.value.step:08d}.pt").is_file()


def test_another_split_or_length_is_refused_by_name(fabric, tmp_path: Path) -> None:
    run_tiny(tmp_path / "run", tiny_config(training={"max_steps": 3}))
    with pytest.raises(MimError, match="begun with split def and now has xyz"):
        run_tiny(
            tmp_path / "run",
            tiny_config(training={"max_steps": 3}),
            fingerprint={"config": "abc", "split": "xyz"},
        )
    with pytest.raises(MimError, match="begun with steps 3 and now has 12"):
        run_tiny(tmp_path / "run", tiny_config())


def test_a_checkpoint_of_another_task_is_refused(fabric, tmp_path: Path) -> None:
    train(fabric, tmp_path, tiny_config())
    task = TinyTask()
    task.head = nn.Linear(16, 3)
    with pytest.raises(MimError, match=r"step-00000012\.pt: does not fit the task"):
        train(fabric, tmp_path, tiny_config(), task)


def test_lost_best_weights_are_sought_anew(fabric, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Interrupted):
        run_tiny(tmp_path, tiny_config(), stop_after=9)
    (tmp_path / "checkpoints" / "best.safetensors").unlink()
    with caplog.at_level(logging.WARNING):
        outcome = run_tiny(tmp_path, tiny_config())
    assert "best.safetensors is gone or damaged" in caplog.text
    assert outcome.best is not None
    assert outcome.best.step == 12


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MimError, match=r"training\.accelerator=cuda: PyTorch sees no GPU"):
        make_fabric(TrainingConfig(accelerator="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(MimError, match="2 ranks and 1 GPUs"):
        make_fabric(TrainingConfig(accelerator="cuda"))


def test_killing_at_is_exact() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a process in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            list(zip(range(9), kill_at(tiny_batches(0), 3, signal.SIGINT), strict=False))
    finally:
        signal.signal(signal.SIGINT, before)
