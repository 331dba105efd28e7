import getpass
import io
import json
import math
import socket
import sys
from pathlib import Path

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_run import tiny_config

from mim.config import PretrainConfig
from mim.errors import MimError
from mim.training import RunFolder
from mim.training.metrics_file import MetricsFile
from mim.training.progress import Progress
from mim.training.tracking import Tracker, hyperparameters
from mim.training.wandb_run import WandbRun


def test_metrics_keep_every_bit_and_stand_alone(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0, 0)
    metrics.write(1, 1, {"loss": 0.1 + 0.2, "auroc": math.nan})
    record = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert record == {"step": 1, "epoch": 1, "loss": 0.30000000000000004, "auroc": None}


def test_metrics_are_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path, 0, 0)
    for step in (1, 2, 3):
        metrics.write(step, 1, {"loss": step})
    lines = metrics.lines
    metrics.write(3, 1, {"val": 0.5})
    metrics.write(4, 2, {"loss": 4})
    metrics.close()
    with path.open("a") as file:
        file.write('{"step": 5, "ep')
    again = MetricsFile(path, 3, lines)
    again.write(4, 2, {"loss": 40})
    steps = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in steps] == [1, 2, 3, 4]
    assert steps[-1]["loss"] == 40
    assert MetricsFile(path, 2, 100).lines == 2
    assert MetricsFile(path, 0, 0).lines == 0


def test_wandb_and_tensorboard_stay_inside_and_name_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    config = tiny_config(tracking={"tensorboard": True, "wandb": "offline"}, data={"path": "/films/of/ward-7"})
    for first in (1, 3):
        with Tracker(folder, config, first - 1, first - 1) as tracker:
            for step in (first, first + 1, first + 2):
                tracker.write(step, 1, {"train/loss": step / 10}, {"images_per_second": 5.0})
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [1, 2, 3, 4, 5]
    assert "images_per_second" not in folder.metrics.read_text()
    timings = [json.loads(line) for line in folder.timings.read_text().splitlines()]
    assert timings == [{"step": step, "epoch": 1, "images_per_second": 5.0} for step in (1, 2, 3, 4, 5)]

    events = EventAccumulator(str(folder.tensorboard)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5]

    files = [path for path in folder.wandb.rglob("*") if path.is_file()]
    assert len({path.name for path in files if path.suffix == ".wandb"}) == 1
    assert len([path for path in files if path.suffix == ".wandb"]) == 2
    content = b"".join(path.read_bytes() for path in files)
    assert b"train/loss" in content
    assert b"ward-7" not in content
    for private in (f"{tmp_path}", socket.gethostname() + "\n", str(Path.home()), sys.executable, sys.argv[0]):
        assert private.encode() not in content
    if len(getpass.getuser()) > 4:
        assert getpass.getuser().encode() not in content
    assert capfd.readouterr().out == ""


def test_hyperparameters_name_no_file() -> None:
    paths = {"data": {"path": "/clinic"}, "probe": {"path": "/clinic", "labels": "clinic.csv"}, "output": "/runs/x"}
    written = hyperparameters(PretrainConfig.model_validate(paths))
    assert written["encoder"]["name"] == "vit_tiny_patch16_224"
    assert "clinic" not in json.dumps(written)
    assert "/runs" not in json.dumps(written)


def test_progress_is_plain_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(100, 40, shown=True) as progress:
        for _ in range(60):
            progress.advance(0.5, 320.4, 0.034)
    with Progress(100, 0, shown=False) as progress:
        progress.advance(0.5, 320.4, 0.034)
    assert "\r" not in stream.getvalue()
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) <= 3
    assert "100/100" in lines[-1]
    assert "loss 0.5000, 320 images/s, 3% waiting for data" in lines[-1]


def test_wandb_that_cannot_begin_stops_only_an_online_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(**settings: object) -> None:
        raise wandb.errors.CommError("no way out\nand more")

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = WandbRun(tmp_path, "offline", "mim", {})
    run.write(1, {"loss": 1.0})
    run.close(failed=False)
    assert "wandb could not begin (no way out)" in caplog.text
    with pytest.raises(MimError, match=r"^tracking\.wandb=online: no way out; log in, or give .*offline$"):
        WandbRun(tmp_path, "online", "mim", {})
