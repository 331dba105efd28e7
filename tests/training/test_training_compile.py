import json
from pathlib import Path

import pytest
import torch
from tiny_run import STEPS_PER_EPOCH, TinyTask, tiny_batches, tiny_config, tiny_figures
from torch._dynamo.testing import CompileCounterWithBackend

from mim.training import load_weights, open_run, train_task


class NoSchedule(TinyTask):
    """A tiny task that is not told where the run is: what changes at each step would be compiled anew."""

    set_progress = None

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = self.head(self.encoder.backbone(batch["image"]) + self.mask_token[0])
        return {"loss": torch.nn.functional.cross_entropy(logits, batch["label"])}


def train(fabric, path: Path, **training) -> NoSchedule:
    config = tiny_config(training={"max_steps": 6, **training}, optimizer={"ema_decay": 0.9})
    task = NoSchedule(dropout=0)
    with open_run(fabric, path, "seed: 0\n") as folder:
        train_task(
            fabric,
            task,
            tiny_batches,
            config=config,
            folder=folder,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint={},
            on_epoch_end=tiny_figures,
        )
    return task


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def test_a_compiled_task_trains_alike_and_keeps_its_names(fabric, tmp_path: Path, monkeypatch) -> None:
    counter = CompileCounterWithBackend("aot_eager")  # inductor takes most of a minute
    compile_task = NoSchedule.compile
    monkeypatch.setattr(NoSchedule, "compile", lambda self: compile_task(self, backend=counter))
    torch._dynamo.reset()
    compiled = train(fabric, tmp_path / "compiled", compile=True)
    assert counter.frame_count == 1, "compiled for training once, and not again at a later step"
    train(fabric, tmp_path / "plain")
    assert counter.frame_count == 1, "nothing is compiled that was not asked for"
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), abs=1e-4)
    ours, plain = (load_weights(tmp_path / name / "model.safetensors") for name in ("compiled", "plain"))
    assert ours.keys() == plain.keys() == compiled.state_dict().keys()
    checkpoints = [
        torch.load(tmp_path / name / "checkpoints" / "step-00000006.pt", weights_only=True)
        for name in ("compiled", "plain")
    ]
    assert checkpoints[0]["task"].keys() == checkpoints[1]["task"].keys()
    assert checkpoints[0]["average"].keys() == checkpoints[1]["average"].keys()
