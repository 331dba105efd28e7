"""Whether a learned masker still decides: one that shows all, nothing, or the same of every film does not."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

FAR = 0.4  # from the share asked for, as a part of what there is room for on that side, doubled at the ends
LITTLE = 0.05  # log-odds: cells, or films, that differ by less are all alike


@dataclass(frozen=True)
class MaskFigures:
    """How a masker decides over some films.

    Attributes:
        rate: expected share of visible cells, the mean probability; a budget holds it at the share asked for.
        rate_lowest: the same of the film with the smallest share.
        rate_highest: and of the one with the largest.
        cell_deviation: standard deviation of the log-odds between the cells of a film, mean over films.
        film_deviation: standard deviation of a cell's log-odds between films, each film's mean taken away first, mean
            over cells; near zero where every film gets one and the same mask.
    """

    rate: float
    rate_lowest: float
    rate_highest: float
    cell_deviation: float
    film_deviation: float

    def as_figures(self, prefix: str) -> dict[str, float]:
        """By name, for a log."""
        return {f"{prefix}{name}": value for name, value in asdict(self).items()}


def mask_figures(scores: Tensor) -> MaskFigures:
    """Takes the figures of log-odds, (B, gh, gw)."""
    cells = scores.detach().flatten(1).double()
    rates = torch.sigmoid(cells).mean(dim=1)
    own = cells - cells.mean(dim=1, keepdim=True)
    return MaskFigures(
        float(rates.mean()),
        float(rates.min()),
        float(rates.max()),
        float(cells.std(dim=1, correction=0).mean()),
        float(own.std(dim=0, correction=0).mean()),
    )


def describe_collapse(figures: MaskFigures, keep: float, films: int) -> str | None:
    """Says in one line what is wrong with a masker and what to do, or None where nothing is.

    Args:
        figures: over these films.
        keep: share of visible cells asked for.
        films: how many; of a single one it cannot be said whether all get the same mask.
    """
    low, high = keep * (1 - FAR) / 2, keep + (1 - keep) * (1 + FAR) / 2
    if figures.rate > high and keep < 1:
        return (
            f"the masker shows everything: its odds would keep {figures.rate:.2f} of the cells and "
            f"masker.keep is {keep:g}; raise masker.budget_weight"
        )
    if figures.rate < low:
        return (
            f"the masker shows nothing: its odds would keep {figures.rate:.2f} of the cells and "
            f"masker.keep is {keep:g}; raise masker.budget_weight"
        )
    if figures.cell_deviation < LITTLE:
        return (
            f"the masker does not choose: the odds of a film's cells differ by {figures.cell_deviation:.3f}; "
            "train it longer (masker.stages) or at a higher masker.lr, or give it lesions (masker.supervised)"
        )
    if films > 1 and figures.film_deviation < min(LITTLE, figures.cell_deviation / 20):
        return (
            f"the masker does not look: the odds of a cell differ by {figures.film_deviation:.3f} between films, so "
            "all get one mask; train it longer (masker.stages), or give it lesions (masker.supervised)"
        )
    return None
