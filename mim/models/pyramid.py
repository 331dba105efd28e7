"""Maps of several scales and equal channels, of any encoder's maps: what detectors stand on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from mim.models.encoder import Encoder
from mim.models.features import at_resolution

MIXING = (
    2  # last layers of a scale of the simple feature pyramid, which look beyond a cell: a convolution, and its norm
)


class Gated(NamedTuple):
    """What a network of tokens made of cells before a gate weighed them.

    Attributes:
        content: (B, D, gh, gw), `Features.content`.
        gate: (B, gh, gw) in [0, 1].
    """

    content: Tensor
    gate: Tensor


class MapPyramid(nn.Module):
    """Brings the maps of an encoder to the same number of channels, finest first.

    Where an encoder gives maps of several scales, by a feature pyramid network (Lin et al., Feature Pyramid Networks
    for Object Detection, CVPR 2017); where it gives one, as a plain ViT does, by the simple feature pyramid (Li et al.,
    Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, section 3).

    Args:
        encoder: whose maps are met. It is asked once, for an empty image, how large they are.
        channels: of each map that comes out.
        finest: pixels of the image that a place of the finest map stands for, at least; a ViT's map is enlarged until
            it has at most so many.

    Attributes:
        strides: pixels of the image that a place stands for (down, right), a pair a map.

    Raises:
        ValueError: all maps of the encoder are finer than that.
    """

    def __init__(self, encoder: Encoder, channels: int, finest: int = 8) -> None:
        super().__init__()
        sizes = map_sizes(encoder)
        height, width = encoder.image_size
        down = [height / size[0] for size in sizes]
        self.net: nn.Module
        if len(sizes) == 1:
            doublings = max(0, math.ceil(math.log2(down[0] / finest)))
            self.net = SimplePyramid(encoder.map_channels[0], channels, doublings)
            rows, columns = sizes[0]
            sizes = [(rows << power, columns << power) for power in range(doublings, -1, -1)]
            sizes.append(((rows + 1) // 2, (columns + 1) // 2))
            self.chosen = [0]
        else:
            self.chosen = [place for place, stride in enumerate(down) if stride >= finest - 0.5]
            if not self.chosen:
                raise ValueError(f"the coarsest map of {encoder.spec.name} has a stride of {down[-1]:g}, not {finest}")
            self.net = _TopDown([encoder.map_channels[place] for place in self.chosen], channels)
            sizes = [sizes[place] for place in self.chosen]
        self.strides = [(height / rows, width / columns) for rows, columns in sizes]

    def forward(self, maps: Sequence[Tensor], gated: Gated | None = None) -> list[Tensor]:
        """`Features.maps` to a list of (B, channels, h, w), finest first.

        Args:
            maps: of the encoder.
            gated: where it was given gates: read by the simple feature pyramid alone.
        """
        chosen = [maps[place] for place in self.chosen]
        if gated is not None and isinstance(self.net, SimplePyramid):
            return self.net.weigh(chosen, gated)
        return self.net(chosen)  # type: ignore[no-any-return]


class SimplePyramid(nn.Module):
    """Scales of one map: enlarged by 2 as often as asked, as it is, and reduced by 2.

    Args:
        width: channels of the map.
        channels: of those that come out.
        doublings: how often the finest is enlarged.
    """

    def __init__(self, width: int, channels: int, doublings: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        for power in range(doublings, -2, -1):
            steps: list[nn.Module] = []
            own = width
            for step in range(power):
                steps.append(nn.ConvTranspose2d(own, own // 2, 2, stride=2))
                own //= 2
                if step < power - 1:
                    steps += [LayerNorm2d(own), nn.GELU()]
            if power < 0:
                steps.append(nn.MaxPool2d(2, stride=2, ceil_mode=True))
            steps += [nn.Conv2d(own, channels, 1, bias=False), LayerNorm2d(channels)]
            steps += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels)]
            self.scales.append(nn.Sequential(*steps))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map (B, width, h, w) to several, finest first."""
        (only,) = maps
        return [scale(only) for scale in self.scales]

    def weigh(self, maps: Sequence[Tensor], gated: Gated) -> list[Tensor]:
        """The same for cells behind gates of 0 and 1, with a gradient to the gates that means something.

        A norm takes the scale away again that a gate gives a cell: an open gate would hear next to nothing, and a
        closed one, where the norm meets zeros, many times too much. Up to their first norm of all channels the scales
        treat each cell by itself. So it is there that a gate blends what they make of the cell and what of nothing.

        Args:
            maps: the one map, hidden cells zero.
            gated: the same before the gate.
        """
        (only,) = maps
        levels = []
        for scale in self.scales:
            assert isinstance(scale, nn.Sequential)
            own, mixing = scale[:-MIXING], scale[-MIXING:]
            nothing = own(torch.zeros_like(gated.content[:1]))
            if isinstance(scale[0], nn.MaxPool2d):  # several cells make a place: of these the open ones alone
                made, gate = own(only), scale[0](gated.gate[:, None])
            else:
                made = own(gated.content)
                gate = at_resolution(gated.gate, (made.shape[2], made.shape[3]))
            levels.append(mixing(torch.lerp(nothing.expand_as(made), made, gate.to(made.dtype).expand_as(made))))
        return levels


class _TopDown(nn.Module):
    """torchvision's feature pyramid network over a list."""

    def __init__(self, widths: list[int], channels: int) -> None:
        super().__init__()
        self.network = FeaturePyramidNetwork(widths, channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return list(self.network({str(place): one for place, one in enumerate(maps)}).values())


@torch.no_grad()
def map_sizes(encoder: Encoder) -> list[tuple[int, int]]:
    """(h, w) of the maps, by asking for them once; nothing of the encoder is changed."""
    modes = [(part, part.training) for part in encoder.modules()]
    encoder.eval()
    try:
        weight = next(encoder.parameters())
        image = torch.zeros(1, encoder.spec.in_chans, *encoder.image_size, device=weight.device, dtype=weight.dtype)
        return [(one.shape[-2], one.shape[-1]) for one in encoder(image).maps]
    finally:
        for part, training in modes:
            part.training = training
