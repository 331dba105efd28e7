"""The films that are pretrained on, and what is hidden of each."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import default_collate

from mim.config import PretrainConfig
from mim.data import PreparedDataset, dataset_salt, derive_seed, excluded_from_pretraining
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import FilmDataset, to_float
from mim.errors import MimError
from mim.masking import RandPatchMaskd
from mim.tasks import MaskedImageModel


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
    """Films with a mask over each, drawn as configured; in training also cropped and flipped at random.

    Where a guide inside the model decides what is hidden, the mask of a film is the random one that the guide starts
    from. Pictures are drawn under that: they then show the same cells from the first to the last.
    """
    size = task.encoder.image_size
    transform = train_transform(config.augment, size) if training else evaluation_transform(size)
    masking = config.masking
    mask = RandPatchMaskd(
        "image",
        patch_size=task.encoder.patch_size,
        masking_ratio=masking.ratio,
        pattern=masking.pattern,
        unit=masking.unit,
        guided_share=masking.guided_share,
        exact=masking.exact,
    )
    return FilmDataset(films, indices, transform, config.seed, transforms=[mask], integers=training)


def batches_of(dataset: FilmDataset, batch_size: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Gives the films of a dataset once, as of epoch 0, on a device; images are floats."""
    for start in range(0, len(dataset), batch_size):
        batch = default_collate([dataset[0, place] for place in range(start, min(start + batch_size, len(dataset)))])
        yield {
            name: to_float(value.to(device)) if name == "image" else value.to(device) for name, value in batch.items()
        }
