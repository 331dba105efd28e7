"""From a timm name to an encoder that can hide cells."""

import difflib
from typing import Any

import timm
from timm.models.convnext import ConvNeXt
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from mim.errors import MimError
from mim.models.conv import SparseConvEncoder
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.vit import TokenDropEncoder

CNN_PATCH_SIZE = 32


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
        name: timm model name of the families ViT (`hidden="drop"`), ResNet or ConvNeXt (`hidden="sparse"`).
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
    args = {"num_classes": 0, **timm_args}
    try:
        if _is_vision_transformer(name):
            return _create_vit(name, (height, width), in_chans, hidden or "drop", patch_size, pretrained, args)
        cell = patch_size or CNN_PATCH_SIZE
        check_divisible((height, width), cell)
        if (hidden or "sparse") != "sparse":
            raise ValueError(f"cells cannot be hidden by {hidden!r} in it; a CNN hides by 'sparse'")
        backbone = _build_backbone(name, pretrained, {"in_chans": in_chans, **args})
        if not isinstance(backbone, ResNet | ConvNeXt):
            raise ValueError(
                f"cells cannot be hidden in a {type(backbone).__name__}; choose a ViT, a ResNet or a ConvNeXt"
            )
        return SparseConvEncoder(backbone, EncoderSpec(name, (height, width), in_chans, "sparse", cell, timm_args))
    except (ValueError, TypeError, RuntimeError) as error:
        raise MimError(f"encoder {name}: {' '.join(str(error).split())}") from error


def _build_backbone(name: str, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    """Asks timm for a model. What its arguments may be, and how it fails on others, is timm's affair and unwritten."""
    try:
        backbone: nn.Module = timm.create_model(name, pretrained=pretrained, **args)
    except Exception as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        hint = "; published weights need a network or a filled cache" if pretrained else ""
        raise MimError(f"encoder {name}: timm cannot build it: {problem}{hint}") from error
    return backbone


def _is_vision_transformer(name: str) -> bool:
    return timm.model_entrypoint(name).__module__.split(".")[-1] in ("vision_transformer", "deit")


def _create_vit(
    name: str,
    image_size: tuple[int, int],
    in_chans: int,
    hidden: str,
    patch_size: int | None,
    pretrained: bool,
    args: dict[str, Any],
) -> TokenDropEncoder:
    if hidden != "drop":
        raise ValueError(f"cells cannot be hidden by {hidden!r} in it; a ViT hides by 'drop'")
    timm_args = {key: value for key, value in args.items() if key != "num_classes" or value != 0}
    if "global_pool" not in args:
        # the final norm stays where timm's default puts it, so that the weights fit timm.create_model(name)
        args = {"global_pool": "avg", "fc_norm": False, **args}
    if args["global_pool"] not in ("avg", "token"):
        raise ValueError(f"global_pool must be 'avg' or 'token', not {args['global_pool']!r}")
    if patch_size is not None:
        args = {"patch_size": patch_size, **args}
    given = {"img_size": image_size, "in_chans": in_chans, "dynamic_img_size": False, **args}
    backbone = _build_backbone(name, pretrained, given)
    if not isinstance(backbone, VisionTransformer) or not all(hasattr(block, "attn") for block in backbone.blocks):
        raise ValueError(f"cells cannot be hidden in a {type(backbone).__name__} by dropping tokens")
    if not isinstance(backbone.patch_drop, nn.Identity):
        raise ValueError("patch_drop_rate drops tokens behind the mask's back; masking.ratio is the way to hide more")
    cell = backbone.patch_embed.patch_size
    if cell[0] != cell[1]:
        raise ValueError(f"patches must be square, not {cell[0]}x{cell[1]}")
    check_divisible(image_size, cell[0])
    spec = EncoderSpec(name, image_size, in_chans, "drop", cell[0], timm_args)
    return TokenDropEncoder(backbone, spec, fresh=not pretrained)


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, timm.list_models(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
