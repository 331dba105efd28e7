"""Differentiable yes-or-no decisions."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

Gate = Literal["binary", "hard_concrete", "top_k", "soft"]
GATES: tuple[str, ...] = get_args(Gate)

STRETCH = (-0.1, 1.1)  # Louizos et al., section 3: "gamma" and "zeta"


def binary_concrete(scores: Tensor, temperature: float) -> Tensor:
    """Samples straight-through binary gates from scores.

    Forward: exactly 0 or 1, a Bernoulli draw with probability sigmoid(score). Backward: the gradient of the concrete
    relaxation sigmoid((score + logistic noise) / temperature) (Maddison et al., ICLR 2017; Jang et al., ICLR 2017).

    Args:
        scores: log-odds of a cell being visible, any shape.
        temperature: of the relaxation; lower = closer to the hard decision, noisier gradient.

    Returns:
        Gates of the same shape.
    """
    return _straight_through(_concrete(scores, temperature))


def stretched_concrete(scores: Tensor, temperature: float) -> Tensor:
    """Samples gates that are exactly 0 or 1 at times, and between them otherwise: the hard concrete distribution.

    The concrete relaxation is stretched to (-0.1, 1.1) and cut at 0 and 1 (Louizos et al., Learning Sparse Neural
    Networks through L0 Regularization, ICLR 2018, equations 10 and 11). Where it is cut there is no gradient.

    Args:
        scores: log-odds of a gate being open, any shape.
        temperature: of the relaxation.

    Returns:
        Gates of the same shape, in [0, 1].
    """
    low, high = STRETCH
    return (_concrete(scores, temperature) * (high - low) + low).clamp(0, 1)


def chance_not_closed(scores: Tensor, temperature: float) -> Tensor:
    """Gives the chance that a gate of `stretched_concrete` is not exactly 0 (Louizos et al., equation 12)."""
    low, high = STRETCH
    return torch.sigmoid(scores - temperature * math.log(-low / high))


def hard_concrete(scores: Tensor, temperature: float) -> Tensor:
    """Samples straight-through binary gates whose gradient vanishes where the decision is clear.

    What `stretched_concrete` hands on as it is between 0 and 1 is rounded here in the forward pass: a cell is seen or
    it is not.

    Args:
        scores: log-odds of a cell being visible, any shape.
        temperature: of the relaxation.

    Returns:
        Gates of the same shape, exactly 0 or 1, open with probability sigmoid(score).
    """
    return _straight_through(stretched_concrete(scores, temperature))


def top_k_gate(scores: Tensor, keep: float, temperature: float) -> Tensor:
    """Opens the same share of every image: a draw without replacement, in which high scores are likely.

    Forward: 1 for the k cells with the highest score + Gumbel noise (Kool et al., Stochastic Beams and Where to Find
    Them, ICML 2019, section 2.3), else 0. Backward: the gradient of sigmoid((noisy score - cut) / temperature), where
    the cut lies halfway between the last cell that is open and the first that is not, and moves with both.

    Args:
        scores: (B, gh, gw) float.
        keep: share of the cells, in (0, 1]; rounded to a whole number of cells, at least one.
        temperature: of the relaxation.

    Returns:
        (B, gh, gw) gates, exactly k of them 1 in each image.
    """
    cells = scores.flatten(1)
    count = max(round(keep * cells.shape[1]), 1)
    noisy = cells - torch.log(-torch.log(torch.rand_like(cells).clamp(1e-6, 1 - 1e-6)))
    ordered, order = noisy.sort(dim=1, descending=True, stable=True)
    next_one = ordered[:, min(count, cells.shape[1] - 1)]
    cut = (ordered[:, count - 1] + next_one)[:, None] / 2
    relaxed = torch.sigmoid((noisy - cut) / temperature)
    hard = torch.zeros_like(relaxed).scatter_(1, order[:, :count], 1)
    return (hard + (relaxed - relaxed.detach())).view_as(scores)


def budget_loss(scores: Tensor, keep: float) -> Tensor:
    """Squared distance between the expected share of visible cells in the batch and the share asked for.

    Two-sided on purpose: showing everything and showing nothing are both penalised.

    Args:
        scores: (B, gh, gw) log-odds of a cell being visible.
        keep: share asked for, in (0, 1].

    Returns:
        Scalar.
    """
    return (torch.sigmoid(scores).mean() - keep).square()


def _concrete(scores: Tensor, temperature: float) -> Tensor:
    uniform = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid((scores + torch.logit(uniform)) / temperature)


def _straight_through(relaxed: Tensor) -> Tensor:
    return (relaxed > 0.5).to(relaxed.dtype) + (relaxed - relaxed.detach())
