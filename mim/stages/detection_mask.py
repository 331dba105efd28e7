"""What the masks in front of a detector hide of the lesions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.config import EvaluateConfig, FinetuneConfig
from mim.evaluation import Section
from mim.stages.annotated_films import AnnotatedFilms
from mim.stages.found_boxes import Found
from mim.stages.mask_safety import mask_safety

CELL: Final = 8
"""Side in pixels at which lesions are drawn into the cells of a film that was searched in windows."""


def detector_mask(
    config: EvaluateConfig,
    finetuned: FinetuneConfig,
    known: AnnotatedFilms,
    found: Found,
    image_size: tuple[int, int],
) -> Section | None:
    """Gives `mask_safety` of the test films of a detector.

    Args:
        config: of the evaluation.
        finetuned: of the run.
        known: films and boxes.
        found: on the validation films, then the test films.
        image_size: of the network, in pixels.
    """
    test = known.splits.test
    if not test:
        return None
    visible, own_size = on_one_grid(found.visible[len(known.splits.val) :]), image_size
    if finetuned.detect.window is not None:  # then a film has more cells than a window, which is what the network meets
        own_size = visible.shape[1] * CELL, visible.shape[2] * CELL
    films, patients = [film.index for film in test], [film.patient_id for film in test]
    return mask_safety(config, finetuned, visible, films, patients, known.annotations, own_size)


def on_one_grid(visible: Sequence[Tensor]) -> NDArray[np.bool_]:
    """(N, gh, gw) of masks (rows, columns), the smaller ones on the grid of the largest by the nearest cell."""
    rows, columns = (max(mask.shape[axis] for mask in visible) for axis in (0, 1))
    return torch.stack([_stretch(mask, rows, columns) for mask in visible]).numpy()


def _stretch(mask: Tensor, rows: int, columns: int) -> Tensor:
    row = torch.arange(rows) * mask.shape[0] // rows
    column = torch.arange(columns) * mask.shape[1] // columns
    return mask[row][:, column]
