"""Ways to rank the cells of a film, so that the best are shown: masker, rules, models, chance, and the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mim.data.seed import derive_seed
from mim.errors import MimError
from mim.evaluation import PlacedLesions
from mim.masking import Mask, ThresholdMasker
from mim.masking.mask import rank_cells
from mim.masking.scores import Score, score_cells
from mim.stages.common import logger
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.finished_run import load_init
from mim.stages.mask_safety import place_lesions
from mim.tasks import AttentionScore, ReconstructionError

Batch = dict[str, Tensor]
Ranking = Callable[[Sequence[int], Batch], Tensor]
"""From rows and their batch to (D, B, gh, gw), higher = rather shown, under D draws of what is random."""


def plain_rankings(context: EvaluationContext, random_masks: int) -> dict[str, Ranking]:
    """Ways that need no network: chance, brightness and local variance."""
    encoder = context.task.encoder
    grid = encoder.grid()

    def random(rows: Sequence[int], batch: Batch) -> Tensor:
        draws = np.stack([draw_random(context.config.seed, row, (random_masks, *grid)) for row in rows], axis=1)
        return torch.from_numpy(draws).to(batch["image"].device)

    def rule(score: Score) -> Ranking:
        def rank(rows: Sequence[int], batch: Batch) -> Tensor:
            return score_cells(batch["image"], score, encoder.patch_size)[None]

        return rank

    # the brightest cells first: Otsu's foreground, whatever its threshold, stands before all else
    return {"random": random, "otsu": rule("intensity"), "variance": rule("variance")}


def find_rankings(
    context: EvaluationContext, lesions: PlacedLesions | None, no_lesions: str, row: int
) -> tuple[dict[str, Ranking], dict[str, str]]:
    """Finds the ways to rank cells that this run allows, and says why it does not allow the others.

    Args:
        context: of the evaluation.
        lesions: of the test films, if known.
        no_lesions: why they are not known.
        row: of a film that each way is tried on.
    """
    rankings = plain_rankings(context, context.config.faithfulness.random_masks)
    absent = {}
    if context.task.masker is not None:
        rankings["masker"] = masker_ranking(context, context.task.masker)
    if lesions is None:
        absent["oracle"] = no_lesions
    else:
        rankings["oracle"] = oracle_ranking(context, lesions)
    for name, make in {"attention": attention_ranking, "reconstruction_error": reconstruction_ranking}.items():
        try:
            rankings[name] = make(context)
        except (MimError, ValueError) as error:
            absent[name] = str(error)
    batch = next(context.batches([row]))[1]
    for name, rank in tuple(rankings.items()):
        try:
            rank([row], batch)
        except MimError as error:
            absent[name] = str(error)
            del rankings[name]
    return rankings, absent


def draw_random(seed: int, row: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Draws what ranks the cells of a film at random: a function of seed and row, not of the batch."""
    return np.random.default_rng(derive_seed(seed, "random mask", row)).random(shape)


def masker_ranking(context: EvaluationContext, masker: nn.Module) -> Ranking:
    """The run's own masker: what it shows first, in the order of its scores.

    Raises (when called):
        MimError: it does not score the cells of the grid.
    """
    grid = context.task.encoder.grid()

    def rank(rows: Sequence[int], batch: Batch) -> Tensor:
        mask: Mask = context.task.fit_to_grid(masker(batch), grid)
        if mask.scores is None:
            raise MimError("the masker gives no score to each cell")
        below = isinstance(masker, ThresholdMasker) and masker.keep == "below"
        places = rank_cells(-mask.scores if below else mask.scores)
        return (mask.visible * places[0].numel() - places)[None]

    return rank


def attention_ranking(context: EvaluationContext) -> Ranking:
    """The attention that the run's own encoder pays to each cell of the whole film.

    Raises:
        ValueError: it has no such attention.
    """
    task = context.task
    source = AttentionScore(task.encoder, mean=task.mean, std=task.std)
    return lambda rows, batch: source(batch)[None]


def reconstruction_ranking(context: EvaluationContext) -> Ranking:
    """How badly the pretraining run that this run started from rebuilds each cell.

    Raises:
        MimError: there is none, or it is no longer at hand.
        ValueError: it has nothing to hide.
    """
    try:
        loaded = load_init(context.finetuned)
    except MimError as error:
        logger.warning("no reconstruction error: %s", error)
        raise MimError("the pretraining run that this run started from is no longer at hand") from error
    if loaded is None:
        raise MimError("this run did not start from a pretraining run that could rebuild cells")
    settings, task = loaded
    ratio = settings.masking.ratio
    middle = ratio if isinstance(ratio, float) else sum(ratio) / 2
    source = ReconstructionError(task, middle, seed=context.config.seed, grid=context.task.encoder.grid())
    source = context.fabric.to_device(source)
    return lambda rows, batch: source(batch)[None]


def oracle_ranking(context: EvaluationContext, lesions: PlacedLesions) -> Ranking:
    """Cells with lesions first, those that hold most of one before others; then the rest at random."""
    grid = context.task.encoder.grid()
    cells: Mapping[int, NDArray[np.float64]] = {
        int(row): lesions.cells[lesions.film == row].max(axis=0) for row in np.unique(lesions.film)
    }

    def rank(rows: Sequence[int], batch: Batch) -> Tensor:
        scores = []
        for row in rows:
            known = cells.get(row, np.zeros(grid))
            scores.append(np.where(known > 0, 1 + known, draw_random(context.config.seed, row, (1, *grid))[0]))
        return torch.from_numpy(np.stack(scores)[None]).to(batch["image"].device)

    return rank


def read_lesions(context: EvaluationContext) -> tuple[PlacedLesions | None, str]:
    """Reads where the lesions of the test films are; else says why that is not known.

    Returns:
        PlacedLesions whose `film` is a row of the context, and nothing; or None and the reason.
    """
    annotations = context.annotations
    rows = context.test_rows
    placed, reason = place_lesions(
        [context.chosen[row].index for row in rows],
        [context.predictions.patient_id[row] for row in rows],
        annotations,
        context.description.encoder.image_size,
        context.task.encoder.grid(),
    )
    return (None, reason) if placed is None else (replace(placed, film=placed.film + rows.start), "")
