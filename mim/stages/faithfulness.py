"""The faithfulness block: the run's network behind the run's masks, and behind others of the same size."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.data.seed import derive_seed
from mim.evaluation import (
    Faithfulness,
    Intervals,
    PlacedLesions,
    Recall,
    Section,
    compare_ways,
    lesion_recall,
    make_faithfulness_section,
)
from mim.evaluation.faithfulness import RIVALS, WAYS
from mim.masking.mask import show_counted_cells
from mim.stages.behind_masks import Key, gather, look, show_ways
from mim.stages.cell_rankings import Batch, Ranking, find_rankings, read_lesions
from mim.stages.common import logger
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.independent_evaluator import load_evaluator
from mim.stages.mask_leakage import WrongMasks, ask_evaluator, measure_leakage

Masks = NDArray[np.bool_]


def faithfulness_section(context: EvaluationContext) -> Section | None:
    """Measures whether the run's mask shows what matters, hides lesions, and gives the label away.

    Raises:
        MimError: `faithfulness.evaluator` cannot be used.
    """
    config = context.config.faithfulness
    if not config.enabled or not len(context.test_rows):
        return None
    network = load_evaluator(context)
    started = time.monotonic()
    intervals = Intervals(config.resamples, context.config.confidence, context.config.seed)
    lesions, no_lesions = read_lesions(context)
    rows = choose_rows(context)
    rankings, absent = find_rankings(context, lesions, no_lesions, rows[0])
    hides = context.task.masker is not None and not bool(context.scored.visible.all())
    wrong = WrongMasks.draw(context, rows) if hides else None
    counts = context.scored.visible.sum(axis=(1, 2)) if hides else None

    def choose(part: Sequence[int], batch: Batch) -> dict[Key, Tensor | None]:
        masks = show_ways(rankings, config.keep_rates, counts, part, batch)
        return masks if wrong is None else {**masks, **wrong.shown(context, part, batch)}

    logger.info(
        "faithfulness: %d test films are seen behind many masks, which takes most of the time of an evaluation; "
        "faithfulness.films and faithfulness.keep_rates make it less, faithfulness.enabled=false leaves it out",
        len(rows),
    )
    scores = look(context, rows, choose, context.score, "behind masks")
    labels, patients = context.predictions.label[rows], [context.predictions.patient_id[row] for row in rows]
    ways = gather(scores, tuple(rankings), config.keep_rates, context.scored.score[rows] if hides else None)
    plain = {name: rankings[name] for name in (*RIVALS, "oracle") if name in rankings}
    others = masks_at_own_share(context, plain) if hides else {}
    rivals = {name: masks for name, masks in others.items() if name in RIVALS}
    recall, no_recall = recall_of(context, lesions, no_lesions, others, intervals)
    leakage = None
    if wrong is not None:
        asked = None if network is None else ask_evaluator(context, rows, network, rankings, intervals)
        leakage = measure_leakage(context, rows, wrong, scores, rivals, intervals, asked)
    measured = Faithfulness(
        masker=context.finetuned.masker.kind,
        films=len(rows),
        patients=len(set(patients)),
        share=None if context.task.masker is None else float(context.scored.visible[rows].mean()),
        random_masks=config.random_masks,
        comparisons=compare_ways(labels, patients, {name: ways[name] for name in WAYS if name in ways}, intervals),
        absent=absent,
        same=find_same(context, rivals),
        recall=recall,
        no_recall=no_recall,
        leakage=leakage,
        no_leakage="" if leakage else "nothing is hidden",
    )
    logger.info("faithfulness: %.0f s", time.monotonic() - started)
    return make_faithfulness_section(measured, intervals)


def choose_rows(context: EvaluationContext) -> list[int]:
    """Draws whole patients of the test, by seed, until there are as many films as are wanted."""
    rows = list(context.test_rows)
    limit = context.config.faithfulness.films
    if limit is None or len(rows) <= limit:
        return rows
    patients = context.predictions.patient_id
    names = sorted({patients[row] for row in rows})
    generator = np.random.default_rng(derive_seed(context.config.seed, "films behind masks"))
    chosen: list[int] = []
    for name in generator.permutation(names):
        chosen += [row for row in rows if patients[row] == name]
        if len(chosen) >= limit:
            break
    return sorted(chosen)


@torch.inference_mode()
def masks_at_own_share(context: EvaluationContext, rankings: Mapping[str, Ranking]) -> dict[str, Masks]:
    """Gives masks that show as many cells of each film as the run's own: (D, all rows, gh, gw) by way."""
    counts = context.scored.visible.sum(axis=(1, 2))
    masks: dict[str, list[Masks]] = {name: [] for name in rankings}
    for rows, batch in context.batches(range(len(context.chosen))):
        for name, rank in rankings.items():
            drawn = rank(rows, batch)
            own = torch.from_numpy(counts[list(rows)]).to(drawn.device)
            masks[name].append(torch.stack([show_counted_cells(scores, own) for scores in drawn]).cpu().numpy())
    return {name: np.concatenate(parts, axis=1) for name, parts in masks.items()}


def recall_of(
    context: EvaluationContext,
    lesions: PlacedLesions | None,
    no_lesions: str,
    others: Mapping[str, Masks],
    intervals: Intervals,
) -> tuple[tuple[Recall, ...], str]:
    """Lesion recall of the run's masks and of others on all test films; else nothing, and why."""
    if context.task.masker is None:
        return (), "there is no mask, so no lesion is hidden"
    if lesions is None:
        return (), no_lesions
    masks = {"masker": context.scored.visible[None], **others}
    return lesion_recall(lesions, masks, intervals), ""


def find_same(context: EvaluationContext, rivals: Mapping[str, Masks]) -> tuple[str, ...]:
    """Names the rivals whose masks are the run's own on all test films."""
    test = list(context.test_rows)
    own = context.scored.visible[test]
    return tuple(name for name, masks in rivals.items() if all(bool((one[test] == own).all()) for one in masks))
