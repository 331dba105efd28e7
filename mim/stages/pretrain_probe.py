"""What the encoder under pretraining knows: RankMe of unlabelled films, and probes on labelled ones."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mim.config import PretrainConfig, ProbeConfig
from mim.data import LabelledFilm, PreparedDataset, attach_labels, dataset_salt, limit_training, split_films
from mim.data.augment import evaluation_transform
from mim.data.loader import FilmDataset
from mim.errors import MimError
from mim.evaluation import linear_probe, nearest_neighbours, rankme
from mim.stages.common import open_films
from mim.stages.pretrain_films import batches_of
from mim.tasks import MaskedImageModel


def check_probe(config: PretrainConfig) -> None:
    """Makes sure that a probe is described wholly or not at all.

    Raises:
        MimError: one of `probe.labels` and `probe.target` is missing, or there is nobody to ask for them.
    """
    probe = config.probe
    if (probe.labels is None) != (probe.target is None):
        missing = "labels" if probe.labels is None else "target"
        raise MimError(f"probe.{missing} is not set: give probe.labels=<CSV> and probe.target=<its column>, or neither")
    if probe.path is not None and probe.labels is None:
        raise MimError("probe.path says where labelled films are, and probe.labels is not set: give both")
    for name, field in ProbeConfig.model_fields.items():
        if probe.labels is None and getattr(probe, name) != field.default:
            raise MimError(f"probe.{name} is read only with probe.labels, which is not set: give both, or neither")
    if probe.labels is not None and not config.watch.looks:
        raise MimError("watch.looks=0 never asks the probe: raise it, or leave out probe.labels")


class EncoderProbe:
    """Measures an encoder that sees everything. It is in eval mode and without gradients, and is not changed.

    The labelled films are divided by patient as `finetune.py` does with the same settings; those of the test are not
    asked.

    Args:
        config: the run's.
        task: what is trained; its image size is read.
        films: the unlabelled films.
        indices: which of them are trained on.

    Raises:
        MimError: labels, column or films are missing, or the split cannot be used.
    """

    def __init__(
        self, config: PretrainConfig, task: MaskedImageModel, films: PreparedDataset, indices: list[int]
    ) -> None:
        self.batch_size = config.training.batch_size
        self.neighbours = config.probe.neighbours
        transform = evaluation_transform(task.encoder.image_size)
        wanted = config.watch.rankme_films
        spread = indices[:: max(1, len(indices) // wanted)][:wanted] if wanted else []
        self.unlabelled = FilmDataset(films, spread, transform, config.seed) if spread else None
        self.parts: tuple[FilmDataset, FilmDataset] | None = None
        if config.probe.labels is not None:
            try:
                labelled, train, val = _labelled(config)
            except MimError as error:  # it names the settings of fine-tuning, which has the same ones under data
                raise MimError(f"probe: {error}") from error

            def dataset(chosen: Sequence[LabelledFilm]) -> FilmDataset:
                labels = [film.label for film in chosen]
                return FilmDataset(labelled, [film.index for film in chosen], transform, config.seed, labels=labels)

            self.parts = dataset(train), dataset(val)

    def measure(self, task: MaskedImageModel) -> dict[str, float]:
        """Gives `rankme`, and where there are labels `probe_linear` and `probe_knn`."""
        figures: dict[str, float] = {}
        if self.unlabelled is not None:
            figures["rankme"] = rankme(self._embed(task, self.unlabelled)[0].numpy())
        if self.parts is not None:
            known, asked = (self._embed(task, part) for part in self.parts)
            tables = [table.numpy() for table in (*known, *asked)]
            figures["probe_linear"] = linear_probe(*tables)
            figures["probe_knn"] = nearest_neighbours(*tables, neighbours=self.neighbours)
        return figures

    def _embed(self, task: MaskedImageModel, dataset: FilmDataset) -> tuple[Tensor, Tensor]:
        """(N, D) features and (N,) labels, -1 where there are none."""
        device = next(task.parameters()).device
        features, labels = [], []
        # in float32: the rounding of bfloat16 is noise in all directions, which RankMe would count
        with torch.autocast(device.type, enabled=False):
            for batch in batches_of(dataset, self.batch_size, device):
                pooled = task.encoder((batch["image"] - task.mean) / task.std).pooled
                features.append(pooled.float().cpu())
                labels.append(batch["label"].cpu() if "label" in batch else torch.full((len(pooled),), -1))
        return torch.cat(features), torch.cat(labels)


def _labelled(config: PretrainConfig) -> tuple[PreparedDataset, Sequence[LabelledFilm], Sequence[LabelledFilm]]:
    """The labelled films, those to learn from and those to ask."""
    probe = config.probe
    assert probe.labels is not None
    assert probe.target is not None
    path = probe.path or config.data.path
    films = open_films(config.data.model_copy(update={"path": path}))
    salt = dataset_salt(films, Path(config.data.cache))
    splits = split_films(
        attach_labels(films, Path(path), probe.labels, probe.target, salt),
        val_fraction=probe.val_fraction,
        test_fraction=probe.test_fraction,
        seed=probe.split_seed,
        copies="report",
    )
    splits = limit_training(splits, probe.limit, config.seed)
    return films, splits.train, splits.val
