import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_calls import Said, call, losses, succeed

SIZE = 8 * 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root and mount")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def call_with_room(room: int, disk: Path, name: str, *settings: object) -> Said:
    """Runs a door while all but so many bytes of a disk are taken."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - room))
    try:
        return call(name, *settings)
    finally:
        ballast.unlink()


@pytest.mark.parametrize(("checkpoints_that_fit", "wanted"), [(0.5, "no earlier checkpoint"), (1.5, "of step 3 is")])
def test_a_full_disk_at_checkpoint_time(
    checkpoints_that_fit: float,
    wanted: str,
    unlabelled: tuple[str, ...],
    pretrained: Path,
    small_disk: Path,
    tmp_path: Path,
) -> None:
    checkpoint = max(path.stat().st_size for path in (pretrained / "checkpoints").glob("*.pt"))
    steps = ("training.max_steps=6", "training.checkpoint_every=3", "watch.looks=0")
    settings = (*unlabelled, *steps, f"output={small_disk / 'run'}")
    error = call_with_room(int(checkpoint * checkpoints_that_fit), small_disk, "train", *settings).error()
    assert f"{small_disk / 'run' / 'checkpoints'}" in error
    assert "the disk is full" in error
    assert wanted in error
    assert "make room and start the same command again" in error

    succeed("train", *settings)
    succeed("train", *unlabelled, *steps, f"output={tmp_path / 'whole'}")
    assert losses(small_disk / "run") == losses(tmp_path / "whole")
    assert not list((small_disk / "run").rglob("*.tmp"))


@pytest.mark.parametrize("room", [0, 8192, 65536])
def test_a_full_disk_before_the_first_checkpoint(room: int, unlabelled: tuple[str, ...], small_disk: Path) -> None:
    settings = (*unlabelled, "watch.looks=12", f"output={small_disk / 'run'}")
    error = call_with_room(room, small_disk, "train", *settings, "tracking.tensorboard=true").error()
    assert "could not be written, the disk is full" in error or "cannot be written, the disk is full" in error
    succeed("train", *settings)


def test_a_full_disk_at_evaluation(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], small_disk: Path, tmp_path: Path
) -> None:
    brief = tuple(setting for setting in unlabelled if not setting.startswith(("decoder", "data")))
    succeed("finetune", *brief, *labelled, f"output={tmp_path / 'run'}")
    line = ("evaluate", tmp_path / "run", "bootstrap=100", f"output={small_disk / 'report'}")
    assert "the disk is full" in call_with_room(4096, small_disk, *line).error()
    succeed(*line)
    assert (small_disk / "report" / "report.html").is_file()
