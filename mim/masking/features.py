"""A masker that learns which features of a vector are needed: one choice for all rows, not one a row."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mim.masking.gates import binary_concrete, chance_not_closed, stretched_concrete
from mim.masking.mask import Mask

FeatureGate = Literal["hard_concrete", "straight_through"]

MOMENTUM = 0.05  # of the running mean of the log-odds that evaluation decides by


class FeatureMasker(nn.Module):
    """A small MLP over the rows of a batch says which features the head behind it may look at.

    The MLP meets every row, and its answers are averaged over the batch before they become gates (Liao et al., Feature
    Selection Using Batch-Wise Attenuation and Feature Mask Normalization, IJCNN 2021). All rows have the same log-odds:
    a row cannot carry its own label in the shape of its mask, and what is selected can be named. In training each row
    draws its own gates from these odds. In evaluation a feature is kept where the chance of its gate to be open,
    averaged over the last batches, reaches `threshold`: the same features whatever the batch.

    A missing value (NaN) stands at a value that is learnt, the mean at first, and the MLP is told that it is missing.

    Its mask is over features: tensors of it are (B, F).

    Args:
        features: F, length of the vector.
        keep: budget, the share of the features to keep, in (0, 1]; `budget_loss` holds it.
        hidden: units of the MLP.
        gates: `hard_concrete`, which is exactly 0 or 1 at times and between them otherwise (Louizos et al., Learning
            Sparse Neural Networks through L0 Regularization, ICLR 2018), or `straight_through`, always 0 or 1.
        temperature: of the gates.
        threshold: chance of an open gate at which a feature is kept in evaluation.

    Raises:
        ValueError: a word that is not known, or a number out of its range.
    """

    mean: Tensor
    std: Tensor
    odds: Tensor
    batches: Tensor

    def __init__(
        self,
        features: int,
        keep: float = 0.1,
        hidden: int = 16,
        gates: FeatureGate = "hard_concrete",
        temperature: float = 2 / 3,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if features < 1 or hidden < 1:
            raise ValueError(f"the feature masker needs at least one feature and one unit, not {features} and {hidden}")
        if gates not in get_args(FeatureGate):
            raise ValueError(f"gates must be hard_concrete or straight_through, not {gates!r}")
        if not 0 < keep <= 1:
            raise ValueError(f"the share of features to keep must lie in (0, 1], not {keep}")
        if temperature <= 0 or not 0 < threshold < 1:
            raise ValueError(
                f"temperature must be above 0 and threshold between 0 and 1, not {temperature} and {threshold}"
            )
        self.features = features
        self.keep = keep
        self.gates = gates
        self.temperature = temperature
        self.threshold = threshold
        self.fill = nn.Parameter(torch.zeros(features))  # in units of the deviation, from the mean
        answer = nn.Linear(hidden, features)
        nn.init.normal_(answer.weight, std=0.01)
        nn.init.zeros_(answer.bias)  # each gate is open half of the time: every feature is tried
        self.network = nn.Sequential(nn.Linear(2 * features, hidden), nn.Tanh(), answer)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("odds", torch.zeros(features))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def standardise_by(self, features: Tensor) -> None:
        """Takes mean and deviation of (N, F) rows, those of the training alone, leaving out NaN.

        A feature that does not vary among them is centred and not scaled.

        Raises:
            ValueError: a value is infinite, or a feature is missing in every row.
        """
        self._check(features)
        known = ~features.isnan()
        if not bool(known.any(dim=0).all()):
            raise ValueError(f"feature {int((~known.any(dim=0)).nonzero()[0])} is missing in every row")
        counts = known.sum(dim=0)
        mean = features.double().nan_to_num(nan=0.0).sum(dim=0) / counts
        spread = ((features.double() - mean).nan_to_num(nan=0.0).square().sum(dim=0) / counts).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(spread > 1e-6 * (1 + mean.abs()), spread, 1.0))

    def values(self, features: Tensor) -> Tensor:
        """(B, F) features, NaN where missing, to standardised ones with what is missing filled in."""
        self._check(features)
        return torch.where(features.isnan(), self.fill, (features - self.mean) / self.std)

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides from `batch["features"]`, (B, F) floats, NaN = missing.

        Returns:
            A mask over features: `visible` (B, F) bool; in training `gate` (B, F) in [0, 1], each row's own draw;
            `scores` (B, F) log-odds, the same for each row. In evaluation at least one feature is visible.
        """
        features = batch["features"]
        if not self.training:
            visible = self.selected().expand(len(features), -1)
            return Mask(visible=visible, scores=self.odds.expand(len(features), -1))
        answers = self.network(torch.cat([self.values(features), features.isnan().to(self.fill.dtype)], dim=1))
        odds = answers.float().mean(dim=0)
        with torch.no_grad():
            self.batches += 1
            self.odds.lerp_(odds, max(MOMENTUM, 1 / int(self.batches)))
        scores = odds.expand(len(features), -1)
        gate = self._draw(scores)
        return Mask(visible=gate.detach() > 0, gate=gate, scores=scores)

    def chance(self, odds: Tensor | None = None) -> Tensor:
        """Chance that a gate is not 0, from log-odds; by default (F,) of what evaluation decides by."""
        odds = self.odds if odds is None else odds
        if self.gates == "straight_through":
            return torch.sigmoid(odds)
        return chance_not_closed(odds, self.temperature)

    def selected(self) -> Tensor:
        """(F,) bool: what is kept in evaluation; the likeliest feature where none reaches the threshold."""
        chance = self.chance()
        best = torch.zeros_like(chance, dtype=torch.bool)
        best[chance.argmax()] = True
        kept = chance >= self.threshold
        return torch.where(kept.any(), kept, best)

    def budget_loss(self, mask: Mask) -> Tensor:
        """Squared distance of the number of gates expected open from the number asked for, over that number."""
        assert mask.scores is not None
        wanted = self.keep * self.features
        return (self.chance(mask.scores[0]).sum() - wanted).square() / wanted

    def _draw(self, scores: Tensor) -> Tensor:
        draw = binary_concrete if self.gates == "straight_through" else stretched_concrete
        return draw(scores, self.temperature)

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.features or not features.is_floating_point():
            raise ValueError(
                f"features must be (B, {self.features}) floats, not {tuple(features.shape)} of {features.dtype}"
            )
        if bool(features.isinf().any()):
            raise ValueError(f"feature {int(features.isinf().any(dim=0).nonzero()[0])} is infinite; NaN says missing")
