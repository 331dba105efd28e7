"""What can be rebuilt without learning anything: the losses that a model must beat."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from mim.models.masked_image_model import MaskedImageModel

# Steps of relaxation after the fill from coarse to fine; they carry what stands at the edges of visible cells inwards.
_RELAXATIONS = 64
_TENTHS = 10


@torch.no_grad()
def baseline_losses(task: MaskedImageModel, batches: Iterable[dict[str, Tensor]]) -> dict[str, float] | None:
    """Losses of two answers that need no learning, with the task's own targets and weights.

    The hidden cells of each image are filled from its visible ones, and each target is taken of the filled image:

    - `mean`: filled with the mean of the visible pixels of the image. For pixels that is the error of that grey; for
      pixels that are normalised cell by cell an even grey is 0 everywhere, and the error is close to 1.
    - `neighbours`: filled by interpolation (see `fill_from_neighbours`), then drawn back towards `mean` by the share,
      in tenths and one for each target, that gives these images the smallest loss. A model that has learnt to
      interpolate, and how far an interpolation can be trusted, is as good as this. Without drawing back it would be no
      bar for normalised pixels: a pattern that is right in shape by less than half of its variance is worse than none.

    Args:
        task: its encoder and decoder are not asked.
        batches: as the task takes them, with pixels in [0, 1], on any device.

    Returns:
        `mean` and `neighbours`, in the scale of the task's loss; None where a target is no fixed function of the image
        (see `Target.fixed`), or where there is no batch.
    """
    targets = task.listed_targets()
    if not all(target.fixed for target in targets):
        return None
    total, count = torch.zeros(len(targets), _TENTHS + 1, dtype=torch.float64), 0
    for batch in batches:
        total += _errors(task, batch).cpu()
        count += len(batch["image"])
    if not count:
        return None
    weights = torch.tensor([task.weights[target.name] for target in targets], dtype=torch.float64)
    weighted = weights[:, None] * total / count
    return {"mean": float(weighted[:, 0].sum()), "neighbours": float(weighted.min(dim=1).values.sum())}


def _errors(task: MaskedImageModel, batch: dict[str, Tensor]) -> Tensor:
    """(targets, tenths + 1) errors, summed over images, of answers from the mean (first) to the neighbours (last)."""
    size, visible = task.encoder.patch_size, batch["visible"]
    image = (batch["image"] - task.mean) / task.std
    pixels = visible[:, None].float().repeat_interleave(size, 2).repeat_interleave(size, 3)
    seen = pixels.sum(dim=(1, 2, 3), keepdim=True).clamp(min=1) * image.shape[1]
    mean = torch.where(pixels > 0, image, (image * pixels).sum(dim=(1, 2, 3), keepdim=True) / seen)
    neighbours = fill_from_neighbours(image, pixels)
    hidden = (~visible).flatten(1).float()
    weight = hidden / hidden.sum(dim=1, keepdim=True).clamp(min=1)  # (B, N)
    rows = []
    for target in task.listed_targets():
        right, without, drawn = target(image), target(mean), target(neighbours)
        answers = (without + tenth / _TENTHS * (drawn - without) for tenth in range(_TENTHS + 1))
        rows.append(torch.stack([(target.error(answer, right) * weight).sum() for answer in answers]))
    return torch.stack(rows).double()


def fill_from_neighbours(image: Tensor, pixels: Tensor) -> Tensor:
    """Fills what is hidden from what is visible around it.

    First from coarse to fine: the visible pixels are averaged over ever larger squares, and each hidden pixel is taken
    from the finest level that has something at its place (Gortler et al., The Lumigraph, 1996: pull and push). Then
    each hidden pixel is made the average of its four neighbours, again and again, so that the fill joins the edges of
    the visible cells.

    Args:
        image: (B, C, H, W); hidden pixels are not used.
        pixels: (B, 1, H, W), 1 = visible, 0 = hidden.

    Returns:
        (B, C, H, W), visible pixels as they are.
    """
    known = torch.where(pixels > 0, image, torch.zeros_like(image))
    filled = torch.where(pixels > 0, image, _pull_push(known, pixels))
    for _ in range(_RELAXATIONS):
        around = F.pad(filled, (1, 1, 1, 1), mode="replicate")
        average = (around[..., 1:-1, 2:] + around[..., 1:-1, :-2] + around[..., 2:, 1:-1] + around[..., :-2, 1:-1]) / 4
        filled = torch.where(pixels > 0, image, average)
    return filled


def _pull_push(known: Tensor, weight: Tensor) -> Tensor:
    """Fills the places of weight 0 in `known` (zero there) from coarser levels."""
    size = (known.shape[-2], known.shape[-1])
    if max(size) == 1 or bool((weight > 0).all()):
        return known / weight.clamp(min=1e-6)
    total = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    share = F.avg_pool2d(weight, 2, ceil_mode=True, count_include_pad=False)
    coarse = _pull_push(total, share)
    fine = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, known / weight.clamp(min=1e-6), fine)
