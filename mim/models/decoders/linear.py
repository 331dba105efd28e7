"""SimMIM's decoder."""

from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.prediction import Prediction


class LinearDecoder(nn.Module):
    """SimMIM's decoder: one linear layer on what the encoder made of each cell (Xie et al., 2022, section 3.3).

    Args:
        encoder: one that computes hidden cells too, with one token a cell.
        size: numbers to predict for a cell.
    """

    def __init__(self, encoder: Encoder, size: int) -> None:
        super().__init__()
        self.predict = nn.Linear(encoder.width, size)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts every cell, hidden or not."""
        assert features.tokens is not None
        return Prediction(self.predict(features.tokens))
