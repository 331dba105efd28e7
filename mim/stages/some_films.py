"""Some test films for blocks that would take too long on all: pixels, lesions, and who they belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mim.data.annotations import Lesion, draw_lesions
from mim.data.seed import derive_seed
from mim.evaluation.mean_figure import Resampling
from mim.stages.evaluation_context import EvaluationContext


@dataclass(frozen=True)
class SomeFilms:
    """Films as the network meets them, before normalisation.

    Attributes:
        rows: of the evaluation's table.
        image: (N, C, H, W) in [0, 1], on the device.
        label: (N,) of 0 and 1.
        resampling: how intervals over their patients are made.
    """

    rows: list[int]
    image: Tensor
    label: npt.NDArray[np.int64]
    resampling: Resampling


def choose_rows(context: EvaluationContext, count: int, purpose: str) -> list[int]:
    """Draws test films by seed, as many of either class as there are, in the order of the table."""
    rows = np.array(context.test_rows, dtype=np.int64)
    drawn = np.random.default_rng(derive_seed(context.config.seed, purpose)).permutation(rows)
    labels = context.predictions.label
    # from each class in turn, so that a few films are of both
    place = {row: number for label in (0, 1) for number, row in enumerate(drawn[labels[drawn] == label])}
    return sorted(sorted(drawn.tolist(), key=lambda row: (place[row], labels[row]))[:count])


def take_films(context: EvaluationContext, rows: list[int]) -> SomeFilms:
    """Reads films and brings them to the device."""
    image = torch.stack([context.dataset[0, row]["image"] for row in rows])
    config = context.config
    return SomeFilms(
        rows=rows,
        image=context.fabric.to_device(image),
        label=context.predictions.label[rows],
        resampling=Resampling(
            [context.predictions.patient_id[row] for row in rows], config.bootstrap, config.confidence, config.seed
        ),
    )


def called_positive_from(context: EvaluationContext) -> float:
    """The score at and above which a film is called positive: as chosen on validation, one half where none could be."""
    value = context.metrics.threshold.value
    return 0.5 if value is None else value


def lesions_by_row(context: EvaluationContext) -> dict[int, tuple[Lesion, ...]]:
    """Lesions of the rows that have any; empty where the run has no `data.boxes`."""
    annotations = context.annotations
    if annotations is None:
        return {}
    found = {row: annotations.of(film.index) for row, film in enumerate(context.chosen)}
    return {row: lesions for row, lesions in found.items() if lesions}


def lesion_cells(
    lesions: Sequence[Lesion], image_size: tuple[int, int], grid: tuple[int, int]
) -> npt.NDArray[np.bool_]:
    """The cells that lesions touch: (rows, columns) bool."""
    (height, width), (rows, columns) = image_size, grid
    blocks = draw_lesions(lesions, image_size).reshape(rows, height // rows, columns, width // columns)
    return np.asarray(blocks.any(axis=(1, 3)))
