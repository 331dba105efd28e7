import json
import sys
from pathlib import Path

import pytest
import torch
from door_calls import call, own_logging
from searching import found_in

from mim.config import door
from mim.stages.replay import main

DIVERGES = ("training.max_steps=9", "optimizer.lr=1e30", "optimizer.warmup=0", "training.max_skipped=2")


def replay(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["replay", *map(str, words)])
    with own_logging():
        status = door(main)
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize("door_name", ["train", "finetune"])
def test_a_run_that_diverged_can_be_replayed(
    door_name: str,
    phantom: Path,
    unlabelled: tuple[str, ...],
    labelled: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    brief = tuple(setting for setting in unlabelled if not setting.startswith(("decoder", "data")))
    settings = unlabelled if door_name == "train" else (*brief, *labelled)
    error = call(door_name, *settings, *DIVERGES, f"output={folder}").error()
    assert "in the 2 steps before (training.max_skipped=2); lower optimizer.lr" in error
    assert f"python -m mim.stages.replay {folder}" in error
    kept = folder / "nonfinite"
    assert sorted(path.name for path in kept.iterdir()) == ["model.safetensors", "rank-0.json", "rank-0.pt"]
    (batch,) = torch.load(kept / "rank-0.pt", weights_only=True)
    assert set(batch) <= {"image", "visible", "index", "label"}
    assert found_in(kept, ["film-0", str(phantom), "PHANTOM"]) == [], "pixels, and nothing that names a film"

    status, out, _ = replay(capsys, monkeypatch, folder)
    assert status == 0
    step = json.loads((kept / "rank-0.json").read_text())["step"]
    assert out.startswith(f"step {step}, where the loss is nan: first not finite in ")
    assert any(word in out for word in ("the weights: ", "batch 1: what "))

    status, _, err = replay(capsys, monkeypatch, folder, "--rank", 1)
    assert status == 2
    assert "no nonfinite/rank-1.pt in it" in err
