"""Maskers that keep what reaches a threshold; `python -m mim.masking.threshold` helps to choose one."""

from mim.masking.threshold.cascade import MaskerCascade
from mim.masking.threshold.masker import ScoreSource, ThresholdMasker

__all__ = ["MaskerCascade", "ScoreSource", "ThresholdMasker"]
