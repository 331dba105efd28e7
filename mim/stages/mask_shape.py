"""Hides the same outline in place, moved and scattered, in each way of hiding that a run's weights can be used with."""

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mim.data.seed import derive_seed
from mim.evaluation import Section
from mim.evaluation.mask_shape import Cells, ShapeScores, roll_mask, scatter_mask, shape_block
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.hidings import Hiding, available, own_hiding, with_hiding
from mim.stages.missingness import score_visible
from mim.stages.some_films import SomeFilms, called_positive_from, choose_rows, lesion_cells, lesions_by_row, take_films


def mask_shape_section(context: EvaluationContext) -> Section | None:
    """Changes of predictions by the outline of lesions, and by that of the run's own masks."""
    config = context.config.missingness
    if not config.shape_films:
        return None
    can, left_out = available(context.task, config.hiding)
    outlines = find_outlines(context)
    scored = []
    work = [(outline, name) for outline in outlines for name in can]
    for outline, name in tqdm(work, desc="outlines", unit="way of hiding", leave=False, disable=None):
        films, hidden = outlines[outline]
        hiding = with_hiding(context.task, name)
        assert hiding is not None  # `available` has built it
        shape = score_outlines(hiding, outline, films, hidden, context.config.seed, context.config.batch_size)
        scored.append((shape, films.resampling))
    if not scored:
        return None
    return shape_block(scored, called_positive_from(context), own_hiding(context.task), left_out)


def find_outlines(context: EvaluationContext) -> dict[str, tuple[SomeFilms, Cells]]:
    """Films and what is to be hidden of them, (N, rows, columns): lesions, and what the masker hides."""
    count, encoder = context.config.missingness.shape_films, context.task.encoder
    found: dict[str, tuple[SomeFilms, Cells]] = {}
    lesions = {row: own for row, own in lesions_by_row(context).items() if row in context.test_rows}
    if lesions:
        drawn = np.random.default_rng(derive_seed(context.config.seed, "lesions")).permutation(sorted(lesions))
        rows = sorted(drawn[:count].tolist())
        cells = [lesion_cells(lesions[row], encoder.image_size, encoder.grid()) for row in rows]
        found["lesion"] = take_films(context, rows), np.stack(cells)
    if context.task.masker is not None:
        rows = choose_rows(context, count, "mask shape")
        hidden = ~context.scored.visible[rows]
        rows = [row for row, own in zip(rows, hidden, strict=True) if own.any() and not own.all()]
        if rows:
            found["masker"] = take_films(context, rows), ~context.scored.visible[rows]
    return found


def score_outlines(
    hiding: Hiding, outline: str, films: SomeFilms, hidden: Cells, seed: int, batch_size: int
) -> ShapeScores:
    """Scores films, and one without content, behind each outline; what is drawn follows from seed and film."""
    generators = [np.random.default_rng(derive_seed(seed, "mask shape", row)) for row in films.rows]
    both = list(zip(hidden, generators, strict=True))
    rolled = np.stack([roll_mask(cells, generator) for cells, generator in both])
    scattered = np.stack([scatter_mask(cells, generator) for cells, generator in both])
    blank = films.image.mean().expand_as(films.image).contiguous()

    def score(image: Tensor, cells: Cells | None) -> np.ndarray:
        visible = None if cells is None else torch.from_numpy(~cells).to(image.device)
        return score_visible(hiding.task, image, visible, batch_size)

    return ShapeScores(
        hiding=hiding.name,
        outline=outline,
        labels=films.label,
        whole=score(films.image, None),
        in_place=score(films.image, hidden),
        rolled=score(films.image, rolled),
        scattered=score(films.image, scattered),
        blank=np.repeat(score(blank[:1], None), len(hidden)),
        blank_in_place=score(blank, hidden),
    )
