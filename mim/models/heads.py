"""Heads that stand behind an encoder."""

from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features


class ClassificationHead(nn.Module):
    """Batch-independent norm and one linear layer over `Features.pooled`.

    Args:
        encoder: whose features are classified.
        num_classes: number of logits.
    """

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder.width)
        self.linear = nn.Linear(encoder.width, num_classes)
        nn.init.trunc_normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Features) -> Tensor:
        """Returns logits, (B, num_classes)."""
        return self.linear(self.norm(features.pooled))  # type: ignore[no-any-return]
