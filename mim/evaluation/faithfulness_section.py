"""The faithfulness block of the report: what was measured, in words, tables, plots and figures."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from mim.evaluation.comparison import Difference
from mim.evaluation.faithfulness import RIVALS, WAYS, Faithfulness
from mim.evaluation.faithfulness_plots import keep_curve
from mim.evaluation.faithfulness_words import (
    briefly,
    interval,
    leakage_lines,
    percent,
    recall_lines,
    shows_everything,
    verdicts,
    with_interval,
)
from mim.evaluation.figures import Figure
from mim.evaluation.intervals import Intervals
from mim.evaluation.leakage import FOLDS, Leakage
from mim.evaluation.recall_section import recall_drawing, recall_summary, recall_table
from mim.evaluation.section import Plot, Section, Table

TITLE = "Does the mask show what matters?"


def make_section(measured: Faithfulness, intervals: Intervals) -> Section:
    """Puts what was measured into words, tables, plots and the figures of `metrics.json`.

    Args:
        measured: What was measured.
        intervals: How its intervals were made.
    """
    first = (*recall_lines(measured.recall), *verdicts(measured, intervals), *leakage_lines(measured, intervals))
    return Section(
        name="faithfulness",
        title=TITLE,
        first_lines=first,
        text=tuple(_text(measured, intervals)),
        tables=tuple(_tables(measured, intervals)),
        plots=tuple(_plots(measured, intervals)),
        figures=figures(measured, intervals),
        summary=tuple(_summary(measured, intervals)),
    )


def figures(measured: Faithfulness, intervals: Intervals) -> dict[str, Any]:
    """Gives what `metrics.json` says under `blocks.faithfulness`; docs/reference/faithfulness.md explains the keys."""
    compared = measured.comparisons
    return {
        "masker": measured.masker,
        "films": measured.films,
        "patients": measured.patients,
        "share": measured.share,
        "random_masks": measured.random_masks,
        "resamples": intervals.resamples,
        "lesion_recall": [asdict(row) for row in measured.recall],
        "no_lesion_recall": measured.no_recall or None,
        "curves": {
            name: [{"keep_rate": rate, **asdict(figure)} for rate, figure in sorted(points.items())]
            for name, points in compared.curves.items()
        },
        "absent": dict(measured.absent),
        "at_own_share": {name: asdict(figure) for name, figure in compared.at_own_share.items()},
        "differences": {name: asdict(difference) for name, difference in compared.differences.items()},
        "same_mask": list(measured.same),
        "leakage": None if measured.leakage is None else asdict(measured.leakage),
        "no_leakage": measured.no_leakage or None,
    }


def _text(measured: Faithfulness, intervals: Intervals) -> Iterator[str]:
    if measured.masker == "none":
        yield (
            "This run has no masker: the network sees all of every film, so there is no mask to judge. The curves show "
            "what the network makes of films of which a part is hidden: how much it can do without, and whether the "
            "places that a simple rule picks out serve it better than random ones."
        )
    elif shows_everything(measured):
        yield "The mask shows everything: there is nothing to compare."
    else:
        yield (
            f"The {measured.masker} mask shows {percent(measured.share)} of the cells. A mask is only of use if the "
            "network does better with what it shows than with as many cells chosen at random, or by brightness; and it "
            "is only safe if it does not hide lesions. All masks hide in the same way, by the run's own network."
        )
    if measured.no_recall:
        yield f"Lesion recall could not be measured: {measured.no_recall}."
    for name, reason in measured.absent.items():
        yield f"There is no curve of {WAYS[name]}: {reason}."
    for name in measured.same:
        yield f"The run's mask is that of {WAYS[name]} at the same share, cell by cell: there is nothing to compare."
    if measured.no_leakage:
        yield f"What the mask gives away could not be measured: {measured.no_leakage}."
    if measured.leakage is not None and measured.leakage.no_evaluator:
        yield f"There is no independent network that looks through this mask: {measured.leakage.no_evaluator}."
    yield (
        f"AUCs are of {measured.films} test films of {measured.patients} patients; intervals come from "
        f"{intervals.resamples} resamples of patients. Random masks are drawn {measured.random_masks} times, and their "
        "interval holds the chance of the draw as well."
    )


def _tables(measured: Faithfulness, intervals: Intervals) -> Iterator[Table]:
    if measured.recall:
        yield recall_table(measured.recall, intervals)
    compared = measured.comparisons
    if compared.at_own_share:
        yield Table(
            f"AUC at the share of the run's mask, film by film ({intervals.level})",
            ("Cells chosen by", "AUC", "The run's mask is better by"),
            tuple(
                (WAYS[name].capitalize(), with_interval(compared.at_own_share[name]), _better(measured, name))
                for name in WAYS
                if name in compared.at_own_share
            ),
            "An interval that holds 0 is no evidence that the mask is better.",
        )
    rates = sorted({rate for points in compared.curves.values() for rate in points})
    if rates:
        yield Table(
            f"AUC against the share of cells that is seen ({intervals.level})",
            ("Cells chosen by", *(percent(rate) for rate in rates)),
            tuple(
                (WAYS[name].capitalize(), *(briefly(compared.curves[name][rate]) for rate in rates))
                for name in WAYS
                if name in compared.curves
            ),
            "The oracle knows where the lesions are, as no masker can: a yardstick, not a rival.",
        )
    if measured.leakage is not None:
        yield _leakage_table(measured.leakage, intervals)


def _better(measured: Faithfulness, name: str) -> str:
    if name in measured.same:
        return "the same mask"
    difference = measured.comparisons.differences.get(name)
    return "" if difference is None else _difference(difference)


def _difference(difference: Difference) -> str:
    if difference.value is None:
        return f"– ({difference.reason})"
    return f"{difference.value:+.3f}{interval(difference.low, difference.high, signed=True)}"


def _leakage_table(leakage: Leakage, intervals: Intervals) -> Table:
    none = Figure(None, None, None)
    rows = [
        ("AUC of the mask alone", with_interval(leakage.alone.get("masker", none)), "0.5: the mask tells nothing"),
        *(
            (f"AUC of {WAYS[name]} masks alone", with_interval(leakage.alone[name]), "to compare with")
            for name in RIVALS
            if name in leakage.alone
        ),
        ("AUC of the share seen", with_interval(leakage.keep_rate), "0.5: the amount seen tells nothing"),
        (
            "AUC behind the mask, shifted",
            with_interval(leakage.shifted),
            f"own mask better by {_difference(leakage.lost_by_shift)}",
        ),
        (
            "AUC behind another film's mask",
            with_interval(leakage.swapped),
            "" if leakage.lost_by_swap is None else f"own mask better by {_difference(leakage.lost_by_swap)}",
        ),
        (
            "AUC of that score against the other film's label",
            with_interval(leakage.follows_mask),
            "0.5: the network does not read the mask",
        ),
        (
            "Overlap with the mean mask",
            with_interval(leakage.overlap),
            f"by chance {leakage.overlap_by_chance:.3f}; near 1: every film has the same mask",
        ),
    ]
    if leakage.evaluator is not None:
        other = leakage.evaluator
        rows += [
            (
                f"AUC of an independent network, {WAYS[name]}",
                with_interval(other.at_own_share[name]),
                f"the run's mask is better by {_difference(other.differences[name])}" if name in RIVALS else "",
            )
            for name in ("masker", *RIVALS)
        ]
        rows.append(("Gap of the run's network to it", _difference(other.gap), "both behind the run's mask"))
    return Table(
        f"Leakage: what the mask itself gives away ({intervals.level})",
        ("Figure", "Value", "How to read it"),
        tuple(rows),
        f"A mask alone is judged by a logistic regression that learns from the masks of {FOLDS - 1} in {FOLDS} of the "
        "validation and test patients (of an external test set its patients alone) and is asked about the others.",
    )


def _plots(measured: Faithfulness, intervals: Intervals) -> Iterator[Plot]:
    if measured.recall:
        yield recall_drawing(measured.recall)
    curves = measured.comparisons.curves
    if any(figure.value is not None for points in curves.values() for figure in points.values()):
        banded = " and ".join(WAYS[name] for name in ("masker", "random") if name in curves)
        text = f"AUC against the share of cells that is seen. Shaded: {intervals.level} of {banded}."
        yield Plot(keep_curve(curves, measured.share, text), text, "band")


def _summary(measured: Faithfulness, intervals: Intervals) -> Iterator[str]:
    if measured.recall:
        yield from recall_summary(measured.recall, intervals)
    if measured.no_recall:
        yield f"lesion recall: none ({measured.no_recall})"
    for name, difference in measured.comparisons.differences.items():
        rival = measured.comparisons.at_own_share[name]
        yield f"AUC behind the run's mask less that behind {WAYS[name]} ({with_interval(rival)}): " + _difference(
            difference
        )
    if measured.leakage is not None and "masker" in measured.leakage.alone:
        yield f"AUC of the mask alone: {with_interval(measured.leakage.alone['masker'])}"
