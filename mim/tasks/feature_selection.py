"""A class for each row of a table, from the features that a masker lets a linear head see."""

import torch.nn.functional as F
from torch import Tensor, nn

from mim.masking.features import FeatureMasker


class MaskedFeatureClassifier(nn.Module):
    """A linear head behind a feature masker.

    Args:
        masker: chooses the features.
        num_classes: number of classes.
        budget_weight: weight of the masker's `budget_loss`.
        ridge: weight of the head's squared weights.
    """

    def __init__(
        self, masker: FeatureMasker, num_classes: int = 2, budget_weight: float = 1.0, ridge: float = 1e-2
    ) -> None:
        super().__init__()
        self.masker = masker
        self.head = nn.Linear(masker.features, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.budget_weight = budget_weight
        self.ridge = ridge

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Classifies rows.

        Args:
            batch: `features` (B, F) floats, NaN = missing; `label` (B,) integers where a loss is wanted.

        Returns:
            `logits` (B, num_classes) and `visible` (B, F) bool; with labels also `loss`, its parts `loss_class` and
            `loss_budget`, and `keep`, the share of features that was visible.
        """
        mask = self.masker(batch)
        values = self.masker.values(batch["features"])
        logits = self.head(values * (mask.visible.to(values.dtype) if mask.gate is None else mask.gate))
        out = {"logits": logits, "visible": mask.visible}
        if "label" in batch:
            out["loss_class"] = F.cross_entropy(logits, batch["label"])
            out["loss_budget"] = self.masker.budget_loss(mask)
            shrinkage = self.ridge * self.head.weight.square().sum()
            out["loss"] = out["loss_class"] + self.budget_weight * out["loss_budget"] + shrinkage
            out["keep"] = mask.visible.float().mean()
        return out
