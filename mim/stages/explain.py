"""Explains test films, measures how faithful that is, and explains the worst errors by what did best."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from mim.config import ExplanationsConfig
from mim.evaluation import Section, choose_worst
from mim.evaluation.explain import Cells, Floats, deletion_masks, importance_order, insertion_masks, pointing_hit
from mim.evaluation.explanations_block import NAME, RANDOM, Faithfulness, explanations_block
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.explainers import KNOWS_NO_CLASS, Answer, can_explain, explain_positive, film_seed
from mim.stages.some_films import (
    called_positive_from,
    choose_rows,
    lesion_cells,
    lesions_by_row,
    take_films,
)

RANDOM_ORDERS = 5
"""Drawn for a film: the baseline is their mean."""

Kept = dict[str, list[tuple[Floats, Floats, float]]]


def explanations_section(context: EvaluationContext) -> Section | None:
    """Faithfulness of explanations, and hits of lesions."""
    config = context.config.explanations
    rows = choose_rows(context, config.films, "explanations")
    if not rows:
        return None
    first = answer_of(context, rows[0])
    names = [name for name in config.methods if can_explain(first, name)]
    left_out = [name.replace("_", " ") for name in config.methods if name not in names]
    lesions = lesions_by_row(context)
    kept: Kept = defaultdict(list)
    for row in tqdm(rows, desc="explain", unit="film", leave=False, disable=None):
        answer = answer_of(context, row)
        encoder = context.task.encoder
        lesion = lesion_cells(lesions[row], encoder.image_size, encoder.grid()) if row in lesions else None
        for name, curves in measure_film(answer, names, config, called_sign(context, row), lesion).items():
            kept[name].append(curves)
    measured = {name: gather(curves) for name, curves in kept.items()}
    drawn = min(config.pictures, context.config.worst * 2)
    return explanations_block(measured, take_films(context, rows).resampling, left_out, drawn=bool(drawn))


def answer_of(context: EvaluationContext, row: int) -> Answer:
    """The film of a row as the network met it."""
    device = context.fabric.device
    return Answer(
        task=context.task,
        image=context.dataset[0, row]["image"][None].to(device),
        visible=torch.from_numpy(context.scored.visible[row])[None].to(device),
        seed=film_seed(context.config.seed, row),
        batch_size=context.config.batch_size,
    )


def called_sign(context: EvaluationContext, row: int) -> int:
    """1 where the film is called positive, -1 where it is called negative."""
    return 1 if context.predictions.score[row] >= called_positive_from(context) else -1


def measure_film(
    answer: Answer, names: Sequence[str], config: ExplanationsConfig, sign: int, lesion: Cells | None
) -> dict[str, tuple[Floats, Floats, float]]:
    """Deletion and insertion curves of each explanation and of random orders, (P,), and whether it hits the lesion."""
    seen = answer.visible[0].cpu().numpy()
    generator = np.random.default_rng(answer.seed)
    measured = {}
    for name in names:
        positive = explain_positive(name, answer, config)
        scores = positive if name in KNOWS_NO_CLASS else sign * positive
        curves = curves_of(answer, scores, config.points, sign, generator)
        hit = float("nan") if lesion is None else pointing_hit(positive, seen, lesion)
        measured[name.replace("_", " ")] = (*curves, hit)
    random = [
        curves_of(answer, np.where(seen, 0.0, np.nan), config.points, sign, generator) for _ in range(RANDOM_ORDERS)
    ]
    deletion, insertion = (np.mean([pair[place] for pair in random], axis=0) for place in (0, 1))
    chance = float("nan") if lesion is None else float(lesion[seen].mean())
    return {**measured, RANDOM: (deletion, insertion, chance)}


@torch.no_grad()
def curves_of(
    answer: Answer, scores: Floats, points: int, sign: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Probability of the called class while the seen cells are hidden, and shown, by score: (P,) each."""
    seen = answer.visible[0].cpu().numpy()
    order = importance_order(scores, seen, generator)
    masks = np.concatenate([deletion_masks(order, seen, points), insertion_masks(order, seen, points)])
    odds = sign * answer.log_odds(torch.from_numpy(masks).to(answer.visible.device))
    probability = odds.sigmoid().cpu().numpy()
    return probability[:points], probability[points:]


def gather(curves: list[tuple[Floats, Floats, float]]) -> Faithfulness:
    """Curves of films as arrays."""
    deletion, insertion, hits = zip(*curves, strict=True)
    return Faithfulness(np.stack(deletion), np.stack(insertion), np.array(hits))


def explain_worst(context: EvaluationContext, sections: Sequence[Section]) -> dict[int, tuple[Floats, str]]:
    """Explains the worst errors of both kinds in turn, by what explained the measured films best.

    Args:
        context: the evaluation.
        sections: its blocks; without that of explanations there is nothing to go by.

    Returns:
        By row: (gh, gw) scores for a positive answer, NaN where the network saw nothing; and what they mean.
    """
    config = context.config.explanations
    best = next((section.figures["best"] for section in sections if section.name == NAME), None)
    if best is None:
        return {}
    count = min(config.pictures, context.config.worst)
    missed, alarmed = choose_worst(context.predictions, context.metrics.threshold.value, count)
    turns = [row for pair in zip(missed, alarmed, strict=False) for row in pair]
    rows = [*turns, *(row for row in (*missed, *alarmed) if row not in turns)][: config.pictures]
    method = best.replace(" ", "_")
    explained = {}
    for row in rows:
        scores = explain_positive(method, answer_of(context, row), config)
        meaning = f"Explained by {best}: orange speaks for a positive answer, blue against it."
        if method in KNOWS_NO_CLASS:
            scores = scores - np.nanmin(scores)  # more or less weight, and nothing against
            meaning = f"Explained by {best}: the stronger the orange, the more weight, for whichever answer."
        explained[row] = (scores, meaning)
    return explained
