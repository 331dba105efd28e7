"""Patterns of visible cells."""

from mim.masking.patterns.blocks import BLOCK_WISE, MULTI_BLOCK, Blocks, InverseBlock
from mim.masking.patterns.content import Foreground, Texture
from mim.masking.patterns.create import GUIDED, LOOKING, create_pattern
from mim.masking.patterns.grid import Grid
from mim.masking.patterns.pattern import Pattern, Wanted
from mim.masking.patterns.random import hidden_count, random_visible, random_visible_batch
from mim.masking.patterns.units import Units

__all__ = [
    "BLOCK_WISE",
    "GUIDED",
    "LOOKING",
    "MULTI_BLOCK",
    "Blocks",
    "Foreground",
    "Grid",
    "InverseBlock",
    "Pattern",
    "Texture",
    "Units",
    "Wanted",
    "create_pattern",
    "hidden_count",
    "random_visible",
    "random_visible_batch",
]
