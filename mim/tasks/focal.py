"""Focal loss, for classes of which most samples are easy."""

import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, label: Tensor, gamma: float, weight: Tensor | None = None) -> Tensor:
    """Cross entropy of each sample times (1 - p)^gamma, p being the probability given to its class.

    Lin et al., Focal Loss for Dense Object Detection, 2017. With weights the mean is weighted, as that of
    `torch.nn.functional.cross_entropy`, which this is for gamma = 0.

    Args:
        logits: (B, classes).
        label: (B,) integers.
        gamma: 0 or more; the larger, the less is learnt from samples that are classified well.
        weight: (classes,), or None.
    """
    logs = F.log_softmax(logits, dim=1)
    own = logs.gather(1, label[:, None])[:, 0]
    losses = -((-own.expm1()) ** gamma) * own
    if weight is None:
        return losses.mean()
    share = weight[label]
    return (losses * share).sum() / share.sum()
