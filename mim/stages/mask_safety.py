"""What masks in front of detectors, segmenters and films of studies hide of lesions: the first figure of safety."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data.annotations import Annotations
from mim.data.seed import derive_seed
from mim.evaluation import Intervals, PlacedLesions, Section, mask_section
from mim.masking.mask import show_counted_cells

Masks = NDArray[np.bool_]


def mask_safety(
    config: EvaluateConfig,
    finetuned: FinetuneConfig,
    visible: Masks,
    films: Sequence[int],
    patients: Sequence[str],
    annotations: Annotations | None,
    image_size: tuple[int, int],
) -> Section | None:
    """Measures lesion recall by grade, beside random masks that show as many cells of each film.

    Args:
        config: of the evaluation.
        finetuned: of the run.
        visible: (N, gh, gw) what the run's masker shows of test films.
        films: their N numbers in the dataset.
        patients: N names.
        annotations: where the lesions are; None = not known.
        image_size: of the network, in pixels.

    Returns:
        None where the run has no masker, or there is no film.
    """
    if finetuned.masker.kind == "none" or not len(films):
        return None
    lesions, no_lesions = place_lesions(films, patients, annotations, image_size, visible.shape[1:])
    masks = {"masker": visible[None]}
    if not visible.all():
        masks["random"] = random_masks(visible, config.faithfulness.random_masks, config.seed)
    intervals = Intervals(config.bootstrap, config.confidence, config.seed)
    return mask_section(finetuned.masker.kind, masks, lesions, no_lesions, intervals)


def random_masks(visible: Masks, draws: int, seed: int) -> Masks:
    """Draws masks (D, N, gh, gw) that show as many cells of each film as (N, gh, gw) ones do."""
    drawn = []
    for row, own in enumerate(visible):
        scores = np.random.default_rng(derive_seed(seed, "random mask", row)).random((draws, *own.shape))
        counts = torch.full((draws,), int(own.sum()))
        drawn.append(show_counted_cells(torch.from_numpy(scores), counts).numpy())
    return np.stack(drawn, axis=1)


def place_lesions(
    films: Sequence[int],
    patients: Sequence[str],
    annotations: Annotations | None,
    image_size: tuple[int, int],
    grid: tuple[int, ...],
) -> tuple[PlacedLesions | None, str]:
    """Finds in which cells the lesions of films lie; else says why that is not known.

    Args:
        films: N numbers in the dataset.
        patients: N names.
        annotations: what is on the films; None = not known.
        image_size: in pixels, a whole number of cells.
        grid: rows and columns.

    Returns:
        PlacedLesions whose `film` is a place in `films`, and nothing; or None and the reason.
    """
    if annotations is None:
        return None, "where the lesions are is not known, as the run has no data.boxes"
    rows, columns = grid
    height, width = image_size
    cells, place, patient, grade = [], [], [], []
    for number, (film, name) in enumerate(zip(films, patients, strict=True)):
        for lesion in annotations.of(film):
            pixels = lesion.draw(image_size)
            if pixels.any():
                blocks = pixels.reshape(rows, height // rows, columns, width // columns).sum(axis=(1, 3))
                cells.append(blocks / blocks.sum())
                place.append(number)
                patient.append(name)
                grade.append(lesion.grade)
    if not cells:
        return None, "no lesion is marked on a test film"
    return PlacedLesions(np.stack(cells), np.array(place), tuple(patient), tuple(grade), annotations.grades), ""
