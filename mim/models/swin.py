"""Swin, first and second version: a mask token stands for hidden cells."""

from typing import Any

from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor

from mim.models.building import EncoderRequest, UnknownStructureError
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import Features, at_resolution, weighted_mean
from mim.models.tokens import all_places, new_mask_token, put_mask_token


def build_swin(request: EncoderRequest) -> "SwinEncoder":
    """Builds a Swin that meets a mask token at hidden cells.

    Raises:
        ValueError: the size does not fit, or the arguments ask for what hiding cannot follow.
    """
    backbone, cell = build_swin_backbone(request)
    return SwinEncoder(backbone, request.spec(cell))


def build_swin_backbone(request: EncoderRequest) -> tuple[Any, int]:
    """Asks timm for a Swin of fixed size.

    Returns:
        The backbone and the side of a cell in pixels.

    Raises:
        ValueError: as `build_swin`.
    """
    pool = request.timm_args.get("global_pool", "avg")
    if pool != "avg":
        raise ValueError(f"global_pool must be 'avg', not {pool!r}")
    if request.timm_args.get("dynamic_img_size") or not request.timm_args.get("strict_img_size", True):
        raise ValueError("dynamic_img_size: the image size of an encoder is fixed; input.image_size sets it")
    backbone: Any = request.backbone(img_size=request.image_size)
    if not isinstance(backbone, SwinTransformer | SwinTransformerV2):
        raise UnknownStructureError(f"cells cannot be hidden in a {type(backbone).__name__} by a mask token")
    finest, coarsest = backbone.feature_info[0]["reduction"], backbone.feature_info[-1]["reduction"]
    cell = request.patch_size or coarsest
    if cell % finest or (cell % coarsest and coarsest % cell):
        raise ValueError(
            f"patch size {cell} and the strides {finest} to {coarsest} of its stages do not fit each other"
        )
    check_divisible(request.image_size, max(cell, coarsest))
    return backbone, cell


class SwinEncoder(Encoder):
    """A timm Swin that meets a learnt token at hidden cells (Xie et al., SimMIM, 2022); all tokens are computed.

    A cell may be coarser than the network's patch. The token takes the place of the embedded patches of a hidden cell;
    it is a parameter of the encoder, not of the backbone, whose weights fit timm. A gate blends the two: 1 is the cell,
    0 the mask token. `Features.tokens` are those of the last stage where it has one a cell, else None.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        super().__init__(backbone, spec, backbone.num_features, [entry["num_chs"] for entry in backbone.feature_info])
        self.mask_token = new_mask_token(self.map_channels[0])

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Embeds all patches, puts the mask token in place of hidden ones and runs the stages."""
        backbone = self.backbone
        x = backbone.patch_embed(image)  # (B, h, w, C)
        if visible is not None:
            shown = self.upsample(visible, (x.shape[1], x.shape[2])).permute(0, 2, 3, 1)
            x = put_mask_token(x, shown, self.mask_token)
        maps = []
        for depth, stage in enumerate(backbone.layers):
            x = stage(x)
            if depth + 1 == len(backbone.layers):
                x = backbone.norm(x)
            maps.append(self._hide(x.permute(0, 3, 1, 2), visible))
        final = x
        if visible is not None:
            weight = at_resolution(visible.to(x.dtype), (x.shape[1], x.shape[2])).flatten(1)
            final = weighted_mean(x.flatten(1, 2), weight)[:, None, None]  # nothing is left for timm's head to pool
        one_a_cell = (x.shape[1], x.shape[2]) == self.grid()
        return Features(
            pooled=backbone.forward_head(final, pre_logits=True),
            maps=maps,
            tokens=x.flatten(1, 2) if one_a_cell else None,
            index=all_places(self.grid(), len(image), image.device) if one_a_cell else None,
            even=one_a_cell,
        )

    @staticmethod
    def _hide(feature_map: Tensor, visible: Tensor | None) -> Tensor:
        if visible is None:
            return feature_map
        height, width = feature_map.shape[-2:]
        return feature_map * at_resolution(visible.to(feature_map.dtype), (height, width))
