"""Samples to batches: what has as many rows as a film has lesions is filled up to the longest."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

PADDED = ("boxes", "box_label")
PADDING = -1


def collate_films(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of samples, as torch does, and pad `boxes` and `box_label`.

    Args:
        samples: With equal keys.

    Returns:
        `boxes` (B, M, 4) and `box_label` (B, M), filled up with -1, where samples have them; M is that of the sample
        with most, and may be 0.
    """
    batch: dict[str, Any] = default_collate(
        [{k: v for k, v in sample.items() if k not in PADDED} for sample in samples]
    )
    for key in PADDED:
        if key in samples[0]:
            batch[key] = pad([sample[key] for sample in samples], PADDING)
    return batch


def pad(parts: Sequence[Tensor], value: float) -> Tensor:
    """Stack tensors of unequal length, filled up at their ends to the longest.

    Args:
        parts: B tensors (N_b, ...) that differ in N_b alone.
        value: What they are filled up with.

    Returns:
        (B, N, ...) with the largest N.
    """
    longest = max(len(part) for part in parts)
    padded = torch.full((len(parts), longest, *parts[0].shape[1:]), value, dtype=parts[0].dtype)
    for row, part in zip(padded, parts, strict=True):
        row[: len(part)] = part
    return padded
