"""A tiny task, and a run of it as a process of its own: `python tiny_run.py FOLDER '{"training": {...}}'`."""

import argparse
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from mim.config import RunConfig
from mim.errors import Interrupted, MimError
from mim.training import Monitor, Outcome, make_fabric, open_run, train_task

GLOBAL_BATCH = 8
STEPS_PER_EPOCH = 4


class TinyTask(nn.Module):
    """A ViT of two blocks of which each can drop things at random, and a head.

    Its mask token is used, and so has a gradient, from a share of the steps on.
    """

    def __init__(self, dropout: float = 0.2, token_from: float = 0.0) -> None:
        super().__init__()
        self.token_from = token_from
        torch.manual_seed(0)
        self.encoder = nn.Module()
        self.encoder.backbone = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=16,
            patch_size=8,
            in_chans=1,
            num_classes=0,
            embed_dim=16,
            depth=2,
            num_heads=2,
            proj_drop_rate=dropout,
            drop_path_rate=dropout,
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 16))
        self.head = nn.Linear(16, 2)
        self.progress: list[float] = []

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        pooled = self.encoder.backbone(batch["image"])
        if not self.progress or self.progress[-1] >= self.token_from:
            pooled = pooled + self.mask_token[0]
        logits = self.head(pooled)
        loss = nn.functional.cross_entropy(logits, batch["label"])
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return {"loss": loss, "accuracy": accuracy, "prediction": logits}

    def set_progress(self, fraction: float) -> None:
        self.progress.append(fraction)


def tiny_batches(step: int, accumulate: int = 1, rank: int = 0, ranks: int = 1) -> Iterator[dict[str, Tensor]]:
    """Batches that follow from the step; the ranks share each of them out."""
    number = step * accumulate
    while True:
        generator = torch.Generator().manual_seed(number)
        label = torch.randint(0, 2, (GLOBAL_BATCH,), generator=generator)
        image = torch.rand(GLOBAL_BATCH, 1, 16, 16, generator=generator) + label[:, None, None, None]
        yield {"image": image[rank::ranks], "label": label[rank::ranks]}
        number += 1


def tiny_config(**blocks: object) -> RunConfig:
    """A configuration for a few steps on the CPU, nothing tracked but metrics.jsonl."""
    blocks.setdefault("tracking", {"tensorboard": False, "wandb": "off"})
    blocks["training"] = {"epochs": 3, "accelerator": "cpu", "checkpoint_every": 3, **blocks.get("training", {})}
    blocks["optimizer"] = {"warmup": 0.2, **blocks.get("optimizer", {})}
    return RunConfig.model_validate_json(json.dumps(blocks))


def tiny_figures(step: int, epoch: int, module: nn.Module) -> dict[str, float]:
    """The loss of one batch that is never trained on."""
    return {"val/loss": module(next(tiny_batches(10_000)))["loss"].item()}


def kill_at(batches: Iterator[dict[str, Tensor]], countdown: int, name: int) -> Iterator[dict[str, Tensor]]:
    """Sends this process a signal when so many batches were given."""
    for number, batch in enumerate(batches):
        if number == countdown:
            os.kill(os.getpid(), name)
        yield batch


def run_tiny(
    folder: Path,
    config: RunConfig,
    *,
    dropout: float = 0.2,
    token_from: float = 0.0,
    stop_after: int | None = None,
    stop_by: int = signal.SIGTERM,
    stop_rank: int = 0,
    config_text: str = "seed: 0\n",
    fingerprint: dict[str, str] | None = None,
) -> Outcome:
    """Trains the tiny task in a folder."""
    fabric = make_fabric(config.training, find_unused_parameters=token_from > 0)
    rank, ranks = fabric.global_rank, fabric.world_size

    def batches(step: int) -> Iterator[dict[str, Tensor]]:
        stream = tiny_batches(step, config.training.accumulate, rank, ranks)
        return stream if stop_after is None or rank != stop_rank else kill_at(stream, stop_after, stop_by)

    with open_run(fabric, folder, config_text) as opened:
        return train_task(
            fabric,
            TinyTask(dropout, token_from),
            batches,
            config=config,
            folder=opened,
            steps_per_epoch=STEPS_PER_EPOCH,
            fingerprint=fingerprint or {"config": "abc", "split": "def"},
            on_epoch_end=tiny_figures,
            monitor=Monitor("val/loss", "min"),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("config", type=json.loads)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--token-from", type=float, default=0.0)
    parser.add_argument("--kill-after", type=int)
    parser.add_argument("--then-stop-rank", type=int)
    arguments = parser.parse_args()
    rank = os.environ.get("RANK", "0")
    try:
        run_tiny(
            arguments.folder,
            tiny_config(**arguments.config),
            dropout=arguments.dropout,
            token_from=arguments.token_from,
            stop_after=arguments.kill_after,
            stop_by=signal.SIGKILL,
        )
        if arguments.then_stop_rank is not None:
            second = arguments.folder.with_name("stopped")
            run_tiny(second, tiny_config(**arguments.config), stop_after=4, stop_rank=arguments.then_stop_rank)
    except Interrupted as interrupted:
        (arguments.folder / f"stopped-{rank}").write_text(str(interrupted.step))
        try:
            run_tiny(second, tiny_config(**arguments.config), config_text="seed: 1\n")
        except MimError as error:
            (arguments.folder / f"refused-{rank}").write_text(str(error))


if __name__ == "__main__":
    main()
