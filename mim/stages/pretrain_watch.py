"""Seeing that pretraining learns: pictures, the loss beside what needs no learning, and figures of the encoder."""

import json
import math
from pathlib import Path

from torch import nn

from mim.config import PretrainConfig
from mim.data import PreparedDataset
from mim.errors import MimError
from mim.evaluation import loss_picture
from mim.models import baseline_losses
from mim.stages.common import logger, writing
from mim.stages.pretrain_films import batches_of, make_dataset
from mim.stages.pretrain_pictures import ReconstructionPictures
from mim.stages.pretrain_probe import EncoderProbe
from mim.tasks import MaskedImageModel
from mim.training import Looks, Plan, RunFolder, log_spaced

_BASELINES = {"mean": "predict the mean", "neighbours": "predict from the neighbours"}
_LAST_SHARE = 0.05  # of the steps, over which the final loss is averaged: that of one step is noisy


class Watch:
    """Looks at a run of pretraining. It asks the model in eval mode and without gradients, and changes nothing.

    Args:
        config: the run's.
        task: what is trained.
        films: the films.
        indices: which of them are trained on.
        folder: the run's.
        plan: its length.

    Raises:
        MimError: labels are to be probed and cannot be used.
    """

    def __init__(
        self,
        config: PretrainConfig,
        task: MaskedImageModel,
        films: PreparedDataset,
        indices: list[int],
        folder: RunFolder,
        plan: Plan,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.batch_size = config.training.batch_size
        chosen = indices[: config.watch.baseline_films]
        self.training = make_dataset(config, task, films, chosen, training=True) if chosen else None
        self.pictures = ReconstructionPictures(config, task, films, indices, folder)
        self.probe = EncoderProbe(config, task, films, indices)
        self.looks = Looks(frozenset(log_spaced(plan.total_steps, config.watch.looks)), self.look)
        self.baselines: dict[str, float] | None = None

    def look(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Draws the pictures and gives the figures of a step."""
        assert isinstance(module, MaskedImageModel)
        self.pictures.draw(step, module)
        figures = self._find_baselines(module) | self.probe.measure(module)
        self._draw_loss(step)
        return figures

    def _find_baselines(self, module: MaskedImageModel) -> dict[str, float]:
        """Finds the baselines at the first look of the run; gives them as figures only then."""
        if self.baselines is not None:
            return {}
        self.baselines = read_baselines(self.folder.metrics)
        if self.baselines or self.training is None:
            return {}
        device = next(module.parameters()).device
        self.baselines = baseline_losses(module, batches_of(self.training, self.batch_size, device)) or {}
        return {f"baseline_{name}": value for name, value in self.baselines.items()}

    def _draw_loss(self, step: int) -> None:
        steps, losses = read_losses(self.folder.metrics)
        if not any(map(math.isfinite, losses)):
            return
        picture = loss_picture(steps, losses, {_BASELINES[name]: line for name, line in (self.baselines or {}).items()})
        path = self.folder.pictures / "loss.png"
        with writing(path):
            path.write_bytes(picture)
        if step == self.plan.total_steps and self.baselines:
            judge(losses[-max(1, round(_LAST_SHARE * len(losses))) :], self.baselines)


def judge(last: list[float], baselines: dict[str, float]) -> None:
    """Says how the loss at the end of a run compares with what needs no learning, and warns where it is no better."""
    loss = sum(last) / len(last)
    said = ", ".join(f"{_BASELINES[name]} {value:.4f}" for name, value in baselines.items())
    logger.info("the loss came to %.4f; without learning: %s", loss, said)
    if not loss < min(baselines.values()):  # a loss that is no number is no better either
        logger.warning(
            "the model has not learnt more than interpolation: train for more steps (training.epochs, or a smaller "
            "training.batch_size), try another optimizer.lr, or lower masking.ratio until the first plateau of the "
            "loss is left; look at pictures/loss.png"
        )


def read_losses(path: Path) -> tuple[list[int], list[float]]:
    """Reads steps and losses from metrics.jsonl, less what a guide learns by; a loss that was not finite is NaN."""
    records = [record for record in _records(path) if "train/loss" in record]
    losses = [_number(record["train/loss"]) - _number(record.get("train/loss_guide", 0.0)) for record in records]
    return [int(record["step"]) for record in records], losses


def read_baselines(path: Path) -> dict[str, float]:
    """Reads the baselines from metrics.jsonl; empty where none stand in it."""
    for record in _records(path):
        found = {name: record[f"baseline_{name}"] for name in _BASELINES if f"baseline_{name}" in record}
        if found:
            return found
    return {}


def _records(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise MimError(f"{path}: cannot be read back; start the same command again") from error


def _number(value: float | None) -> float:
    return math.nan if value is None else value
