"""A masker that learns which cells are needed."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mim.masking.gates import GATES, Gate, binary_concrete, hard_concrete, top_k_gate
from mim.masking.mask import Mask, keep_best_cell, show_best_cells
from mim.masking.scorers import CnnScorer

LIMIT = 6.0  # of the log-odds: no gate is ever decided for good while there is something to learn


class PatchMasker(nn.Module):
    """Gives every cell of the patch grid, or every pixel, the log-odds of being visible, and decides by them.

    In training it answers with gates through which the masker gets a gradient. In evaluation it shows exactly `keep` of
    every image, the cells with the best odds; as it is the same share for all, how much is seen says nothing about the
    label. What it hides from the encoder it has looked at itself: the mask is not an explanation by itself.

    Args:
        patch_size: side of one cell in pixels.
        in_chans: channels of the image.
        width: of the scorer: channels of the CNN's first layer.
        keep: share of cells to keep; the odds start there.
        temperature: of the gates.
        gate: what training meets. `binary`, straight-through concrete: exactly 0 or 1, drawn cell by cell, the share
            held by a budget loss; `hard_concrete`, the same with no gradient where the decision is clear; `top_k`,
            exactly 0 or 1, and exactly `keep` of each image, as in evaluation; `soft`, the probability itself, in
            evaluation too: cells are weighted and nothing is hidden.
        per: `patch`, or `pixel`: one decision a pixel. Such a mask is for an encoder whose cells are pixels, or filters
            the image in front of any encoder.
        decide: in evaluation, `share` shows exactly `keep` of every image; `odds` shows where the odds favour it, so
            that images show different amounts, which may carry the label.
        scorer: gives (B, gh, gw) from an image, in place of the CNN.

    Raises:
        ValueError: a word that is not known; a patch size that is not a power of two, for the CNN; keep outside (0, 1].
    """

    def __init__(
        self,
        patch_size: int = 16,
        in_chans: int = 1,
        width: int = 16,
        keep: float = 0.5,
        temperature: float = 0.5,
        gate: Gate = "binary",
        per: Literal["patch", "pixel"] = "patch",
        decide: Literal["share", "odds"] = "share",
        scorer: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not 0 < keep <= 1:
            raise ValueError(f"the share of cells to keep must lie in (0, 1], not {keep}")
        if gate not in GATES:
            raise ValueError(f"gate must be {', '.join(GATES[:-1])} or {GATES[-1]}, not {gate!r}")
        if per not in ("patch", "pixel"):
            raise ValueError(f"per must be patch or pixel, not {per!r}")
        if decide not in ("share", "odds"):
            raise ValueError(f"decide must be share or odds, not {decide!r}")
        self.patch_size = patch_size
        self.keep = keep
        self.temperature = temperature
        self.gate = gate
        self.per = per
        self.decide = decide
        self.cell = patch_size if per == "patch" else 1
        self.scorer = CnnScorer(self.cell, in_chans, width) if scorer is None else scorer
        start = min(keep, 0.95)  # finite odds even where everything may be kept
        self.start = nn.Parameter(torch.tensor(math.log(start / (1 - start))))

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides from `batch["image"]`, (B, C, H, W) with pixels in [0, 1].

        Returns:
            A mask whose scores are log-odds; with gates in training, and in evaluation if they are soft.

        Raises:
            ValueError: the image is not a whole number of cells, or the scores are of another grid.
        """
        scores = self.scores(batch["image"])
        if self.gate == "soft":
            return Mask(visible=torch.ones_like(scores, dtype=torch.bool), gate=torch.sigmoid(scores), scores=scores)
        if not self.training:
            if self.decide == "share":
                return Mask(visible=show_best_cells(scores, self.keep), scores=scores)
            visible = scores >= 0
            rescued = ~visible.flatten(1).any(dim=1)
            return Mask(visible=keep_best_cell(visible, scores), scores=scores, rescued=rescued)
        if self.gate == "top_k":
            gate = top_k_gate(scores, self.keep, self.temperature)
            return Mask(visible=gate.detach() > 0.5, gate=gate, scores=scores)
        draw = binary_concrete if self.gate == "binary" else hard_concrete
        gate = draw(scores, self.temperature)
        # an image without a single visible cell would teach nothing: its best cell is opened, with gradient
        opened = keep_best_cell(gate.detach() > 0.5, scores)
        gate = gate + (opened & (gate.detach() <= 0.5)).to(gate.dtype)
        return Mask(visible=opened, gate=gate, scores=scores)

    def scores(self, image: Tensor) -> Tensor:
        """Log-odds of being visible: (B, C, H, W) -> (B, gh, gw), or (B, H, W) of pixels, in float32.

        Raises:
            ValueError: the image is not a whole number of cells, or the scorer's answer is of another grid.
        """
        height, width = image.shape[-2:]
        if height % self.cell or width % self.cell:
            raise ValueError(f"an image of {(height, width)} pixels is not a whole number of {self.cell}-pixel cells")
        scores: Tensor = self.scorer(image).float()
        wanted = (len(image), height // self.cell, width // self.cell)
        if tuple(scores.shape) != wanted:
            raise ValueError(f"the masker's scores are {tuple(scores.shape)}; images and cells here make {wanted}")
        return scores / (1 + scores.abs() / LIMIT) + self.start
