"""What a run's masks give away: the network behind wrong masks, masks alone, and an independent network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.evaluation import Evaluator, Figure, Intervals, Leakage, WayScores, auroc_difference, auroc_figures
from mim.evaluation.faithfulness import RIVALS
from mim.evaluation.leakage import choose_donors, mask_overlap, roll_masks, score_masks_alone
from mim.stages.behind_masks import Key, gather, look, show_ways
from mim.stages.cell_rankings import Batch, Ranking
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.independent_evaluator import IndependentEvaluator

Floats = NDArray[np.float64]
Masks = NDArray[np.bool_]

SHIFTED, SWAPPED = Key("shifted"), Key("swapped")


@dataclass(frozen=True)
class WrongMasks:
    """Masks that do not belong to their films, by the films' rows.

    Attributes:
        shifted: (gh, gw) by row: its own, rolled.
        donor: row of another patient's film by row; empty where there is one patient only.
    """

    shifted: Mapping[int, Masks]
    donor: Mapping[int, int]

    @classmethod
    def draw(cls, context: EvaluationContext, rows: Sequence[int]) -> "WrongMasks":
        """Draws them for some films, by seed."""
        seed = context.config.seed
        rolled = roll_masks(context.scored.visible[list(rows)], seed)
        donors = choose_donors([context.predictions.patient_id[row] for row in rows], seed)
        donor = {} if donors is None else {row: rows[place] for row, place in zip(rows, donors.tolist(), strict=True)}
        return cls(dict(zip(rows, rolled, strict=True)), donor)

    def shown(self, context: EvaluationContext, rows: Sequence[int], batch: Batch) -> dict[Key, Tensor]:
        """The masks of a batch."""
        device = batch["image"].device
        masks = {SHIFTED: torch.from_numpy(np.stack([self.shifted[row] for row in rows])).to(device)}
        if self.donor:
            masks[SWAPPED] = torch.from_numpy(context.scored.visible[[self.donor[row] for row in rows]]).to(device)
        return masks


def measure_leakage(
    context: EvaluationContext,
    rows: Sequence[int],
    wrong: WrongMasks,
    scores: Mapping[Key, Floats],
    rivals: Mapping[str, Masks],
    intervals: Intervals,
    evaluator: Evaluator | None,
) -> Leakage:
    """Measures what the run's masks give away.

    Args:
        context: of the evaluation.
        rows: test films that were seen behind many masks.
        wrong: the wrong ones among these.
        scores: behind them.
        rivals: masks of random and Otsu at the same share, (D, all rows, gh, gw).
        intervals: how intervals are made.
        evaluator: what an independent network says, if there is one.
    """
    predictions, own = context.predictions, context.scored
    chosen, test = list(rows), list(context.test_rows)
    labels, patients = predictions.label[chosen], [predictions.patient_id[row] for row in rows]
    behind = {"shifted": scores[SHIFTED][None]}
    follows = Figure(None, None, None, "there is one patient only")
    if wrong.donor:
        behind["swapped"] = scores[SWAPPED][None]
        of_donor = predictions.label[[wrong.donor[row] for row in rows]]
        follows = auroc_figures(of_donor, patients, {"follows": behind["swapped"]}, intervals)["follows"]
    aucs = auroc_figures(labels, patients, behind, intervals)
    lost = {name: auroc_difference(labels, patients, one, own.score[chosen], intervals) for name, one in behind.items()}
    overlap, by_chance = mask_overlap(own.visible[test], [predictions.patient_id[row] for row in test], intervals)
    named = context.config.faithfulness.evaluator
    return Leakage(
        alone={
            "masker": alone(context, own.visible, intervals),
            **{name: alone(context, masks[0], intervals) for name, masks in rivals.items()},
        },
        shifted=aucs["shifted"],
        swapped=aucs.get("swapped", follows),
        lost_by_shift=lost["shifted"],
        lost_by_swap=lost.get("swapped"),
        follows_mask=follows,
        keep_rate=context.metrics.test.figures["keep_rate_auroc"],
        overlap=overlap,
        overlap_by_chance=by_chance,
        evaluator=evaluator,
        no_evaluator="" if named else "faithfulness.evaluator names no run that was trained without this mask",
    )


def alone(context: EvaluationContext, masks: Masks, intervals: Intervals) -> Figure:
    """AUC of a classifier that sees the masks alone, of validation and test films (`alike_rows`)."""
    rows = list(context.alike_rows)
    labels, patients = context.predictions.label[rows], [context.predictions.patient_id[row] for row in rows]
    scores, reason = score_masks_alone(masks[rows], labels, patients, intervals.seed)
    if scores is None:
        return Figure(None, None, None, reason)
    return auroc_figures(labels, patients, {"alone": scores[None]}, intervals)["alone"]


def ask_evaluator(
    context: EvaluationContext,
    rows: Sequence[int],
    evaluator: IndependentEvaluator,
    rankings: Mapping[str, Ranking],
    intervals: Intervals,
) -> Evaluator:
    """Lets an independent network look through the run's masks, and through random masks and Otsu's of the same share.

    Args:
        context: of the evaluation.
        rows: test films.
        evaluator: the network.
        rankings: of random and Otsu.
        intervals: how intervals are made.
    """
    own = context.scored
    counts = own.visible.sum(axis=(1, 2))

    def choose(part: Sequence[int], batch: Batch) -> dict[Key, Tensor | None]:
        mine = torch.from_numpy(own.visible[list(part)]).to(batch["image"].device)
        return {Key("masker"): mine, **show_ways({name: rankings[name] for name in RIVALS}, (), counts, part, batch)}

    scores = look(context, rows, choose, evaluator.score, "independent network")
    ways: dict[str, WayScores] = gather(scores, RIVALS, (), scores[Key("masker")])
    behind = {"masker": scores[Key("masker")][None]}
    behind |= {name: way.at_own_share for name, way in ways.items() if way.at_own_share is not None}
    chosen = list(rows)
    labels, patients = context.predictions.label[chosen], [context.predictions.patient_id[row] for row in rows]
    return Evaluator(
        masker=evaluator.masker,
        at_own_share=auroc_figures(labels, patients, behind, intervals),
        differences={
            name: auroc_difference(labels, patients, behind[name], behind["masker"][0], intervals) for name in RIVALS
        },
        gap=auroc_difference(labels, patients, behind["masker"], own.score[chosen], intervals),
    )
