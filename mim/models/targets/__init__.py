"""What the decoder must give back of each cell."""

from mim.models.targets.cells import normalize_cells, patchify, unpatchify
from mim.models.targets.collapse import CollapseGuard
from mim.models.targets.distillation import VisibleDistillation
from mim.models.targets.hog import HogTarget
from mim.models.targets.latent import LatentTarget
from mim.models.targets.pixels import PixelTarget
from mim.models.targets.spectral import SpectralTarget
from mim.models.targets.target import Target

__all__ = [
    "CollapseGuard",
    "HogTarget",
    "LatentTarget",
    "PixelTarget",
    "SpectralTarget",
    "Target",
    "VisibleDistillation",
    "normalize_cells",
    "patchify",
    "unpatchify",
]
