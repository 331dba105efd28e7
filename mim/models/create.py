"""From a timm name to an encoder that can hide cells."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm

from mim.errors import MimError
from mim.models.building import EncoderRequest
from mim.models.conv import build_sparse
from mim.models.encoder import Encoder
from mim.models.filled import build_filled
from mim.models.fills import FILLS
from mim.models.hiera import build_hiera
from mim.models.layer_encoder import build_layer
from mim.models.swin import build_swin
from mim.models.vit import build_vit_drop, build_vit_token


@dataclass(frozen=True)
class Family:
    """Networks of one kind, and how cells can be hidden from them.

    Attributes:
        label: with its article.
        builders: for each way of hiding what builds the encoder; the first is what is taken unless another is asked
            for.
    """

    label: str
    builders: dict[str, Callable[[EncoderRequest], Encoder]]


VIT = Family("a ViT", {"drop": build_vit_drop, "token": build_vit_token})
HIERA = Family("a Hiera", {"drop": build_hiera})
SWIN = Family("a Swin", {"token": build_swin})
CNN = Family("a CNN", {"sparse": build_sparse, "layer": build_layer})
# by the module of timm that a network is defined in
FAMILIES = {
    "vision_transformer": VIT,
    "deit": VIT,
    "eva": VIT,
    "hiera": HIERA,
    "swin_transformer": SWIN,
    "swin_transformer_v2": SWIN,
    "resnet": CNN,
    "convnext": CNN,
    "efficientnet": CNN,
}


def create_encoder(
    name: str,
    image_size: tuple[int, int] = (224, 224),
    in_chans: int = 1,
    hidden: str | None = None,
    patch_size: int | None = None,
    pretrained: bool = False,
    fill: str | None = None,
    **timm_args: Any,
) -> Encoder:
    """Builds a timm backbone that looks only at visible cells.

    Args:
        name: timm model name, of one of `FAMILIES` unless hidden pixels are filled.
        image_size: height and width in pixels.
        in_chans: channels; pretrained RGB stems are adapted by timm.
        hidden: how cells are hidden: `drop` (ViT, Hiera), `token` (ViT, Swin), `sparse` or `layer` (ResNet, ConvNeXt,
            EfficientNet); None = the first of these that the family can do. `fill`, the baseline: hidden pixels are
            replaced and the plain network is run, which may be any of timm's that gives feature maps.
        patch_size: side of one cell of `visible` in pixels. ViTs bring their own (another value asks timm for that
            patch size), a cell of Hiera is a mask unit; Swin and CNNs default to 32, the stride of the last stage.
        pretrained: load timm's published weights.
        fill: what hidden pixels are replaced by where `hidden` is `fill`: `grey` (the default), the mean of the
            normalisation; `black`; `mean`, that of the visible pixels of each image; `blur`, a blur of the visible
            pixels. Nothing of a hidden pixel is in any of them.
        **timm_args: passed to timm.create_model. `num_classes` defaults to 0. ViTs pool by the mean of their patch
            tokens after the final norm unless `global_pool` says `token`.

    Raises:
        MimError: unknown model, a hiding mode the backbone cannot do, or a size that does not fit; one line.
    """
    if not timm.is_model(name):
        raise MimError(f"timm has no model {name!r}{_nearest(name)}")
    height, width = int(image_size[0]), int(image_size[1])
    try:
        if hidden == "fill":
            chosen = _fill(fill)
            request = EncoderRequest(name, (height, width), in_chans, hidden, patch_size, pretrained, timm_args, chosen)
            return build_filled(request)
        if fill is not None:
            raise ValueError(
                f"fill={fill} says what hidden pixels are replaced by; that is done where hidden is 'fill'"
            )
        family = _family(name)
        mode = hidden or next(iter(family.builders))
        if mode not in family.builders:
            raise ValueError(f"cells cannot be hidden by {mode!r} in it; {_ways(family)}")
        request = EncoderRequest(name, (height, width), in_chans, mode, patch_size, pretrained, timm_args)
        return family.builders[mode](request)
    except (ValueError, TypeError, RuntimeError) as error:
        raise MimError(f"encoder {name}: {' '.join(str(error).split())}") from error


def _family(name: str) -> Family:
    module = timm.model_entrypoint(name).__module__.split(".")[-1]
    if module not in FAMILIES:
        modules: dict[str, list[str]] = {}
        for known, family in FAMILIES.items():
            modules.setdefault(_ways(family), []).append(known)
        families = "; ".join(f"{ways} ({', '.join(names)})" for ways, names in modules.items())
        raise ValueError(f"cells cannot be hidden in it; {families}; any network can be shown a fill (hidden='fill')")
    return FAMILIES[module]


def _fill(fill: str | None) -> str:
    if fill is None:
        return FILLS[0]
    if fill not in FILLS:
        raise ValueError(f"fill must be {', '.join(FILLS[:-1])} or {FILLS[-1]}, not {fill!r}")
    return fill


def _ways(family: Family) -> str:
    return f"{family.label} hides by {' or '.join(repr(way) for way in family.builders)}"


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
