import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import run_tiny, tiny_config

from mim.training import load_weights

SCRIPT = Path(__file__).with_name("tiny_run.py")
BLOCKS = {"training": {"accumulate": 2}, "optimizer": {"ema_decay": 0.9, "layer_decay": 0.8}}


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_killed_and_started_again_equals_never_killed(tmp_path: Path) -> None:
    never, killed = tmp_path / "never", tmp_path / "killed"
    run_tiny(never, tiny_config(**BLOCKS))
    # the sixteenth batch is the second of step 8: two steps after a checkpoint, and half way through a step
    first = start(killed, json.dumps(BLOCKS), "--kill-after", 15)
    assert first.returncode == -signal.SIGKILL, first.stderr
    assert len(losses(killed)) == 7
    second = start(killed, json.dumps(BLOCKS))
    assert second.returncode == 0, second.stderr
    assert (killed / "metrics.jsonl").read_bytes() == (never / "metrics.jsonl").read_bytes()
    ours, theirs = load_weights(killed / "model.safetensors"), load_weights(never / "model.safetensors")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_dropout_makes_the_seeds_matter(fabric, tmp_path: Path) -> None:
    run_tiny(tmp_path / "a", tiny_config(seed=0))
    run_tiny(tmp_path / "b", tiny_config(seed=1))
    assert losses(tmp_path / "a") != losses(tmp_path / "b")


def test_two_ranks_equal_one_with_twice_the_batch_and_stop_together(tmp_path: Path) -> None:
    two, one, stopped = tmp_path / "two", tmp_path / "one", tmp_path / "stopped"
    blocks = {"training": {"accumulate": 2}, "optimizer": {"ema_decay": 0.9}}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    options = ["--dropout", "0", "--token-from", "0.4", "--then-stop-rank", "1"]
    ended = subprocess.run(
        [sys.executable, *torchrun, SCRIPT, two, json.dumps(blocks), *options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    run_tiny(one, tiny_config(**blocks), dropout=0, token_from=0.4)
    assert len(losses(two)) == 12
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    assert "GLOBAL_RANK" not in ended.stderr
    assert "Traceback" not in ended.stderr

    # rank 1 alone got the signal, with the first batch of step 3
    assert [(two / f"stopped-{rank}").read_text() for rank in (0, 1)] == ["3", "3"]
    assert len(losses(stopped)) == 3
    # rank 0 alone looks at the folder, and both hear of it
    refused = [(two / f"refused-{rank}").read_text() for rank in (0, 1)]
    assert refused[0] == refused[1]
    assert "seed is 0 in this run and 1 now" in refused[0]
