"""Some test films for blocks that would take too long on all: pixels, lesions, and who they belong to."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mim.data.boxes import read_boxes
from mim.data.regions import Box
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
    label: np.ndarray
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


def lesion_boxes(context: EvaluationContext) -> dict[int, list[Box]]:
    """Boxes of lesions by row, xyxy as shares of width and height; empty where the run has no `data.boxes`."""
    data = context.finetuned.data
    if data.boxes is None:
        return {}
    boxes = read_boxes(context.films, Path(data.path), data.boxes)
    return {row: boxes[film.index] for row, film in enumerate(context.chosen) if boxes.get(film.index)}


def lesion_cells(boxes: list[Box], grid: tuple[int, int]) -> np.ndarray:
    """The cells that boxes touch: (rows, columns) bool."""
    cells = np.zeros(grid, dtype=bool)
    for left, top, right, bottom in boxes:
        rows = slice(int(np.floor(top * grid[0])), max(int(np.ceil(bottom * grid[0])), int(top * grid[0]) + 1))
        columns = slice(int(np.floor(left * grid[1])), max(int(np.ceil(right * grid[1])), int(left * grid[1]) + 1))
        cells[rows, columns] = True
    return cells
