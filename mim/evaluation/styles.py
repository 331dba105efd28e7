"""How each curve looks wherever it is drawn."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mim.evaluation.curves import ACCENT, FAINT, INK, NEGATIVE, POSITIVE

STYLES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: MappingProxyType({"color": colour, "linestyle": line, "marker": marker, "linewidth": width})
        for name, colour, line, marker, width in (
            # the run's own mask, and what it is compared with
            ("masker", POSITIVE, "-", "o", 2.4),
            ("random", NEGATIVE, "--", "s", 1.8),
            ("otsu", ACCENT, "-.", "^", 1.6),
            ("variance", INK, ":", "v", 1.2),
            ("reconstruction_error", INK, "--", "x", 1.2),
            ("attention", ACCENT, ":", "D", 1.2),
            ("oracle", FAINT, "-", "", 1.8),
            # what hides
            ("drop", POSITIVE, "-", "o", 2.2),
            ("layer", POSITIVE, "-", "o", 2.2),
            ("sparse", ACCENT, "-", "s", 2.0),
            ("token", ACCENT, "-", "s", 2.0),
            # what paints over
            ("grey", NEGATIVE, "--", "^", 1.3),
            ("black", INK, "--", "v", 1.3),
            ("mean", NEGATIVE, ":", "D", 1.3),
            ("blur", INK, ":", "x", 1.3),
            # explanations of networks, beside the masker
            ("random order", FAINT, "-", "", 2.2),
            ("occlusion", INK, "--", "x", 1.5),
            ("lime", NEGATIVE, "--", "s", 1.5),
            ("integrated gradients", ACCENT, "-.", "^", 1.5),
            ("attention rollout", INK, ":", "D", 1.5),
        )
    }
)
"""Colour, line and marker: curves of one plot are told apart without colour too."""
