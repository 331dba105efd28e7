"""Patterns by their names."""

from torch import Tensor

from mim.masking.patterns.blocks import BLOCK_WISE, MULTI_BLOCK, InverseBlock
from mim.masking.patterns.content import Foreground, Texture
from mim.masking.patterns.grid import Grid
from mim.masking.patterns.pattern import Pattern, Wanted
from mim.masking.patterns.random import random_visible
from mim.masking.patterns.units import Units

GUIDED = ("hard", "attention")  # a guide inside the model chooses; what is drawn here is how many, and the noise
LOOKING = ("foreground", "texture")


def at_random(wanted: Wanted) -> Tensor:
    """Hides cells at random, each equally likely."""
    return random_visible(wanted.grid, wanted.ratio, wanted.generator)


def create_pattern(name: str, unit: int = 1, share: float = 0.5, exact: bool = False) -> Pattern:
    """Makes a pattern.

    Args:
        name: `random`, `block`, `grid`, `inverse_block`, `multi_block`, `foreground`, `texture`, or one that a guide
            inside the model carries out, `hard` or `attention`, for which cells are drawn at random here.
        unit: random: side of what is hidden together, in cells.
        share: texture: share of the hidden cells that is drawn by texture, in [0, 1].
        exact: foreground: whether films hide equally many cells.

    Raises:
        ValueError: unknown name, or a number out of range.
    """
    if unit < 1:
        raise ValueError(f"a unit must be at least 1 cell, not {unit}")
    if not 0 <= share <= 1:
        raise ValueError(f"the guided share must lie between 0 and 1, not {share}")
    patterns: dict[str, Pattern] = {
        "random": at_random if unit == 1 else Units(unit),
        "block": BLOCK_WISE,
        "grid": Grid(),
        "inverse_block": InverseBlock(),
        "multi_block": MULTI_BLOCK,
        "foreground": Foreground(exact),
        "texture": Texture(share),
        **dict.fromkeys(GUIDED, at_random),
    }
    if name not in patterns:
        raise ValueError(f"there is no mask pattern {name!r}; there are {', '.join(patterns)}")
    return patterns[name]
