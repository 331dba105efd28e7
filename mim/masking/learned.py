"""A masker that learns, with the head behind it, which cells are needed."""

import math

from torch import Tensor, nn

from mim.masking.gates import binary_concrete
from mim.masking.mask import Mask, keep_best_cell, show_best_cells


class PatchMasker(nn.Module):
    """A small CNN over the image that gives every cell of the patch grid the log-odds of being visible.

    In training it answers with straight-through gates drawn from these odds, whose expected share a budget loss holds
    at `keep`. In evaluation it shows exactly that share of every image, the cells with the best odds; as it is the same
    share for all, how much is seen says nothing about the label. What it hides from the encoder it has looked at
    itself: the mask is not an explanation by itself.

    Args:
        patch_size: side of one cell in pixels.
        in_chans: channels of the image.
        width: channels of the first layer; they double with each halving of the resolution, up to four times.
        keep: share of cells to keep; the odds start there.
        temperature: of the binary concrete gates.

    Raises:
        ValueError: if the patch size is not a power of two, or keep is outside (0, 1].
    """

    def __init__(
        self, patch_size: int = 16, in_chans: int = 1, width: int = 16, keep: float = 0.5, temperature: float = 0.5
    ) -> None:
        super().__init__()
        halvings = int(math.log2(patch_size))
        if 2**halvings != patch_size:
            raise ValueError(f"the learned masker needs a patch size that is a power of two, not {patch_size}")
        if width % 4:
            raise ValueError(f"the learned masker's width must be a multiple of 4, not {width}")
        if not 0 < keep <= 1:
            raise ValueError(f"the share of cells to keep must lie in (0, 1], not {keep}")
        self.patch_size = patch_size
        self.keep = keep
        self.temperature = temperature
        layers: list[nn.Module] = []
        channels = in_chans
        for level in range(halvings):
            wider = width * 2 ** min(level, 2)
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GroupNorm(4, wider), nn.GELU()]
            channels = wider
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.GELU()]
        self.features = nn.Sequential(*layers)
        self.score = nn.Conv2d(channels, 1, 1)
        # odds that differ from cell to cell at once: from nearly equal ones the ranking takes hundreds of steps to form
        nn.init.normal_(self.score.weight, std=0.2)
        start = min(keep, 0.95)  # finite odds even where everything may be kept
        assert self.score.bias is not None
        nn.init.constant_(self.score.bias, math.log(start / (1 - start)))

    def forward(self, batch: dict[str, Tensor]) -> Mask:
        """Decides from `batch["image"]`, (B, C, H, W) with pixels in [0, 1].

        Returns:
            A mask whose scores are log-odds; with gates in training, without in evaluation.
        """
        image = batch["image"]
        if image.shape[-2] % self.patch_size or image.shape[-1] % self.patch_size:
            raise ValueError(
                f"an image of {tuple(image.shape[-2:])} pixels is not a whole number of {self.patch_size}-pixel cells"
            )
        scores = self.score(self.features(image - image.mean(dim=(1, 2, 3), keepdim=True))).squeeze(1).float()
        if not self.training:
            return Mask(visible=show_best_cells(scores, self.keep), scores=scores)
        # an image without a single visible cell would teach nothing: its best cell is opened, with gradient
        gate = binary_concrete(scores, self.temperature)
        opened = keep_best_cell(gate.detach() > 0.5, scores)
        gate = gate + (opened & (gate.detach() <= 0.5)).to(gate.dtype)
        return Mask(visible=opened, gate=gate, scores=scores)
