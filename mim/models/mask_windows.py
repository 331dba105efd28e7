"""Reasoning about masks that are max-pools of one another, before any mask is known."""

from dataclasses import dataclass
from typing import Any

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Reach:
    """Which inputs a position of a convolution or pool reads: input `step * position + offset`, low <= offset <= high.

    The same for rows and columns.
    """

    step: int
    low: int
    high: int


@dataclass(frozen=True)
class Window:
    """A mask as a max-pool: 1 at p where `base` has a 1 between `stride * p + low` and `stride * p + high`."""

    base: Key
    stride: int
    low: int
    high: int


@dataclass(frozen=True)
class MaskShape:
    """A mask that will be known when a batch is: how it is made, and what can be said of it beforehand.

    Attributes:
        key: how it is made, from the mask over the cells on.
        window: the same as a window over an earlier mask.
        block: side, in positions, of the blocks that it is constant in, where it is the mask over the cells itself at
            some resolution; else 1.
        resolution: pixels of a position where it is that mask; else 0.
    """

    key: Key
    window: Window
    block: int = 1
    resolution: int = 0

    @classmethod
    def of_cells(cls, patch_size: int, resolution: int = 1) -> "MaskShape":
        """The mask over the cells, at a resolution of so many pixels a position."""
        key = ("cells", resolution)
        return cls(key, Window(key, 1, 0, 0), patch_size // resolution, resolution)

    def pooled(self, reach: Reach, how: Key) -> "MaskShape":
        """The mask of what a layer gives, 1 where it reads at least one 1.

        Args:
            reach: what the layer reads.
            how: kernel, stride, padding and dilation, for `key`.
        """
        if how == ((1, 1), (1, 1), (0, 0), (1, 1)):
            return self
        if self.resolution and reach.low >= 0 and reach.high < reach.step and self.block % reach.step == 0:
            return MaskShape.of_cells(self.block * self.resolution, self.resolution * reach.step)
        key = ("pool", self.key, *how)
        own = self.window
        if own.stride > own.high - own.low + 1 and reach.high > reach.low:
            own = Window(self.key, 1, 0, 0)  # a window with gaps is none: begin anew from here
        window = Window(
            own.base, own.stride * reach.step, own.low + own.stride * reach.low, own.high + own.stride * reach.high
        )
        return MaskShape(key, window)

    def times(self, other: "MaskShape") -> "MaskShape":
        """The mask that is 1 where both are."""
        if self.within(other):
            return self
        if other.within(self):
            return other
        key = ("product", self.key, other.key)
        return MaskShape(key, Window(key, 1, 0, 0))

    def within(self, other: "MaskShape") -> bool:
        """Whether it is certain that this mask is 1 only where the other is."""
        if self.key == other.key:
            return True
        for base in (other.window.base, self.window.base):
            own, others = self.over(base), other.over(base)
            if own is not None and others is not None:
                return own.stride == others.stride and others.low <= own.low and own.high <= others.high
        return False

    def over(self, base: Key) -> Window | None:
        """This mask as a window over another one, if it is known as such."""
        if self.window.base == base:
            return self.window
        if self.key == base:
            return Window(base, 1, 0, 0)
        if self.resolution and base[0] == "cells" and self.resolution % base[1] == 0:
            return Window(base, self.resolution // base[1], 0, 0)  # constant in the cell: one position speaks for it
        return None


def rings_read(given: MaskShape, used: MaskShape, gives: MaskShape, reach: Reach, most: int) -> int:
    """How far beyond its visible inputs a layer reads for those of its outputs that anything later depends on.

    Args:
        given: mask of the input.
        used: mask of the outputs that are used.
        gives: mask of all outputs that are visible.
        reach: what the layer reads.
        most: the answer where nothing better is known.

    Returns:
        Number of rings, one position wide, around the visible inputs.
    """
    if given.resolution and gives.resolution:
        return 0  # every output reads within one cell
    own = given.window
    wanted = used.over(own.base)
    if wanted is None:
        own = Window(given.key, 1, 0, 0)
        wanted = used.over(given.key)
    if wanted is None or wanted.stride != own.stride * reach.step:
        return most
    after = wanted.high - own.stride * reach.low - own.high
    before = own.low - wanted.low + own.stride * reach.high
    return min(max(-(-after // own.stride), -(-before // own.stride), 0), most)
