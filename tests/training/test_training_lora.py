from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mim.config import RunConfig
from mim.errors import Interrupted
from mim.models import create_encoder
from mim.models.lora import LowRank
from mim.models.tuning import Tuning, tune
from mim.tasks import MaskedClassifier
from mim.training import make_fabric, open_run, train_task
from mim.training.weights import load_weights

STEPS = 6


def settings() -> RunConfig:
    return RunConfig.model_validate(
        {
            "tracking": {"tensorboard": False, "wandb": "off"},
            "training": {"epochs": 2, "accelerator": "cpu", "checkpoint_every": 1, "keep_checkpoints": 99},
            "optimizer": {"lr": 1e-2, "weight_decay": 0.5, "layer_decay": 0.8, "ema_decay": 0.6},
        }
    )


def start() -> MaskedClassifier:
    torch.manual_seed(0)
    arguments = {"depth": 2, "embed_dim": 24, "num_heads": 2, "drop_path_rate": 0.3}
    task = MaskedClassifier(create_encoder("vit_tiny_patch16_224", (32, 32), 1, **arguments))
    tune(task.encoder, Tuning("lora", low_rank=LowRank(rank=2)))
    return task


def train(folder: Path, stop_after: int | None = None) -> MaskedClassifier:
    config, task = settings(), start()
    fabric = make_fabric(config.training, find_unused_parameters=True)

    def batches(step: int) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            if step == stop_after:
                raise Interrupted(step)
            generator = torch.Generator().manual_seed(step)
            yield {"image": torch.rand(4, 1, 32, 32, generator=generator), "label": torch.tensor([0, 1, 1, 0])}
            step += 1

    with open_run(fabric, folder, "seed: 0\n") as opened:
        train_task(fabric, task, batches, config=config, folder=opened, steps_per_epoch=STEPS // 2, fingerprint={})
    return task


def test_low_rank_updates_go_on_exactly_and_their_average_is_kept(tmp_path: Path) -> None:
    task = train(tmp_path / "whole")
    whole, fresh = load_weights(tmp_path / "whole" / "model.safetensors"), start().state_dict()
    moved = {name for name in whole if not torch.equal(whole[name], fresh[name])}
    assert {name for name in moved if name.startswith("encoder.")} == {
        name for name in fresh if name.endswith((".up", ".down"))
    }
    assert moved > {"head.linear.weight"}
    last = torch.load(tmp_path / "whole" / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)["task"]
    name = next(name for name in moved if name.endswith(".up"))
    assert not torch.equal(last[name], whole[name]), "what is exported is the moving average"
    assert torch.equal(task.state_dict()[name], whole[name])

    with pytest.raises(Interrupted):
        train(tmp_path / "broken", stop_after=3)
    train(tmp_path / "broken")
    broken = load_weights(tmp_path / "broken" / "model.safetensors")
    assert broken.keys() == whole.keys()
    assert all(torch.equal(broken[name], whole[name]) for name in whole)
