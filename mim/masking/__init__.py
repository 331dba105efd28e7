"""Who decides what is visible: random patterns, thresholds, learned maskers."""

from mim.masking.gates import binary_concrete, budget_loss
from mim.masking.grids import fit_mask_to_grid, fit_scores_to_grid
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask, Masker
from mim.masking.patterns import create_pattern, hidden_count, random_visible, random_visible_batch
from mim.masking.threshold import MaskerCascade, ThresholdMasker
from mim.masking.transform import RandPatchMaskd

__all__ = [
    "Mask",
    "Masker",
    "MaskerCascade",
    "PatchMasker",
    "RandPatchMaskd",
    "ThresholdMasker",
    "binary_concrete",
    "budget_loss",
    "create_pattern",
    "fit_mask_to_grid",
    "fit_scores_to_grid",
    "hidden_count",
    "random_visible",
    "random_visible_batch",
]
