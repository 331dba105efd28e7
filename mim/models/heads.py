"""Heads that stand behind an encoder."""

import torch
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features, at_resolution

WEIGHT_FLOOR = 1e-6  # of a hidden position, whose features are constant: keeps logarithm and gradient finite


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
        places = self.place_linear(self.place_norm(features.maps[-1].flatten(2).transpose(1, 2)))  # (B, L, classes)
        height, width = features.maps[-1].shape[-2:]
        if visible is None:
            weight = places.new_ones(len(places), height * width, dtype=torch.float32)
        else:
            weight = at_resolution(visible.float(), (height, width)).flatten(1)  # (B, L)
        log_weight = torch.log(weight * (1 - WEIGHT_FLOOR) + WEIGHT_FLOOR)[..., None]
        return torch.logsumexp(places.float() + log_weight, dim=1) - torch.logsumexp(log_weight, dim=1)
