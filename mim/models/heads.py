"""Heads that stand behind an encoder."""

import torch
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features, at_resolution

WEIGHT_FLOOR = 1e-6  # of a sum of weights that is divided by
LARGEST_POWER = 5.0  # of a hidden position above the highest visible one: opening it cannot seem to bring more
SMALLEST_MEAN = 1e-30  # keeps the logarithm finite where nothing is visible at all


class ClassificationHead(nn.Module):
    """Logits from the whole film and from its most suspicious places.

    A lesion covers one position in hundreds, and a mean over all of them drowns it. To the linear layer over
    `Features.pooled` the head therefore adds, for each class, the log-mean-exp over visible positions of a linear
    layer on the coarsest map: a smooth maximum, in the manner of multiple-instance learning (Pinheiro and Collobert,
    From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015, equation 1).

    Args:
        encoder: whose features are classified.
        num_classes: number of logits.
    """

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder.width)
        self.linear = nn.Linear(encoder.width, num_classes)
        self.place_norm = nn.LayerNorm(encoder.map_channels[-1])
        self.place_linear = nn.Linear(encoder.map_channels[-1], num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        # logits of about 1 from the start: smaller ones would make the smooth maximum a mean, which no lesion moves
        nn.init.trunc_normal_(self.place_linear.weight, std=encoder.map_channels[-1] ** -0.5)
        nn.init.zeros_(self.linear.bias)
        nn.init.zeros_(self.place_linear.bias)

    def forward(self, features: Features, visible: Tensor | None = None) -> Tensor:
        """Classifies.

        Args:
            features: of the encoder.
            visible: (B, gh, gw) what the encoder was given: bool, a gate, or None = all seen.

        Returns:
            (B, num_classes) logits.
        """
        return self.whole(features.pooled) + self.local(features, visible)

    def whole(self, pooled: Tensor) -> Tensor:
        """(..., D) means over what is visible to (..., num_classes) logits."""
        return self.linear(self.norm(pooled))  # type: ignore[no-any-return]

    def local(self, features: Features, visible: Tensor | None = None) -> Tensor:
        """(B, num_classes) logits of the most suspicious places, in float32."""
        coarsest = features.maps[-1] if features.content is None else features.content
        height, width = coarsest.shape[-2:]
        places = self.place_linear(self.place_norm(coarsest.flatten(2).transpose(1, 2))).float()  # (B, L, classes)
        if visible is None:
            weight = places.new_ones(len(places), height * width, dtype=torch.float32)
        else:
            weight = at_resolution(visible.float(), (height, width)).flatten(1)  # (B, L)
        return weighted_log_mean_exp(places, weight[..., None])


def weighted_log_mean_exp(values: Tensor, weight: Tensor) -> Tensor:
    """Log of the weighted mean of exp(values) over positions. What weighs 0 adds nothing, to the last bit.

    It is not computed from the logarithm of weights, whose gradient at 0 is none: here a closed gate learns what its
    position would add.

    Args:
        values: (B, L, K).
        weight: (B, L, 1), from 0 to 1.

    Returns:
        (B, K).
    """
    shown = values.detach().masked_fill(weight.detach() <= 0, -torch.inf)
    highest = shown.amax(dim=1, keepdim=True)
    highest = torch.where(torch.isfinite(highest), highest, 0)
    powers = torch.exp((values - highest).clamp(max=LARGEST_POWER))
    mean = (powers * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=WEIGHT_FLOOR)
    return highest[:, 0] + torch.log(mean.clamp(min=SMALLEST_MEAN))
