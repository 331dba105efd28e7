"""Differentiable yes-or-no decisions."""

import torch
from torch import Tensor


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
    uniform = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
    relaxed = torch.sigmoid((scores + torch.logit(uniform)) / temperature)
    return (relaxed > 0.5).to(relaxed.dtype) + (relaxed - relaxed.detach())


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
