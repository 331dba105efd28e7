"""Pretraining: hide cells of unlabelled films, rebuild them, keep the encoder."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from mim.config import PretrainConfig, dump_config
from mim.data import PreparedDataset, dataset_salt, derive_seed, excluded_from_pretraining, save_seen
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import FilmDataset
from mim.errors import MimError
from mim.evaluation import Reconstruction, reconstruction_picture
from mim.masking import RandPatchMaskd
from mim.models import create_decoder
from mim.stages.common import (
    TrainBatches,
    configured_encoder,
    content_hash,
    finish,
    logger,
    open_films,
    resolve_input,
    say_finished,
    steps_per_epoch,
    writing,
)
from mim.tasks import MaskedImageModel
from mim.training import Plan, RunFolder, load_weights, make_fabric, on_rank_zero, open_run, train_task

PICTURED_FILMS = 4


def pretrain(config: PretrainConfig) -> Path:
    """Trains a masked image model as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run, with encoder.safetensors and encoder.json in it.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    task = build_task(config)
    films = open_films(config.data)
    indices = choose_films(config, films)
    # what pooling and classification need has no gradient here
    fabric = make_fabric(config.training, find_unused_parameters=True)
    with open_run(fabric, Path(str(config.output)), dump_config(config)) as folder:
        if (summary := folder.read_finished()) is not None:
            on_rank_zero(fabric, lambda: say_finished(folder, summary))
            return folder.path
        dataset = make_dataset(config, task, films, indices, training=True)
        per_epoch = steps_per_epoch(config, len(indices), fabric.world_size)
        logger.info("%d films, %d steps an epoch", len(indices), per_epoch)
        plan = Plan.from_config(config.training, per_epoch)

        def begin() -> None:
            with writing(folder.path / "seen.csv"):
                save_seen(folder.path / "seen.csv", films, indices)

        outcome = train_task(
            fabric,
            task,
            TrainBatches(dataset, config, fabric, plan.total_steps),
            config=config,
            folder=folder,
            steps_per_epoch=per_epoch,
            fingerprint={"films": content_hash(films, indices)},
            on_epoch_end=ReconstructionPictures(config, task, films, indices, folder, plan),
            on_begin=begin,
        )

        say = (f"encoder: {folder.path / 'encoder.safetensors'}", f"use it: init={folder.path}")
        on_rank_zero(fabric, lambda: finish(folder, task, outcome, *say))
        return folder.path


def build_task(config: PretrainConfig) -> MaskedImageModel:
    """Builds the model from its settings and seed alone.

    Raises:
        MimError: the encoder cannot be built or hidden as asked.
    """
    torch.manual_seed(config.seed)
    meets = resolve_input(config.input)
    encoder = configured_encoder(config.encoder, meets.image_size)
    if encoder.grid() == (1, 1):
        raise MimError(f"input.image_size: one cell of {encoder.patch_size} pixels is too few to hide some; enlarge it")
    decoder = create_decoder(encoder, config.decoder.width, config.decoder.depth, config.decoder.heads)
    return MaskedImageModel(encoder, decoder, config.target.normalize_pixels, meets.mean, meets.std)


def load_pretrained_task(run: Path, config: PretrainConfig) -> MaskedImageModel:
    """Builds the model of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    task = build_task(config)
    try:
        task.load_state_dict(load_weights(run / "model.safetensors"))
    except RuntimeError as error:
        raise MimError(f"{run / 'model.safetensors'}: does not fit config.yaml beside it") from error
    return task


def choose_films(config: PretrainConfig, films: PreparedDataset) -> list[int]:
    """Every film but those of the test split that `data.exclude` names; at most `data.train_limit` of them.

    Raises:
        MimError: nothing is left.
    """
    salt = dataset_salt(films, Path(config.data.cache))
    excluded = excluded_from_pretraining(films, Path(config.data.path), config.data.exclude, salt)
    indices = [index for index in range(len(films)) if index not in excluded]
    if not indices:
        raise MimError(f"{config.data.path}: all {len(films)} films are left out by data.exclude={config.data.exclude}")
    return limit_films(films, indices, config.data.train_limit, config.seed)


def limit_films(films: PreparedDataset, indices: list[int], limit: int | None, seed: int) -> list[int]:
    """Keeps at most so many films: whole patients, drawn by seed. A larger limit keeps all that a smaller one keeps.

    Raises:
        MimError: the limit is too small for one patient.
    """
    if limit is None or limit >= len(indices):
        return indices
    patients: dict[str, list[int]] = {}
    for index in indices:
        row = films.rows[index]
        patients.setdefault(row.patient_id or row.image, []).append(index)
    # A patient goes by the path of a film here: unlike the hashed id, that draws the same on another machine.
    drawn = sorted(patients.values(), key=lambda own: derive_seed(seed, "patient", films.rows[own[0]].image))
    kept: list[int] = []
    for own in drawn:
        if len(kept) + len(own) > limit:
            break
        kept.extend(own)
    if not kept:
        raise MimError(f"data.train_limit {limit} is too small to hold a patient: raise it")
    return sorted(kept)


def make_dataset(
    config: PretrainConfig, task: MaskedImageModel, films: PreparedDataset, indices: list[int], *, training: bool
) -> FilmDataset:
    """Films with a random mask over each; in training also cropped and flipped at random."""
    size = task.encoder.image_size
    transform = train_transform(config.augment, size) if training else evaluation_transform(size)
    mask = RandPatchMaskd("image", patch_size=task.encoder.patch_size, masking_ratio=config.masking.ratio)
    # the mask looks at the size of the image alone
    return FilmDataset(films, indices, transform, config.seed, transforms=[mask], integers=training)


class ReconstructionPictures:
    """Draws, every few epochs, what the model makes of some films, always the same under the same masks."""

    def __init__(
        self,
        config: PretrainConfig,
        task: MaskedImageModel,
        films: PreparedDataset,
        indices: list[int],
        folder: RunFolder,
        plan: Plan,
    ) -> None:
        self.every = config.picture_every
        self.folder = folder.pictures
        self.last_step = plan.total_steps
        dataset = make_dataset(config, task, films, indices[:PICTURED_FILMS], training=False)
        self.batch: dict[str, Tensor] = default_collate([dataset[0, place] for place in range(len(dataset))])

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Draws a sheet if it is time for one; gives no figures."""
        if epoch % self.every and step != self.last_step:
            return {}
        assert isinstance(module, MaskedImageModel)
        sheet = reconstruction_picture(reconstruct(module, self.batch))
        path = self.folder / f"epoch-{epoch:05d}.png"
        with writing(path):
            path.write_bytes(sheet)
        return {}


def reconstruct(task: MaskedImageModel, batch: dict[str, Tensor]) -> list[Reconstruction]:
    """Rebuilds the films of a batch (on the CPU) on the task's device."""
    device = next(task.parameters()).device
    rebuilt = task.reconstruct({name: batch[name].to(device) for name in ("image", "visible")})
    rows = zip(batch["image"], batch["visible"], rebuilt.float().cpu(), strict=True)
    return [Reconstruction(image[0].numpy(), visible.numpy(), restored[0].numpy()) for image, visible, restored in rows]
