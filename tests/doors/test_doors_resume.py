import csv
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from door_calls import PATIENCE, call, count_lines, losses, run, started, succeed, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS = 60
LONG = (f"training.max_steps={STEPS}", "training.checkpoint_every=3")


@contextmanager
def interrupted(name: str, folder: Path, *settings: str, by: signal.Signals, lines: int) -> Iterator[tuple[int, str]]:
    """A door that gets a signal when metrics.jsonl has so many lines; gives its exit status and standard error."""
    with started(name, *settings, f"output={folder}") as process:
        wait_until(lambda: count_lines(folder / "metrics.jsonl") >= lines, process)
        process.send_signal(by)
        _, err = process.communicate(timeout=PATIENCE)
        assert not (folder / "finished.json").exists(), "it was too quick to be interrupted"
        yield process.returncode, err


def test_pretraining_that_was_killed_and_stopped_gives_the_same_losses(
    unlabelled: tuple[str, ...], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = (*unlabelled, *LONG, "training.workers=1", "tracking.tensorboard=true")
    succeed("train", *unlabelled, *LONG, f"output={whole}")

    with interrupted("train", broken, *settings, by=signal.SIGKILL, lines=7) as (status, _):
        assert status == -signal.SIGKILL
    with interrupted("train", broken, *settings, by=signal.SIGTERM, lines=20) as (status, err):
        assert status == 75
        assert err.splitlines()[-1].startswith("stopped at step ")
        assert "start the same command again" in err.splitlines()[-1]
        assert "Traceback" not in err
    said = run("train", *settings, f"output={broken}")
    assert said.status == 0, said.err

    assert len(losses(whole)) == STEPS
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    events = EventAccumulator(str(broken / "tensorboard")).Reload().Scalars("train/loss")
    assert [event.step for event in events] == list(range(1, STEPS + 1)), "no step is missing or drawn twice"
    assert (broken / "encoder.safetensors").read_bytes() == (whole / "encoder.safetensors").read_bytes()


def test_fine_tuning_that_was_killed_gives_the_same_losses(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    brief = tuple(s for s in unlabelled if s.partition(".")[0] in ("tracking", "training"))
    settings = (*brief, *labelled, *LONG, f"init={pretrained}")
    succeed("finetune", *settings, f"output={whole}")

    with interrupted("finetune", broken, *settings, by=signal.SIGKILL, lines=7) as (status, _):
        assert status == -signal.SIGKILL
    succeed("finetune", *settings, f"output={broken}")

    assert len(losses(whole)) == STEPS
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    for folder in (whole, broken):
        succeed("evaluate", folder, "bootstrap=100", f"output={folder / 'report'}")
    assert (broken / "report" / "predictions.csv").read_bytes() == (whole / "report" / "predictions.csv").read_bytes()


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_a_finished_run_says_that_it_is_finished(
    name: str, unlabelled: tuple[str, ...], labelled: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    brief = tuple(s for s in unlabelled if s.partition(".")[0] in ("tracking", "training"))
    settings = unlabelled if name == "train" else (*brief, *labelled, f"init={pretrained}")
    settings = (*settings, f"output={tmp_path / 'run'}")
    succeed(name, *settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    said = call(name, *settings)
    assert said.status == 0
    assert f"{tmp_path / 'run'} is finished (3 steps)" in said.err
    changed = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert {path.name for path in changed} <= {".lock"}


def test_a_run_does_not_go_on_with_other_settings(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    settings = (*unlabelled, f"output={tmp_path / 'run'}")
    succeed("train", *settings)
    error = call("train", *settings, "optimizer.lr=0.5").error()
    assert "optimizer.lr is 0.001 in this run and 0.5 now" in error
    assert "output=another folder" in error


def test_a_run_does_not_go_on_with_other_labels_and_its_split_stays_as_it_was(
    phantom: Path, unlabelled: tuple[str, ...], labelled: tuple[str, ...], tmp_path: Path
) -> None:
    brief = tuple(s for s in unlabelled if not s.startswith("decoder"))
    labels = tmp_path / "labels.csv"
    labels.write_bytes((phantom / "labelled" / "labels.csv").read_bytes())
    settings = (*brief, *labelled, *LONG, f"data.labels={labels}")
    with interrupted("finetune", tmp_path / "run", *settings, by=signal.SIGKILL, lines=7) as (status, _):
        assert status == -signal.SIGKILL
    kept = {name: (tmp_path / "run" / name).read_bytes() for name in ("splits.csv", "task.json")}
    with labels.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with labels.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[1:])
    assert "put that back" in call("finetune", *settings, f"output={tmp_path / 'run'}").error()
    assert {name: (tmp_path / "run" / name).read_bytes() for name in kept} == kept
