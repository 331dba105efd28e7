"""What a reader must know about a mask before anything else, in words a clinician understands."""

from collections.abc import Iterator, Sequence

from mim.evaluation.comparison import Difference
from mim.evaluation.faithfulness import RIVALS, Faithfulness
from mim.evaluation.figures import Figure
from mim.evaluation.intervals import Intervals
from mim.evaluation.lesion_recall import Recall

NEARLY_EVERYTHING = 0.999
SAME_MASK = 0.9
"""Overlap with the mean mask above chance, of what is possible, from which all films are said to have one mask."""
RIVAL_WORDS = {
    "random": ("a random mask", "random masks"),
    "otsu": ("simply showing the brightest cells (Otsu foreground)", "the brightest cells"),
}


def recall_lines(recall: Sequence[Recall]) -> Iterator[str]:
    """Says how many lesions the mask hides, and how many of the mildest; nothing where it hides none."""
    everything = recall[-1] if recall else None
    hidden = None if everything is None else _hidden(everything.figures.get("masker"), everything.lesions)
    if everything is None or not hidden:
        return
    mildest = recall[0]
    of_mildest = ""
    if mildest is not everything and mildest.grade != "not graded":
        few = _hidden(mildest.figures["masker"], mildest.lesions)
        of_mildest = f"; of the {mildest.lesions} mildest ({mildest.grade}) it hides {few}"
    random = everything.figures.get("random")
    beside = (
        f" Random masks of the same size hide {percent(1 - random.value)} of them." if random and random.value else ""
    )
    yield (
        f"The mask hides {hidden} of {everything.lesions} marked lesions ({percent(hidden / everything.lesions)}) from "
        f"the network: less than half of their area is shown{of_mildest}. What is not shown cannot be found.{beside}"
    )


def verdicts(measured: Faithfulness, intervals: Intervals) -> Iterator[str]:
    """Says of random masks and of Otsu's foreground whether the mask fails to beat them."""
    if shows_everything(measured):
        return
    for name in RIVALS:
        difference = measured.comparisons.differences.get(name)
        if difference is None or name in measured.same:
            continue
        if line := verdict(measured.masker, name, difference, measured.share, intervals):
            yield line


def verdict(masker: str, rival: str, difference: Difference, share: float | None, intervals: Intervals) -> str:
    """Gives a sentence where a mask does not beat a rival: where the interval of the difference does not lie above 0.

    Args:
        masker: Kind of the run's masker.
        rival: `random` or `otsu`.
        difference: AUC behind the run's mask less that behind the rival's.
        share: Mean share of the cells that both show.
        intervals: How the interval was made.

    Returns:
        The sentence; empty where the mask is better.
    """
    one, many = RIVAL_WORDS[rival]
    if difference.value is None or difference.low is None or difference.high is None:
        return f"Whether the {masker} mask is better than {one} cannot be said: {difference.reason}."
    if difference.low > 0:
        return ""
    figures = (
        f"With {percent(share)} of each film seen, the AUC is {difference.auroc_b:.3f} behind the {masker} mask and "
        f"{difference.auroc_a:.3f} behind {many}; the difference is {difference.value:+.3f} ({intervals.level} "
        f"{difference.low:+.3f} to {difference.high:+.3f})."
    )
    if difference.high < 0:
        return f"The {masker} mask is worse than {one}: it hides what the network needs. {figures}"
    return f"The {masker} mask does not beat {one}: do not take what it shows for what matters on the film. {figures}"


def leakage_lines(measured: Faithfulness, intervals: Intervals) -> Iterator[str]:
    """Says what suggests that the mask itself carries the answer, or carries nothing."""
    leakage = measured.leakage
    if leakage is None:
        return
    alone = leakage.alone.get("masker")
    if alone is not None and alone.low is not None and alone.low > 0.5:
        yield (
            "The mask by itself, without a single pixel of the film, tells films with the finding from films without: "
            f"AUC {with_interval(alone)}, {intervals.level}. Part of the network's answer may come from the mask's "
            "shape."
        )
    follows = leakage.follows_mask
    if follows.low is not None and follows.low > 0.5:
        yield (
            "Behind the mask of another patient's film, the network's score goes with that other patient's label: AUC "
            f"{with_interval(follows)} ({intervals.level}). The network reads the answer from the mask."
        )
    overlap, chance = leakage.overlap.value, leakage.overlap_by_chance
    if overlap is not None and chance < NEARLY_EVERYTHING and (overlap - chance) / (1 - chance) > SAME_MASK:
        yield (
            f"Every film has nearly the same mask (overlap with the mean mask {overlap:.3f}; random masks would have "
            f"{chance:.3f}): it marks a region of all films, not findings of one."
        )
    other = leakage.evaluator
    if other is not None:
        difference = other.differences["random"]
        if difference.low is not None and difference.low <= 0 and difference.value is not None:
            yield (
                "An independent network that never met this mask does no better behind it than behind random masks "
                f"(difference {difference.value:+.3f}{interval(difference.low, difference.high, signed=True)}): what "
                "the mask shows is not shown to matter."
            )


def shows_everything(measured: Faithfulness) -> bool:
    """Whether the run's mask hides nothing worth mentioning."""
    return measured.share is not None and measured.share > NEARLY_EVERYTHING


def with_interval(figure: Figure, digits: int = 3) -> str:
    """A figure and its interval as text; a dash where there is none."""
    if figure.value is None:
        return "–"
    return f"{figure.value:.{digits}f}{interval(figure.low, figure.high, digits)}"


def briefly(figure: Figure) -> str:
    """A figure and its interval as text for a wide table."""
    if figure.value is None:
        return "–"
    return f"{figure.value:.2f}" + ("" if figure.low is None else f" ({figure.low:.2f}–{figure.high:.2f})")


def interval(low: float | None, high: float | None, digits: int = 3, *, signed: bool = False) -> str:
    """An interval in brackets, after a space; nothing where there is none."""
    if low is None or high is None:
        return ""
    sign = "+" if signed else ""
    return f" ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def percent(share: float | None) -> str:
    """A share as text."""
    if share is None:
        return "–"
    value = round(share * 100, 3)
    return f"{value:.0f} %" if value >= 10 or value == int(value) else f"{value:.1f} %"


def _hidden(figure: Figure | None, lesions: int) -> int:
    return 0 if figure is None or figure.value is None else lesions - round(figure.value * lesions)
