"""What the blocks of an evaluation are made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset, Splits
from mim.data.annotations import Annotations
from mim.data.loader import FilmDataset
from mim.evaluation import Metrics, Predictions
from mim.stages.classifier import TaskDescription
from mim.tasks import MaskedClassifier


@dataclass(frozen=True)
class Scored:
    """What the classifier made of some films, in their order.

    Attributes:
        score: probability of the second class, (N,).
        visible: (N, gh, gw) bool.
    """

    score: NDArray[np.float64]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class EvaluationContext:
    """A finished run with its films, its scores and its figures.

    Rows count the validation films, then the test films: `dataset[0, row]`, `scored.score[row]`, `chosen[row]` and the
    rows of `predictions` belong together. Where the run's own films are not at hand, rows begin with the test films,
    and `predictions` ends with rows of validation films of which nothing else is there.

    Attributes:
        config: settings of evaluate.py.
        run: folder of the run.
        finetuned: settings of the run.
        description: what the run remembers.
        films: the prepared films.
        splits: who is in which split.
        annotations: where their lesions are; None = not known.
        dataset: the validation films, then the test films, as the network meets them, without augmentation.
        task: the classifier, in evaluation mode, on the device.
        fabric: the device.
        scored: its scores and masks.
        predictions: the table of all films.
        metrics: the figures so far.
        external: whether the test films come from elsewhere than the validation films.
    """

    config: EvaluateConfig
    run: Path
    finetuned: FinetuneConfig
    description: TaskDescription
    films: PreparedDataset
    splits: Splits
    annotations: Annotations | None
    dataset: FilmDataset
    task: MaskedClassifier
    fabric: Fabric
    scored: Scored
    predictions: Predictions
    metrics: Metrics
    external: bool = False

    @property
    def chosen(self) -> tuple[LabelledFilm, ...]:
        """The films of the rows."""
        return (*self.splits.val, *self.splits.test)

    @property
    def test_rows(self) -> range:
        """The rows of the test films."""
        return range(len(self.splits.val), len(self.splits.val) + len(self.splits.test))

    @property
    def alike_rows(self) -> range:
        """The rows of validation and test films; of an external test set those of the test films alone.

        What learns from labels of some films and is asked about others would learn to tell two hospitals apart.
        """
        return self.test_rows if self.external else range(len(self.chosen))

    def batches(self, rows: Sequence[int]) -> Iterator[tuple[Sequence[int], dict[str, Tensor]]]:
        """Gives some films in batches, on the device, with the rows that each batch holds."""
        size = self.config.batch_size
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            yield part, self.fabric.to_device(default_collate([self.dataset[0, row] for row in part]))

    def score(self, batch: dict[str, Tensor], visible: Tensor | None) -> NDArray[np.float64]:
        """Probability of the second class, (B,), where the encoder sees these cells alone; None = all of them."""
        return positive_score(self.task, batch, visible)


@torch.inference_mode()
def positive_score(task: MaskedClassifier, batch: dict[str, Tensor], visible: Tensor | None) -> NDArray[np.float64]:
    """Probability that a classifier gives to the second class, (B,), where it sees these cells alone; None = all."""
    score: NDArray[np.float64] = task.classify(batch["image"], visible).double().softmax(dim=1)[:, 1].cpu().numpy()
    return score
