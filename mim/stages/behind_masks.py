"""Scores of films behind many masks."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mim.evaluation import WayScores
from mim.masking.mask import show_best_cells, show_counted_cells
from mim.stages.cell_rankings import Batch, Ranking
from mim.stages.evaluation_context import EvaluationContext

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]
Score = Callable[[Batch, Tensor | None], Floats]


class Key(NamedTuple):
    """One of many masks: how its cells are chosen, what share (None = as many as the run's own mask), which draw."""

    way: str
    rate: float | None = None
    draw: int = 0


Shown = Mapping[Key, Tensor | None]
EVERYTHING = Key("everything", 1.0)


@torch.inference_mode()
def look(
    context: EvaluationContext,
    rows: Sequence[int],
    choose: Callable[[Sequence[int], Batch], Shown],
    score: Score,
    said: str,
) -> dict[Key, Floats]:
    """Scores films behind each of many masks.

    Args:
        context: of the evaluation.
        rows: which films.
        choose: from rows and their batch to masks (B, gh, gw), None = everything; with the same keys each time.
        score: from a batch and a mask to scores (B,).
        said: what the progress bar is called.

    Returns:
        (N,) scores by mask.
    """
    scores: dict[Key, list[Floats]] = defaultdict(list)
    with tqdm(desc=said, unit="mask", leave=False, disable=None) as bar:
        for part, batch in context.batches(rows):
            shown = choose(part, batch)
            bar.total = len(shown) * -(-len(rows) // context.config.batch_size)
            for key, visible in shown.items():
                scores[key].append(score(batch, visible))
                bar.update()
    return {key: np.concatenate(parts) for key, parts in scores.items()}


def show_ways(
    rankings: Mapping[str, Ranking],
    rates: Sequence[float],
    counts: NDArray[np.int64] | None,
    rows: Sequence[int],
    batch: Batch,
) -> dict[Key, Tensor | None]:
    """Gives the masks of each way at each share, and where as many cells are shown as by the run's own mask.

    Args:
        rankings: ways to rank cells.
        rates: shares of the cells; where a share comes to all of them, `EVERYTHING` stands for it.
        counts: (all rows,) cells that the run's own mask shows; None = there is none.
        rows: of the batch.
        batch: of films.
    """
    shown: dict[Key, Tensor | None] = {EVERYTHING: None}
    for way, rank in rankings.items():
        for draw, scores in enumerate(rank(rows, batch)):
            for rate in rates:
                visible = show_best_cells(scores, rate)
                if not bool(visible.all()):
                    shown[Key(way, rate, draw)] = visible
            if counts is not None and way != "masker":  # its own scores are there already
                own = torch.from_numpy(counts[list(rows)]).to(scores.device)
                shown[Key(way, None, draw)] = show_counted_cells(scores, own)
    return shown


def gather(
    scores: Mapping[Key, Floats], ways: Sequence[str], rates: Sequence[float], own: Floats | None
) -> dict[str, WayScores]:
    """Sorts scores by way and share.

    Args:
        scores: as `look` gives them for `show_ways`.
        ways: their names.
        rates: shares of the cells.
        own: (N,) scores behind the run's own mask; None = there is none.
    """
    gathered = {}
    for way in ways:
        by_rate = {rate: _draws(scores, way, rate) for rate in rates}
        everything = scores[EVERYTHING][None]
        at_own = None
        if own is not None:
            at_own = own[None] if way == "masker" else _draws(scores, way, None)
        gathered[way] = WayScores({rate: everything if d is None else d for rate, d in by_rate.items()}, at_own)
    return gathered


def _draws(scores: Mapping[Key, Floats], way: str, rate: float | None) -> Floats | None:
    keys = sorted((key for key in scores if key.way == way and key.rate == rate), key=lambda key: key.draw)
    return np.stack([scores[key] for key in keys]) if keys else None
