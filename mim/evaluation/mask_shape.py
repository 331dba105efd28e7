"""Does the outline of what is hidden change predictions, whatever lies under it?

The content of a film stays; an outline is hidden where it belongs, moved to another place, and as scattered cells. And
all content is taken away but one grey value, so that an outline is all there is to answer to (mask-shape bias:
Balasubramanian and Feizi, Towards Improved Input Masking for Convolutional Neural Networks, ICCV 2023).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from mim.evaluation.bootstrap import auroc_statistic, percentile_interval, resample_patients
from mim.evaluation.figures import Figure
from mim.evaluation.mean_figure import Resampling, in_words
from mim.evaluation.section import Section, Table

Floats = npt.NDArray[np.float64]
Cells = npt.NDArray[np.bool_]

OUTLINES = {"lesion": "the cells of its lesions", "masker": "what the masker hides of it"}


def roll_mask(hidden: Cells, generator: np.random.Generator) -> Cells:
    """Moves an outline to another place of the film, drawn evenly; what leaves on one side comes in on the other.

    Args:
        hidden: (rows, columns), True = hidden.
        generator: draws the shift, which is never nothing on a grid of more than one cell.
    """
    rows, columns = hidden.shape
    shift = int(generator.integers(1, max(rows * columns, 2)))
    rolled: Cells = np.roll(hidden, (shift // columns, shift % columns), axis=(0, 1))
    return rolled


def scatter_mask(hidden: Cells, generator: np.random.Generator) -> Cells:
    """Hides as many cells, each anywhere."""
    scattered: Cells = generator.permutation(hidden.ravel()).reshape(hidden.shape)
    return scattered


@dataclass(frozen=True, eq=False)
class ShapeScores:
    """Scores of N films under one way of hiding and one kind of outline, (N,) each.

    Attributes:
        hiding: How cells are hidden.
        outline: `lesion` or `masker`.
        labels: of 0 and 1.
        whole: Nothing hidden.
        in_place: The outline where it belongs.
        rolled: The same outline in another place.
        scattered: As many cells, anywhere.
        blank: A film of one grey value, nothing hidden.
        blank_in_place: The same film behind the outline where it belongs.
    """

    hiding: str
    outline: str
    labels: npt.NDArray[np.int64]
    whole: Floats
    in_place: Floats
    rolled: Floats
    scattered: Floats
    blank: Floats
    blank_in_place: Floats


def shape_figures(one: ShapeScores, threshold: float, resampling: Resampling) -> dict[str, Figure]:
    """What outlines do.

    Returns:
        `changed_in_place`, `changed_rolled`, `changed_scattered`: share of the films called otherwise than whole;
        `in_place_minus_rolled`: difference of the first two, paired by film; `score_in_place`, `score_rolled`: mean
        change of the score; `blank_changed`: share of the films called otherwise when nothing but the outline is there;
        `blank_spread`: mean size of the change of the score there; `blank_auroc`: how well the score of the outline
        alone tells the labels.
    """

    def changed(scores: Floats, before: Floats) -> Floats:
        differs: Floats = ((scores >= threshold) != (before >= threshold)).astype(np.float64)
        return differs

    in_place, rolled = changed(one.in_place, one.whole), changed(one.rolled, one.whole)
    means = {
        "changed_in_place": in_place,
        "changed_rolled": rolled,
        "changed_scattered": changed(one.scattered, one.whole),
        "in_place_minus_rolled": in_place - rolled,
        "score_in_place": one.in_place - one.whole,
        "score_rolled": one.rolled - one.whole,
        "blank_changed": changed(one.blank_in_place, one.blank),
        "blank_spread": np.abs(one.blank_in_place - one.blank),
    }
    figures = {name: resampling.mean(values) for name, values in means.items()}
    return figures | {"blank_auroc": _auroc(one.labels, one.blank_in_place, resampling)}


def _auroc(labels: npt.NDArray[np.int64], scores: Floats, resampling: Resampling) -> Figure:
    if len(np.unique(labels)) < 2:
        return Figure(None, None, None, "the films are of one class")
    resampled = resample_patients(
        labels,
        resampling.patients,
        {"auroc": auroc_statistic(labels, scores)},
        resamples=resampling.resamples,
        seed=resampling.seed,
    ).values["auroc"]
    low, high = percentile_interval(resampled, resampling.confidence) or (None, None)
    return Figure(float(roc_auc_score(labels, scores)), low, high)


def shape_block(
    scored: Sequence[tuple[ShapeScores, Resampling]], threshold: float, own: str, left_out: Sequence[str]
) -> Section:
    """Makes the block of the report."""
    figures = [(one, shape_figures(one, threshold, resampling)) for one, resampling in scored]
    missing = f" Not possible with this network: {', '.join(left_out)}." if left_out else ""
    return Section(
        name="mask_shape",
        title="What the outline of a mask does to the answer",
        first_lines=tuple(line for one, found in figures if (line := _tells_label(one, found, own))),
        text=(
            "Each film is scored whole, and with an outline hidden: where it belongs, moved to another place, and as "
            "many cells scattered at random. Changed: share of the films that are called otherwise than whole. Hiding "
            "a lesion that was found should change the answer in place and not elsewhere; for the masks of a masker "
            f"there is no such rule, and a large change elsewhere shows that outlines matter.{missing}",
            "Blank: every pixel of the film is one grey value, and the outline is all that is left to answer to. A way "
            "of hiding that shows no outline changes nothing there; nor does a fill of about the same grey, which "
            "shows its outline on real films all the same. Dropped tokens leave no outline, but the network knows the "
            "places of those that are left.",
        ),
        tables=tuple(_table(outline, figures, own) for outline in dict.fromkeys(one.outline for one, _ in figures)),
        figures={
            "threshold": threshold,
            "own": own,
            "left_out": list(left_out),
            "outlines": [
                {
                    "outline": one.outline,
                    "hiding": one.hiding,
                    "films": len(one.whole),
                    **{name: asdict(figure) for name, figure in found.items()},
                }
                for one, found in figures
            ],
        },
        summary=_summary(figures, own),
    )


def _tells_label(one: ShapeScores, found: Mapping[str, Figure], own: str) -> str:
    """Says it where the run's own network tells the label from outlines without content."""
    auroc = found["blank_auroc"]
    if one.hiding != own or one.outline != "masker" or auroc.low is None or auroc.high is None:
        return ""
    if auroc.low <= 0.5 <= auroc.high:
        return ""
    return (
        "Behind the masks of the test films, the score of a film without any content is related to their labels: AUROC "
        f"{in_words(auroc)}. The outline of the masks is part of what the network answers to; it moves the score by "
        f"{in_words(found['blank_spread'])}."
    )


def _table(outline: str, figures: Sequence[tuple[ShapeScores, dict[str, Figure]]], own: str) -> Table:
    of_outline = [(one, found) for one, found in figures if one.outline == outline]
    names = {
        "changed_in_place": "changed, in place",
        "changed_rolled": "changed, moved",
        "changed_scattered": "changed, scattered",
        "in_place_minus_rolled": "in place minus moved",
        "score_in_place": "score, in place",
        "score_rolled": "score, moved",
        "blank_spread": "blank: size of change",
        "blank_auroc": "blank: AUROC",
    }
    rows = [
        (f"{one.hiding} (this run's)" if one.hiding == own else one.hiding, *(in_words(found[key]) for key in names))
        for one, found in of_outline
    ]
    return Table(
        caption=f"{len(of_outline[0][0].whole)} test films, each with {OUTLINES[outline]} hidden",
        columns=("hiding", *names.values()),
        rows=tuple(rows),
        note="Scores: mean change of the probability against the whole film. Intervals are over patients.",
    )


def _summary(figures: Sequence[tuple[ShapeScores, dict[str, Figure]]], own: str) -> tuple[str, ...]:
    lines: list[str] = []
    for one, found in figures:
        if one.hiding == own:
            changed: list[Any] = [in_words(found[f"changed_{place}"]) for place in ("in_place", "rolled", "scattered")]
            lines.append(
                f"predictions changed by hiding {OUTLINES[one.outline]} ({one.hiding}): in place {changed[0]}, "
                f"moved {changed[1]}, scattered {changed[2]}"
            )
    return tuple(lines)
