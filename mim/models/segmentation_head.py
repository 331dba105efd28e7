"""Pixels behind an encoder: a U-Net-like and a UPerNet-like decoder over its maps."""

import math
from collections.abc import Sequence
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mim.models.encoder import Encoder
from mim.models.pyramid import Gated, SimplePyramid, map_sizes

Kind = Literal["unet", "upernet"]
GROUP: Final = 16  # channels that are normalised together
BINS: Final = (1, 2, 3, 6)  # sides of the grids that UPerNet pools to
PRIOR: Final = 0.01  # what is said of every pixel before anything is learnt: lesions are small


class SegmentationHead(nn.Module):
    """A decoder over the maps of an encoder, and a logit for each pixel and class.

    It meets nothing but the maps, which are zero where cells are hidden: no pixel goes past the encoder.

    Args:
        encoder: whose maps are met. It is asked once, for an empty image, how large they are.
        num_classes: logits of each pixel, independent of each other: a pixel may be of several classes, or of none.
        kind: `unet` (Ronneberger et al. 2015) or `upernet` (Xiao et al. 2018).
        channels: of each scale of the decoder, a multiple of 16.
        finest: stride of the finest scale in pixels. A CNN's finer maps are left out, a ViT's map is enlarged; logits
            are interpolated from there.

    Raises:
        ValueError: a word that is not known, or all maps of the encoder are finer than that.
    """

    def __init__(
        self, encoder: Encoder, num_classes: int, kind: Kind = "unet", channels: int = 64, finest: int = 4
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise ValueError(f"a head is unet or upernet, not {kind!r}")
        if channels % GROUP or channels < GROUP:
            raise ValueError(f"channels must be a multiple of {GROUP}, not {channels}")
        if num_classes < 1:
            raise ValueError(f"there must be a class at least, not {num_classes}")
        self.scales = MapScales(encoder, channels, finest)
        build = {"unet": UNetLike, "upernet": UPerNetLike}[kind]
        self.decoder = build(self.scales.widths, channels)
        self.predict = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.predict.weight, std=0.01)
        assert self.predict.bias is not None
        nn.init.constant_(self.predict.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int], gated: Gated | None = None) -> Tensor:
        """`Features.maps` to (B, num_classes, height, width) logits in float32.

        Args:
            maps: of the encoder.
            size: height and width of the image in pixels.
            gated: where the encoder was given gates.
        """
        logits = self.predict(self.decoder(self.scales(maps, gated))).float()
        return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


class MapScales(nn.Module):
    """The maps of an encoder that a decoder stands on, finest first.

    Where an encoder gives maps of several scales, those that are coarse enough, as they are. Where it gives one, as a
    plain ViT does, the simple feature pyramid (Li et al., ECCV 2022, section 3).

    Args:
        encoder: whose maps are met.
        channels: of the simple feature pyramid.
        finest: stride of the finest in pixels.

    Attributes:
        widths: channels of each.

    Raises:
        ValueError: all maps of the encoder are finer than that.
    """

    def __init__(self, encoder: Encoder, channels: int, finest: int) -> None:
        super().__init__()
        sizes = map_sizes(encoder)
        down = [encoder.image_size[0] / size[0] for size in sizes]
        self.pyramid: SimplePyramid | None = None
        if len(sizes) == 1:
            doublings = max(0, math.ceil(math.log2(down[0] / finest)))
            self.pyramid = SimplePyramid(encoder.map_channels[0], channels, doublings)
            self.chosen = [0]
            self.widths = [channels] * len(self.pyramid.scales)
        else:
            self.chosen = [place for place, stride in enumerate(down) if stride >= finest - 0.5]
            if not self.chosen:
                raise ValueError(f"the coarsest map of {encoder.spec.name} has a stride of {down[-1]:g}, not {finest}")
            self.widths = [encoder.map_channels[place] for place in self.chosen]

    def forward(self, maps: Sequence[Tensor], gated: Gated | None = None) -> list[Tensor]:
        """`Features.maps` to a list of (B, C_i, h_i, w_i), finest first.

        Args:
            maps: of the encoder.
            gated: where it was given gates: read by the simple feature pyramid alone.
        """
        chosen = [maps[place] for place in self.chosen]
        if self.pyramid is None:
            return chosen
        return self.pyramid(chosen) if gated is None else self.pyramid.weigh(chosen, gated)


class UNetLike(nn.Module):
    """From the coarsest scale up: enlarged, joined to the next finer one, and convolved twice.

    It is U-Net's way up (Ronneberger et al., U-Net, MICCAI 2015) with the encoder in place of its way down, the same
    number of channels at every scale, and group norm, which does not depend on the rest of a small batch.

    Args:
        widths: channels of the scales, finest first.
        channels: of the decoder.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(_convolution(width, channels, 1) for width in widths)
        self.levels = nn.ModuleList(
            nn.Sequential(_convolution(2 * channels, channels, 3), _convolution(channels, channels, 3))
            for _ in widths[1:]
        )

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Scales, finest first, to (B, channels, h, w) at the finest."""
        entrances = [lateral(scale) for lateral, scale in zip(self.laterals, scales, strict=True)]
        x = entrances[-1]
        for level, entrance in zip(reversed(list(self.levels)), reversed(entrances[:-1]), strict=True):
            x = level(torch.cat([_enlarge(x, entrance), entrance], dim=1))
        return x  # type: ignore[no-any-return]


class UPerNetLike(nn.Module):
    """Pyramid pooling on the coarsest scale, a feature pyramid above it, and all scales fused at the finest.

    Xiao et al., Unified Perceptual Parsing for Scene Understanding, ECCV 2018, section 3; the pooling is that of Zhao
    et al., Pyramid Scene Parsing Network, CVPR 2017. Group norm stands for batch norm.

    Args:
        widths: channels of the scales, finest first.
        channels: of the decoder.
    """

    def __init__(self, widths: Sequence[int], channels: int) -> None:
        super().__init__()
        *finer, coarsest = widths
        self.pools = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(side), _convolution(coarsest, channels, 1)) for side in BINS
        )
        self.pooled = _convolution(coarsest + len(BINS) * channels, channels, 3)
        self.laterals = nn.ModuleList(_convolution(width, channels, 1) for width in finer)
        self.smooth = nn.ModuleList(_convolution(channels, channels, 3) for _ in finer)
        self.fuse = _convolution(len(widths) * channels, channels, 3)

    def forward(self, scales: Sequence[Tensor]) -> Tensor:
        """Scales, finest first, to (B, channels, h, w) at the finest."""
        *finer, coarsest = scales
        parts = [coarsest, *(_enlarge(pool(coarsest), coarsest) for pool in self.pools)]
        x = self.pooled(torch.cat(parts, dim=1))
        levels = [x]
        for place in reversed(range(len(finer))):
            lateral = self.laterals[place](finer[place])
            x = lateral + _enlarge(x, lateral)
            levels.insert(0, self.smooth[place](x))
        return self.fuse(torch.cat([_enlarge(level, levels[0]) for level in levels], dim=1))  # type: ignore[no-any-return]


def _convolution(before: int, after: int, side: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, side, padding=side // 2, bias=False),
        nn.GroupNorm(after // GROUP, after),
        nn.ReLU(inplace=True),
    )


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Interpolated to the size of another map."""
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)
