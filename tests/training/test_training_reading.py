from pathlib import Path

import pytest
import torch
from test_training_nonfinite import WithBatchNorm, spoilt
from tiny_run import STEPS_PER_EPOCH, kill_at, tiny_batches, tiny_config, tiny_figures

from mim.errors import Interrupted, MimError
from mim.training import load_weights, loop, open_run, train_task


def train(fabric, path: Path, batches, *, late: bool, decay: float | None = None, **training):
    config = tiny_config(training=training, optimizer={"ema_decay": decay})
    with open_run(fabric, path, "seed: 0\n") as folder:
        return train_task(
            fabric,
            WithBatchNorm(),
            batches,
            config=config,
            folder=folder,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint={},
            on_epoch_end=tiny_figures,
            read_late=late,
        )


def bytes_of(path: Path) -> tuple[bytes, bytes]:
    return (path / "metrics.jsonl").read_bytes(), (path / "model.safetensors").read_bytes()


def test_reading_late_changes_nothing_that_is_written(fabric, tmp_path: Path) -> None:
    for late in (False, True):
        train(fabric, tmp_path / str(late), tiny_batches, late=late, decay=0.9, checkpoint_every=5)
    assert bytes_of(tmp_path / "True") == bytes_of(tmp_path / "False")


def test_bad_steps_are_skipped_on_the_device_and_counted_as_they_would_be(fabric, tmp_path: Path) -> None:
    outcomes = [
        train(fabric, tmp_path / str(late), spoilt([2, 3, 9]), late=late, checkpoint_every=100)
        for late in (False, True)
    ]
    assert [outcome.skipped_steps for outcome in outcomes] == [3, 3]
    assert bytes_of(tmp_path / "True") == bytes_of(tmp_path / "False")
    assert all(
        torch.isfinite(tensor).all() for tensor in load_weights(tmp_path / "True" / "model.safetensors").values()
    )


def test_a_run_that_is_stopped_ends_at_a_step_that_it_can_go_on_from(fabric, tmp_path: Path) -> None:
    train(fabric, tmp_path / "whole", tiny_batches, late=True)
    with pytest.raises(Interrupted):
        train(fabric, tmp_path / "stopped", lambda step: kill_at(tiny_batches(step), 4, 15), late=True)
    train(fabric, tmp_path / "stopped", tiny_batches, late=True)
    assert bytes_of(tmp_path / "stopped") == bytes_of(tmp_path / "whole")


def test_too_many_bad_steps_stop_a_run_that_reads_late(fabric, tmp_path: Path) -> None:
    for late in (False, True):
        with pytest.raises(MimError, match="at step 7 and so it was in the 2 steps before"):
            train(fabric, tmp_path / str(late), spoilt([5, 6, 7]), late=late, max_skipped=2, checkpoint_every=100)
    kept = [load_weights(tmp_path / str(late) / "nonfinite" / "model.safetensors") for late in (False, True)]
    assert all(torch.equal(tensor, kept[1][name]) for name, tensor in kept[0].items())


def test_the_device_is_given_the_next_step_before_the_last_one_is_read(fabric, tmp_path: Path, monkeypatch) -> None:
    events = []
    begin, read = loop.Reading.__init__, loop.Reading.read

    def noted_begin(self, *args, **given):
        begin(self, *args, **given)
        events.append(("begun", self.step))

    def noted_read(self):
        events.append(("read", self.step))
        return read(self)

    monkeypatch.setattr(loop.Reading, "__init__", noted_begin)
    monkeypatch.setattr(loop.Reading, "read", noted_read)
    train(fabric, tmp_path, tiny_batches, late=True, checkpoint_every=100)
    assert events[:5] == [("begun", 1), ("begun", 2), ("read", 1), ("begun", 3), ("read", 2)]
