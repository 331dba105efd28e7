"""Patterns of visible cells."""

from mim.masking.patterns.random import hidden_count, random_visible, random_visible_batch

__all__ = ["hidden_count", "random_visible", "random_visible_batch"]
