"""How many lesions a mask leaves to be seen, for the report: words, a table, a drawing and figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from mim.evaluation.faithfulness import WAYS
from mim.evaluation.faithfulness_plots import recall_plot
from mim.evaluation.faithfulness_words import percent, recall_lines, with_interval
from mim.evaluation.intervals import Intervals
from mim.evaluation.lesion_recall import FEW_LESIONS, Masks, PlacedLesions, Recall, lesion_recall
from mim.evaluation.section import Plot, Section, Table

RECALLED = ("masker", "random", "otsu")


def mask_section(
    masker: str, masks: Mapping[str, Masks], lesions: PlacedLesions | None, no_lesions: str, intervals: Intervals
) -> Section:
    """Measures what the masks of a run hide of the lesions, beside others of the same size.

    Args:
        masker: Kind of the masker, in words.
        masks: By name (`masker`, and others of `WAYS`), (D, N, gh, gw), True = visible, under D draws.
        lesions: Of the N films; None where they are not known.
        no_lesions: Why not.
        intervals: How intervals are made.
    """
    own = masks["masker"][0]
    by_film = own.mean(axis=(1, 2))
    recall = () if lesions is None else lesion_recall(lesions, masks, intervals)
    text = [
        f"The {masker} mask shows {percent(float(by_film.mean()))} of the cells of {len(own)} test films "
        f"({percent(float(by_film.min()))} to {percent(float(by_film.max()))} of a film). What it hides cannot be "
        "found, and is counted as missed wherever this report counts."
    ]
    if lesions is None:
        text.append(f"Lesion recall could not be measured: {no_lesions}.")
    elif bool(own.all()):
        text.append("Nothing is hidden.")
    draws = {name: len(masks[name]) for name in masks if name != "masker"}
    return Section(
        name="mask",
        title="What does the mask hide?",
        first_lines=tuple(recall_lines(recall)),
        text=tuple(text),
        tables=(recall_table(recall, intervals),) if recall else (),
        plots=(recall_drawing(recall),) if recall else (),
        figures={
            "masker": masker,
            "films": len(own),
            "share": float(by_film.mean()),
            "share_lowest": float(by_film.min()),
            "share_highest": float(by_film.max()),
            "draws": draws,
            "lesion_recall": [asdict(row) for row in recall],
            "no_lesion_recall": no_lesions or None,
        },
        summary=tuple(recall_summary(recall, intervals)) if recall else (f"lesion recall: none ({no_lesions})",),
    )


def recall_table(recall: Sequence[Recall], intervals: Intervals) -> Table:
    """Lesion recall by grade, a column a mask."""
    names = _names(recall)
    return Table(
        f"Lesion recall: lesions with at least half their area visible, mildest first ({intervals.level})",
        ("Severity", "Lesions", "Patients", *(WAYS[name].capitalize() for name in names)),
        tuple(_row(row, names) for row in recall),
        f"What the mask hides, the network cannot find. * fewer than {FEW_LESIONS} lesions: the share says little. "
        "Where every lesion is visible, or none, the interval is the exact one for as many trials as patients.",
    )


def recall_drawing(recall: Sequence[Recall]) -> Plot:
    """Lesion recall by grade, drawn."""
    text = "Lesion recall by severity (number of lesions), mildest at the top."
    return Plot(recall_plot(recall, _names(recall), text), text, "band")


def recall_summary(recall: Sequence[Recall], intervals: Intervals) -> Iterator[str]:
    """Lesion recall by grade, a line each, for the terminal."""
    yield f"lesion recall (at least half of a lesion visible; {intervals.level}), mildest first:"
    for row in recall:
        shares = ", ".join(f"{WAYS[name]} {with_interval(row.figures[name])}" for name in _names(recall))
        yield f"  {row.grade}, {row.lesions} lesions{' (few)' if row.few else ''}: {shares}"


def _names(recall: Sequence[Recall]) -> list[str]:
    return [name for name in RECALLED if name in recall[0].figures]


def _row(row: Recall, names: Sequence[str]) -> tuple[str, ...]:
    cells = (with_interval(row.figures[name]) for name in names)
    count = f"{row.lesions}{'*' if row.few else ''}"
    return row.grade.capitalize() if row.grade == "all" else row.grade, count, str(row.patients), *cells
