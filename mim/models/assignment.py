"""Which anchors are to find which box: adaptive training sample selection."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

CANDIDATES = 9  # anchor places a level and box, the paper's k


def adaptive_assignment(anchors: Tensor, counts: Sequence[int], boxes: Tensor, per_place: int = 1) -> Tensor:
    """Assigns anchors to boxes by ATSS.

    Zhang et al., Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
    Selection, CVPR 2020, algorithm 1. Of each level the anchors whose centres are nearest to that of a box are its
    candidates. Those whose IoU with it is at least the candidates' mean plus their standard deviation, and whose
    centres lie within it, are its own. So a small lesion gets anchors by how the best ones fit it, not by a fixed
    overlap that none of them reaches.

    Args:
        anchors: (N, 4) xyxy, one level after the other.
        counts: how many each level has.
        boxes: (M, 4) xyxy.
        per_place: anchors with the same centre.

    Returns:
        (N,) int64, the place of the box of each anchor (of several the one of largest IoU), -1 = none.
    """
    matched = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return matched
    overlap = box_iou(boxes, anchors)  # (M, N)
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    distance = torch.cdist((boxes[:, :2] + boxes[:, 2:]) / 2, centre)  # (M, N)
    parts, start = [], 0
    for count in counts:
        nearest = distance[:, start : start + count].topk(min(CANDIDATES * per_place, count), dim=1, largest=False)
        parts.append(nearest.indices + start)
        start += count
    candidates = torch.cat(parts, dim=1)  # (M, K)
    fit = overlap.gather(1, candidates)
    threshold = fit.mean(dim=1, keepdim=True) + (fit.std(dim=1, keepdim=True) if fit.shape[1] > 1 else 0.0)
    middle = centre[candidates]  # (M, K, 2)
    inside = ((middle > boxes[:, None, :2]) & (middle < boxes[:, None, 2:])).all(dim=2)
    # where all candidates fit alike, as large anchors around a small lesion do, their mean must not round above them
    own = inside & (fit >= threshold - 1e-6)
    claims = torch.full_like(overlap, -1.0)
    claims.scatter_(1, candidates, torch.where(own, fit, -1.0))
    best, box = claims.max(dim=0)
    return torch.where(best >= 0, box, matched)
