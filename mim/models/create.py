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
from mim.models.vit import build_vit


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


VIT = Family("a ViT", {"drop": build_vit})
CNN = Family("a CNN", {"sparse": build_sparse})
# by the module of timm that a network is defined in
FAMILIES = {"vision_transformer": VIT, "deit": VIT, "resnet": CNN, "convnext": CNN, "efficientnet": CNN}


def create_encoder(
    name: str,
    image_size: tuple[int, int] = (224, 224),
    in_chans: int = 1,
    hidden: str | None = None,
    patch_size: int | None = None,
    pretrained: bool = False,
    **timm_args: Any,
) -> Encoder:
    """Builds a timm backbone that looks only at visible cells.

    Args:
        name: timm model name of the families ViT (`hidden="drop"`), ResNet, ConvNeXt or EfficientNet
            (`hidden="sparse"`).
        image_size: height and width in pixels.
        in_chans: channels; pretrained RGB stems are adapted by timm.
        hidden: how cells are hidden; None = what the backbone can do.
        patch_size: side of one cell of `visible` in pixels. Token encoders bring their own (another value asks timm
            for that patch size); CNNs default to 32.
        pretrained: load timm's published weights.
        **timm_args: passed to timm.create_model. `num_classes` defaults to 0. ViTs pool by the mean of their patch
            tokens after the final norm unless `global_pool` says `token`.

    Raises:
        MimError: unknown model, a hiding mode the backbone cannot do, or a size that does not fit; one line.
    """
    if not timm.is_model(name):
        raise MimError(f"timm has no model {name!r}{_nearest(name)}")
    height, width = int(image_size[0]), int(image_size[1])
    try:
        family = _family(name)
        mode = hidden or next(iter(family.builders))
        if mode not in family.builders:
            ways = " or ".join(repr(way) for way in family.builders)
            raise ValueError(f"cells cannot be hidden by {mode!r} in it; {family.label} hides by {ways}")
        request = EncoderRequest(name, (height, width), in_chans, mode, patch_size, pretrained, timm_args)
        return family.builders[mode](request)
    except (ValueError, TypeError, RuntimeError) as error:
        raise MimError(f"encoder {name}: {' '.join(str(error).split())}") from error


def _family(name: str) -> Family:
    module = timm.model_entrypoint(name).__module__.split(".")[-1]
    if module not in FAMILIES:
        raise ValueError("cells cannot be hidden in it; choose a ViT, a ResNet, a ConvNeXt or an EfficientNet")
    return FAMILIES[module]


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
