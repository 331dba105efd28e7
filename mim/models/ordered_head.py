"""A head for grades: one severity, and the cuts between the grades along it."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.heads import ClassificationHead

STRIDE = (
    10.0  # an optimiser moves a parameter by about its learning rate a step; cuts lie units apart, and so move more
)
SMALLEST_GAP = 1e-3  # between two cuts, in log-odds: a grade between cuts that meet could never be given


class OrderedHead(nn.Module):
    """Log-probabilities of grades from one number for each film, its severity.

    The proportional-odds model (McCullagh, Regression Models for Ordinal Data, JRSS B 42, 1980): the log-odds of a
    film's being worse than grade k are its severity less a cut of that grade, P(y > k) = sigmoid(s - cut_k). The cuts
    rise with the grade, by construction, so that the probabilities of all grades are positive.

    Args:
        encoder: whose features are graded.
        num_grades: three or more.

    Raises:
        ValueError: there are fewer than three grades.
    """

    def __init__(self, encoder: Encoder, num_grades: int) -> None:
        super().__init__()
        if num_grades < 3:
            raise ValueError(f"{num_grades} grades: an order takes three or more")
        self.severity = ClassificationHead(encoder, 1)
        shares = [(grade + 1) / num_grades for grade in range(num_grades - 1)]
        cuts = [math.log(share / (1 - share)) for share in shares]  # as if all grades were equally common
        gaps = torch.tensor([high - low - SMALLEST_GAP for low, high in pairwise(cuts)])
        self.first_cut = nn.Parameter(torch.tensor([cuts[0]]) / STRIDE)
        self.gaps = nn.Parameter((gaps + torch.log(-torch.expm1(-gaps))) / STRIDE)  # the inverse of softplus

    @property
    def cuts(self) -> Tensor:
        """(num_grades - 1,) cuts between the grades, rising."""
        first = STRIDE * self.first_cut.float()
        gaps = F.softplus(STRIDE * self.gaps.float()) + SMALLEST_GAP
        return torch.cat([first, first + gaps.cumsum(0)])

    def forward(self, features: Features, visible: Tensor | None = None) -> Tensor:
        """Grades.

        Args:
            features: of the encoder.
            visible: (B, gh, gw) what the encoder was given: bool, a gate, or None = all seen.

        Returns:
            (B, num_grades) log-probabilities in float32; being such, they are their own log-softmax.
        """
        return log_probabilities(self.severity(features, visible).float()[:, 0], self.cuts)


def log_probabilities(severity: Tensor, cuts: Tensor) -> Tensor:
    """Log-probabilities of grades under a cumulative logit link.

    With a = s - cut_(k-1) and b = s - cut_k, P(y = k) = sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b -
    a)), of which each factor has a finite logarithm however far the severity lies from the cuts.

    Args:
        severity: (B,).
        cuts: (K - 1,), rising.

    Returns:
        (B, K).
    """
    odds = severity[:, None] - cuts  # of being worse than each grade but the last
    above = F.pad(F.logsigmoid(odds), (1, 0))  # nothing lies below the first grade
    below = F.pad(F.logsigmoid(-odds), (0, 1))
    between = F.pad(torch.log(-torch.expm1(-cuts.diff())), (1, 1))
    return above + below + between
