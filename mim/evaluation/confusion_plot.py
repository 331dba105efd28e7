"""The confusion matrix as a vector drawing."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mim.evaluation.bootstrap import Integers
from mim.evaluation.curves import ACCENT, FAINT, INK, page_drawing

MOST = 24
"""Classes above which cells are too small to be read."""
STRONGEST = 0.45  # opacity of a cell that holds all films of its row: what stands on it must stay readable
LONGEST_NAME = 18


def confusion_plot(counts: Integers, names: Sequence[str], label: str) -> str:
    """Draw films by what they are (rows) and what they are called (columns), each row shaded by its shares.

    Args:
        counts: (K, K), K at most `MOST`.
        names: K names of the classes.
        label: What a screen reader says in the plot's place.

    Returns:
        An SVG element.
    """
    size = len(names)
    shown = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]

    def fill(figure: Figure) -> None:
        axes = figure.add_subplot()
        for row in range(size):
            total = int(counts[row].sum())
            for column in range(size):
                count = int(counts[row, column])
                share = count / total if total else 0.0
                cell = Rectangle((column, row), 1, 1, facecolor=ACCENT, alpha=STRONGEST * share, linewidth=0)
                axes.add_patch(cell)
                text = f"{count}\n{share * 100:.0f} %" if total and size <= MOST // 2 else str(count)
                weight = "bold" if row == column else "normal"
                axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=INK, weight=weight, size=9)
        axes.set(xlim=(0, size), ylim=(size, 0), xlabel="called", ylabel="is")
        axes.set_xticks([place + 0.5 for place in range(size)], shown, rotation=45, ha="right")
        axes.set_yticks([place + 0.5 for place in range(size)], shown)
        for text_of_tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text_of_tick.set_parse_math(False)  # a class may be called anything
        for line in range(size + 1):
            axes.axhline(line, color=FAINT, linewidth=0.6)
            axes.axvline(line, color=FAINT, linewidth=0.6)
        axes.tick_params(length=0)
        axes.set_aspect("equal")

    side = min(2.2 + 0.62 * size, 12.0)
    return page_drawing("confusion", fill, label, (side, side))
