"""Any timm network behind the encoder's contract, shown a fill where cells are hidden: the baseline of hiding."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import torch
from timm.models.eva import Eva
from timm.models.hiera import Hiera
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mim.models.building import EncoderRequest, UnknownStructureError
from mim.models.conv import CNN_PATCH_SIZE
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import Features, at_resolution
from mim.models.fills import fill_hidden
from mim.models.hiera import HieraEncoder, build_hiera_backbone
from mim.models.swin import SwinEncoder, build_swin_backbone
from mim.models.vit import TokenDropEncoder, build_vit_backbone


def build_filled(request: EncoderRequest) -> Encoder:
    """Builds any network that gives feature maps; its hidden pixels are replaced before it looks.

    Raises:
        ValueError: the size does not fit, or the network gives no feature maps.
    """
    with suppress(UnknownStructureError):  # its tokens cannot be followed, and need not be
        if request.is_of(VisionTransformer) or request.is_of(Eva):
            backbone, cell = build_vit_backbone(request)
            return FilledVit(backbone, request.spec(cell), fresh=not request.pretrained)
        if request.is_of(Hiera):
            backbone, cell = build_hiera_backbone(request)
            return FilledHiera(backbone, request.spec(cell))
        if request.is_of(SwinTransformer) or request.is_of(SwinTransformerV2):
            backbone, cell = build_swin_backbone(request)
            return FilledSwin(backbone, request.spec(cell))
    fixed = bool(getattr(request.published(), "fixed_input_size", False))
    backbone = request.backbone(**({"img_size": request.image_size} if fixed else {}))
    cell = request.patch_size or _coarsest_stride(backbone)
    check_divisible(request.image_size, cell)
    return FilledNetwork(backbone, request.spec(cell))


def _coarsest_stride(backbone: Any) -> int:
    try:
        return int(backbone.feature_info[-1]["reduction"])
    except (AttributeError, TypeError, KeyError, IndexError):
        return CNN_PATCH_SIZE


def encode_filled(
    encoder: Encoder, look: Callable[[Tensor, None], Features], image: Tensor, visible: Tensor | None
) -> Features:
    """Shows a network an image with its hidden cells filled.

    As the network is not told of the mask, `Features.pooled` is what its own pooling makes of all positions, the
    filled ones too. Its maps are zero at hidden cells, as those of every encoder.

    Args:
        encoder: whose spec says what to fill with.
        look: the plain network.
        image: (B, C, H, W), normalised, finite.
        visible: (B, gh, gw) bool or gate, None = all seen: the plain network, to the last bit.
    """
    if visible is None:
        return look(image, None)
    assert encoder.spec.fill is not None
    shown = encoder.upsample(visible.to(image.dtype), (image.shape[-2], image.shape[-1]))
    features = look(fill_hidden(image, shown, encoder.spec.fill, encoder.black, encoder.patch_size), None)
    maps = [one * at_resolution(visible.to(one.dtype), (one.shape[-2], one.shape[-1])) for one in features.maps]
    return replace(features, maps=maps)


class FilledVit(TokenDropEncoder):
    """A vision transformer that is shown a fill; all tokens are computed."""

    overwrites_hidden: ClassVar[bool] = True

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Fills, then runs the plain network."""
        return encode_filled(self, super().encode, image, visible)


class FilledHiera(HieraEncoder):
    """A Hiera that is shown a fill; all units are computed."""

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Fills, then runs the plain network."""
        return encode_filled(self, super().encode, image, visible)


class FilledSwin(SwinEncoder):
    """A Swin that is shown a fill; it has no mask token."""

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        super().__init__(backbone, spec)
        self.register_parameter("mask_token", None)

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Fills, then runs the plain network."""
        return encode_filled(self, super().encode, image, visible)


class FilledNetwork(Encoder):
    """Any timm network that gives feature maps, shown a fill.

    Its maps are the last of each resolution; a network whose blocks all have one resolution has one map.

    Raises:
        ValueError: the network gives no maps at this size, or does not pool them to a vector.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        if not hasattr(backbone, "forward_intermediates"):
            raise ValueError(f"a {type(backbone).__name__} gives timm no feature maps, so it cannot be an encoder")
        self._asked, empty = _ask_for_maps(backbone, spec)
        super().__init__(backbone, spec, empty.pooled.shape[1], [one.shape[1] for one in empty.maps])

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Fills, then runs the plain network."""
        return encode_filled(self, self._look, image, visible)

    def _look(self, image: Tensor, visible: None) -> Features:
        return _look(self.backbone, image, self._asked)


def _look(backbone: Any, image: Tensor, asked: dict[str, Any]) -> Features:
    final, maps = backbone.forward_intermediates(image, **asked)
    return Features(backbone.forward_head(final, pre_logits=True), list(maps))


@torch.no_grad()
def _ask_for_maps(backbone: Any, spec: EncoderSpec) -> tuple[dict[str, Any], Features]:
    """Looks at an empty image to find which maps a network has.

    Returns:
        How to ask for them, and what came of it.

    Raises:
        ValueError: there are none, or they are not pooled to a vector.
    """
    training = [module for module in backbone.modules() if module.training]
    backbone.eval()
    empty = torch.zeros(1, spec.in_chans, *spec.image_size, device=next(backbone.parameters()).device)
    try:
        asked: dict[str, Any] = {"norm": True}
        try:
            maps = backbone.forward_intermediates(empty, intermediates_only=True, **asked)
        except AssertionError:  # so timm says, among other things, that it cannot norm the maps of this network
            asked = {}
            maps = backbone.forward_intermediates(empty, intermediates_only=True)
        sizes = {tuple(one.shape[2:]): number for number, one in enumerate(maps)}  # the last of each resolution
        asked["indices"] = sorted(sizes.values())
        features = _look(backbone, empty, asked)
        if not sizes or any(len(size) != 2 for size in sizes) or features.pooled.ndim != 2:
            raise ValueError("its feature maps, or what it pools of them, are of no known shape")
    except (AssertionError, AttributeError, NotImplementedError) as error:
        raise ValueError(f"it cannot be asked for feature maps: {' '.join(str(error).split())}") from error
    for module in training:
        module.training = True
    return asked, features
