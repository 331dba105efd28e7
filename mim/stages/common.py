"""What the stages share."""

import errno
import hashlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from lightning_fabric import Fabric
from torch import Tensor

from mim.config import DataConfig, EncoderConfig, InputConfig, RunConfig
from mim.data import PreparedDataset, open_or_prepare
from mim.data.loader import Batched, to_float, train_loader
from mim.errors import MimError
from mim.files import reason
from mim.models import Encoder, create_encoder, export_encoder, load_foreign_weights
from mim.models.lora import plain_state
from mim.tasks import MaskedClassifier, MaskedDetector, MaskedImageModel, MaskedSegmenter, MaskedStudyClassifier
from mim.training import Outcome, RunFolder

_SPOKEN_FOR = {"name", "image_size", "img_size", "in_chans", "hidden", "patch_size", "pretrained", "fill"}

logger = logging.getLogger("mim")


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to what is standard error at the time: it may have been turned elsewhere, or closed, since the start."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a line."""
        self.stream = sys.stderr
        super().emit(record)


def start_logging() -> None:
    """Sends what mim says to standard error, from the first rank; from the others only errors."""
    first = int(os.environ.get("RANK", "0")) == 0
    logger.setLevel(logging.INFO if first else logging.ERROR)
    if not logger.handlers:
        handler = StandardError()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False


def open_films(data: DataConfig) -> PreparedDataset:
    """Opens, after preparing it if need be, the folder of films that a configuration names.

    Raises:
        MimError: there is no such folder, or nothing in it can be read.
    """
    if not data.path:
        raise MimError("data.path is not set: give data.path=<folder of films, or prepared dataset>")
    return open_or_prepare(
        Path(data.path),
        Path(data.cache),
        long_side=data.long_side,
        bits=data.bits,
        voi=data.voi,
        color=data.color,
        crop=data.crop,
        tile=data.tile,
        tile_overlap=data.tile_overlap,
    )


@dataclass(frozen=True)
class NetworkInput:
    """What the network meets: size in pixels, and how pixels in [0, 1] are normalised."""

    image_size: tuple[int, int] = (224, 224)
    mean: float = 0.45  # ImageNet's mean and deviation, averaged over the channels; films are close to them
    std: float = 0.225


def resolve_input(given: InputConfig, otherwise: NetworkInput | None = None) -> NetworkInput:
    """Takes what is configured, and the rest from elsewhere (from the run to start from, else the defaults)."""
    otherwise = otherwise or NetworkInput()
    return NetworkInput(
        image_size=given.image_size or otherwise.image_size,
        mean=otherwise.mean if given.mean is None else given.mean,
        std=otherwise.std if given.std is None else given.std,
    )


def configured_encoder(chosen: EncoderConfig, image_size: tuple[int, int]) -> Encoder:
    """Builds the encoder that a configuration describes, for films of one channel, and says what `weights` gave it.

    Raises:
        MimError: it cannot be built or hidden as asked, or the file of weights does not fit it.
    """
    if chosen.pretrained and chosen.weights is not None:
        raise MimError("encoder.weights and encoder.pretrained both say what to start from; give one of them")
    if spoken_for := sorted(_SPOKEN_FOR & chosen.timm_args.keys()):
        raise MimError(
            f"encoder.timm_args.{spoken_for[0]}: is not set here; input.image_size and encoder.patch_size, hidden, "
            "fill and pretrained say it, and films have one channel"
        )
    encoder = create_encoder(
        chosen.name, image_size, 1, chosen.hidden, chosen.patch_size, chosen.pretrained, chosen.fill, **chosen.timm_args
    )
    if chosen.weights is not None:
        logger.info("encoder from %s: %s", chosen.weights, load_foreign_weights(encoder.backbone, chosen.weights))
    return encoder


def content_hash(films: PreparedDataset, indices: Sequence[int]) -> str:
    """Hash of the stored pixels of some films, in their order."""
    digest = hashlib.sha256()
    for index in indices:
        digest.update(films.rows[index].sha256.encode())
    return digest.hexdigest()


def steps_per_epoch(config: RunConfig, films: int, world: int) -> int:
    """Steps in which about all films are met once; at least one, since batches wrap around."""
    return max(1, films // (config.training.batch_size * config.training.accumulate * world))


class TrainBatches:
    """Gives the loop this rank's batches from any step on.

    Args:
        dataset: the training films, or other samples.
        config: seed, batch size and workers are read.
        fabric: tells the rank.
        total_steps: the step before which to stop.
        balance: class of each sample, for as many samples of each in an epoch; None = all samples equally often.
    """

    def __init__(
        self,
        dataset: Batched,
        config: RunConfig,
        fabric: Fabric,
        total_steps: int,
        balance: Sequence[int] | None = None,
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.fabric = fabric
        self.total_steps = total_steps
        self.balance = balance

    def __call__(self, start_step: int) -> Iterator[dict[str, Tensor]]:
        """Begins with the batches of the step after `start_step` steps; images are floats, on the device."""
        training = self.config.training
        loader = train_loader(
            self.dataset,
            batch_size=training.batch_size,
            seed=self.config.seed,
            world=self.fabric.world_size,
            rank=self.fabric.global_rank,
            accumulate=training.accumulate,
            start_step=start_step,
            total_steps=self.total_steps,
            workers=training.workers,
            balance=self.balance,
        )
        for batch in loader:
            moved: dict[str, Tensor] = self.fabric.to_device(batch)
            yield {**moved, "image": to_float(moved["image"])}


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Wraps what writes to a place.

    Args:
        place: a file or folder, for the message.

    Raises:
        MimError: it could not be written.
    """
    try:
        yield
    except OSError as error:
        raise MimError(
            f"{place}: could not be written, {reason(error)}; mend that and start the same command again"
        ) from error


def require_writable(folder: Path) -> None:
    """Refuses a folder into which nothing could be written, before hours are spent on what would go there.

    Args:
        folder: where it goes; it need not be there yet.

    Raises:
        MimError: naming what is in the way.
    """
    with writing(folder):
        place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"there is no permission to write into {place} (give output=...)")


def say_finished(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Says that there is nothing left to do."""
    logger.info(
        "%s is finished (%s steps); give output=<another folder> for another run", folder.path, summary.get("steps")
    )


def finish(
    folder: RunFolder,
    task: MaskedImageModel | MaskedClassifier | MaskedStudyClassifier | MaskedDetector | MaskedSegmenter,
    outcome: Outcome,
    *lines: str,
) -> None:
    """Exports the encoder of a trained task, marks its run as finished and writes lines to standard output."""
    with writing(folder.path / "encoder.safetensors"):
        export_encoder(folder.path, task.encoder, plain_state(task.encoder.backbone), task.mean, task.std)
    folder.mark_finished(asdict(outcome))
    write_lines(*lines)


def write_lines(*lines: str) -> None:
    """Writes the result of a stage to standard output."""
    sys.stdout.write("\n".join(chain(lines, [""])))
    sys.stdout.flush()
