"""The error of several labels, each of which a film has, has not, or may have."""

import torch
import torch.nn.functional as F
from torch import Tensor


def several_labels_loss(
    logits: Tensor, label: Tensor, positive_weight: Tensor | None = None, gamma: float = 0.0, smoothing: float = 0.0
) -> Tensor:
    """Binary cross entropy of each label, its mean over all that are known.

    Args:
        logits: (B, labels).
        label: (B, labels) of 0 and 1; below 0 = not known, and left out.
        positive_weight: (labels,) weight of a film that has the label, against 1 of one that has not; or None.
        gamma: above 0: each term times (1 - p)^gamma, p being the probability given to what is so (Lin et al., Focal
            Loss for Dense Object Detection, 2017).
        smoothing: moves 0 and 1 towards one half, by this share of the way.

    Returns:
        A scalar; 0, with gradients of 0, where nothing is known.
    """
    known = label >= 0
    target = label.clamp(min=0).to(logits.dtype)
    wanted = target * (1 - smoothing) + smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=positive_weight, reduction="none")
    if gamma:
        own = F.logsigmoid(torch.where(target > 0, logits, -logits))
        losses = losses * (-own.expm1()) ** gamma
    return (losses * known).sum() / known.sum().clamp(min=1)
