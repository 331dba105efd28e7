"""What the decoder must give back of each cell."""

from mim.models.targets.cells import normalize_cells, patchify, unpatchify
from mim.models.targets.pixels import PixelTarget
from mim.models.targets.target import Target

__all__ = ["PixelTarget", "Target", "normalize_cells", "patchify", "unpatchify"]
