"""Vision transformers, with learnt or rotary positions: hidden tokens are dropped, or a mask token stands for them."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.layers.pos_embed_sincos import apply_keep_indices_nlc
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mim.models.building import EncoderRequest, UnknownStructureError
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import WEIGHT_FLOOR, Features, places, scatter_tokens, take_cells, weighted_mean
from mim.models.positions import sine_cosine_positions
from mim.models.tokens import all_places, gate_bias, new_mask_token, padding_bias, put_mask_token

PREFIX_TOKENS = ("cls_token", "reg_token")  # in the order in which timm puts them before the patches


def build_vit_drop(request: EncoderRequest) -> "TokenDropEncoder":
    """Builds a vision transformer whose hidden tokens are dropped.

    Raises:
        ValueError: if the network pools or drops tokens in a way that hiding cannot follow, or the size does not fit.
    """
    backbone, cell = build_vit_backbone(request)
    return TokenDropEncoder(backbone, request.spec(cell), fresh=not request.pretrained)


def build_vit_token(request: EncoderRequest) -> "MaskTokenEncoder":
    """Builds a vision transformer that meets a mask token at hidden cells.

    Raises:
        ValueError: as `build_vit_drop`.
    """
    backbone, cell = build_vit_backbone(request)
    return MaskTokenEncoder(backbone, request.spec(cell), fresh=not request.pretrained)


def build_vit_backbone(request: EncoderRequest) -> tuple[Any, int]:
    """Asks timm for a vision transformer of fixed size, pooled by the mean of its patches unless asked otherwise.

    Returns:
        The backbone and the side of a cell in pixels.

    Raises:
        ValueError: as `build_vit_drop`.
    """
    args: dict[str, Any] = {"img_size": request.image_size, "dynamic_img_size": False}
    pool = request.timm_args.get("global_pool")
    if pool not in (None, "avg", "token"):
        raise ValueError(f"global_pool must be 'avg' or 'token', not {pool!r}")
    if request.timm_args.get("dynamic_img_size"):
        raise ValueError("dynamic_img_size: the image size of an encoder is fixed; input.image_size sets it")
    if pool is None and not request.is_of(Eva):
        # the final norm stays where timm's default puts it, so that the weights fit timm.create_model(name)
        args |= {"global_pool": "avg", "fc_norm": False}
    if request.patch_size is not None:
        args["patch_size"] = request.patch_size
    backbone: Any = request.backbone(**args)
    if isinstance(backbone, Eva) and pool is None and backbone.global_pool == "token":
        backbone.global_pool = "avg"  # as above; timm's argument would move the norm
    _check_backbone(backbone)
    cell = backbone.patch_embed.patch_size
    if cell[0] != cell[1]:
        raise ValueError(f"patches must be square, not {cell[0]}x{cell[1]}")
    check_divisible(request.image_size, cell[0])
    return backbone, cell[0]


def _check_backbone(backbone: Any) -> None:
    """Refuses what would mix or lose tokens in a way that hiding cannot follow."""
    known = isinstance(backbone, VisionTransformer | Eva) and isinstance(backbone.patch_embed, PatchEmbed)
    if not known or not all(hasattr(block, "attn") for block in backbone.blocks):
        raise UnknownStructureError(f"cells cannot be hidden in the tokens of a {type(backbone).__name__} of this kind")
    if len(backbone.blocks) == 0:
        raise ValueError("it has no block; timm_args.depth must be at least 1")
    if not isinstance(backbone.patch_drop, nn.Identity | None):
        raise ValueError("patch_drop_rate drops tokens behind the mask's back; masking.ratio is the way to hide more")
    if backbone.attn_pool is not None:
        raise UnknownStructureError(
            "it pools by attention, hidden cells included; timm_args.global_pool=avg pools by the mean"
        )
    if sum(token.shape[1] for token in _prefix_tokens(backbone)) != backbone.num_prefix_tokens:
        raise UnknownStructureError(
            f"the tokens before the patches of a {type(backbone).__name__} of this kind are not known"
        )


def _prefix_tokens(backbone: nn.Module) -> list[Tensor]:
    found = (getattr(backbone, name, None) for name in PREFIX_TOKENS)
    return [token for token in found if token is not None]


class VitEncoder(Encoder):
    """What the two ways of hiding in a timm `VisionTransformer` or `Eva` have in common."""

    def __init__(self, backbone: Any, spec: EncoderSpec, fresh: bool) -> None:
        super().__init__(backbone, spec, backbone.num_features, [backbone.num_features])
        if fresh and backbone.pos_embed is not None:
            # MAE's fixed positions as the start: on few films learnt ones from noise take most of a short training
            with torch.no_grad():
                patches = backbone.pos_embed[:, -backbone.patch_embed.num_patches :]
                patches.copy_(sine_cosine_positions(backbone.patch_embed.grid_size, backbone.embed_dim)[None])

    def _blocks(self, cells: Tensor, index: Tensor | None, bias: Tensor | None) -> Tensor:
        """Puts positions and prefix to embedded cells and runs the blocks.

        Args:
            cells: (B, N, D) embedded cells without positions.
            index: (B, N) their places, or None = all cells in their order.
            bias: (B, N) added to the logits of attention to a cell, or None.

        Returns:
            (B, P + N, D) after the final norm.
        """
        backbone = self.backbone
        rotation = self._rotation(cells, index)
        tokens = backbone.norm_pre(self._with_positions(cells, index))
        more: dict[str, Any] = {}
        if bias is not None:
            more["attn_mask"] = F.pad(bias, (backbone.num_prefix_tokens, 0))[:, None, None].to(tokens.dtype)
        for depth, block in enumerate(backbone.blocks):
            if rotation is not None:
                more["rope"] = rotation[depth] if backbone.rope_mixed else rotation
            tokens = block(tokens, **more)
        normed: Tensor = backbone.norm(tokens)
        return normed

    def _with_positions(self, cells: Tensor, index: Tensor | None) -> Tensor:
        backbone, positions = self.backbone, self.backbone.pos_embed
        prefix = _prefix_tokens(backbone)
        if positions is not None:
            own = backbone.patch_embed.num_patches
            placed = positions[:, -own:]
            # a gather from one copy an image: its backward pass adds in a fixed order, unlike indexing
            cells = cells + (placed if index is None else take_cells(placed.expand(len(cells), -1, -1), index))
            if positions.shape[1] > own:
                prefix = [torch.cat(prefix, dim=1) + positions[:, :-own]]
        repeated = [token.expand(len(cells), -1, -1) for token in prefix]
        tokens: Tensor = backbone.pos_drop(torch.cat([*repeated, cells], dim=1))
        return tokens

    def _rotation(self, cells: Tensor, index: Tensor | None) -> Tensor | None:
        """Rotary embedding of each cell in the shape that timm's blocks take, by depth first where it is learnt."""
        rope = getattr(self.backbone, "rope", None)
        if rope is None:
            return None
        # those that keep no grid want to be told it
        angles: Tensor = rope.get_embed() if hasattr(rope, "feat_shape") else rope.get_embed(shape=self.grid())
        if index is None:
            return angles
        kept: Tensor = apply_keep_indices_nlc(cells, angles, index.clamp(min=0))
        return kept.transpose(0, 1) if self.backbone.rope_mixed else kept.unsqueeze(1)

    def _pool(self, tokens: Tensor, weight: Tensor | None) -> Tensor:
        """(B, P + N, D) and (B, N) -> (B, D)."""
        backbone = self.backbone
        if weight is None:
            pooled = backbone.pool(tokens)
        elif backbone.global_pool == "token":
            pooled = tokens[:, 0]
        else:
            pooled = weighted_mean(tokens[:, backbone.num_prefix_tokens :], weight.to(tokens.dtype))
        normed: Tensor = backbone.fc_norm(pooled)
        return normed

    def _lay(self, patches: Tensor) -> Tensor:
        """(B, gh * gw, D) -> (B, D, gh, gw)."""
        return patches.transpose(1, 2).reshape(len(patches), -1, *self.grid())


class TokenDropEncoder(VitEncoder):
    """A vision transformer that computes nothing for hidden cells: they are not even embedded (He et al., MAE, 2022).

    With a gate instead of a boolean mask every token is computed, and a token's weight in every attention is multiplied
    by its gate: 1 leaves it as it is, 0 takes it out as dropping would.
    """

    overwrites_hidden: ClassVar[bool] = False  # they are never read

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Embeds the visible cells alone, or weighs all of them by their gate, and runs the blocks."""
        backbone, prefix = self.backbone, self.backbone.num_prefix_tokens
        index, even, bias, weight = None, True, None, None
        if visible is not None and visible.dtype == torch.bool:
            index, even = places(visible.flatten(1), count)
            if even and index.shape[1] == backbone.patch_embed.num_patches:
                index = None  # then it is the plain network, to the last bit
        elif visible is not None:
            weight = visible.flatten(1)
            bias = gate_bias(weight, WEIGHT_FLOOR)
        if index is not None and not even:
            weight = (index >= 0).float()
            bias = padding_bias(index, spare_first=prefix == 0)
        cells = backbone.patch_embed(image) if index is None else self._embed(image, index, even)
        tokens = self._blocks(cells, index, bias)
        patches = tokens[:, prefix:]
        if weight is not None:
            patches = patches * weight[..., None].to(patches.dtype)
        if index is None:
            index, laid = all_places(self.grid(), len(image), image.device), patches
        else:
            canvas = patches.new_zeros(len(patches), backbone.patch_embed.num_patches, patches.shape[-1])
            laid = scatter_tokens(patches, index, canvas)
        return Features(
            pooled=self._pool(tokens, weight),
            maps=[self._lay(laid)],
            tokens=patches,
            index=index,
            even=even,
            prefix=tokens[:, :prefix] if prefix else None,
        )

    def _embed(self, image: Tensor, index: Tensor, even: bool) -> Tensor:
        """Embeds the cells at `index`, (B, N) -> (B, N, D), without reading any other."""
        embed, (rows, columns), size = self.backbone.patch_embed, self.grid(), self.patch_size
        cells = image.reshape(len(image), -1, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        place = index.clamp(min=0)
        batch = torch.arange(len(image), device=image.device)[:, None]
        pixels = cells[batch, place // columns, place % columns].flatten(2)  # (B, N, C * size * size)
        if not even:
            pixels = pixels.masked_fill((index < 0)[..., None], 0)  # padding stands on a cell that may be hidden
        weight = embed.proj.weight.flatten(1)  # the convolution does not overlap: on one cell it is a linear map
        embedded: Tensor = embed.norm(F.linear(pixels.to(weight.dtype), weight, embed.proj.bias))
        return embedded


class MaskTokenEncoder(VitEncoder):
    """A vision transformer that meets a learnt token at hidden cells (Xie et al., SimMIM, 2022); all are computed.

    The token takes the place of the embedded cell before positions are added. It is a parameter of the encoder, not of
    the backbone, whose weights fit timm. A gate blends the two: 1 is the cell, 0 the mask token.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec, fresh: bool) -> None:
        super().__init__(backbone, spec, fresh)
        self.mask_token = new_mask_token(backbone.embed_dim)

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Embeds all cells, puts the mask token in place of hidden ones and runs the blocks."""
        backbone, prefix = self.backbone, self.backbone.num_prefix_tokens
        cells = backbone.patch_embed(image)  # (B, L, D)
        weight = None
        if visible is not None:
            weight = visible.flatten(1).to(cells.dtype)
            cells = put_mask_token(cells, visible.flatten(1)[..., None], self.mask_token)
        tokens = self._blocks(cells, None, None)
        patches = tokens[:, prefix:]
        shown = patches if weight is None else patches * weight[..., None]
        return Features(
            pooled=self._pool(tokens, weight),
            maps=[self._lay(shown)],
            tokens=patches,
            index=all_places(self.grid(), len(image), image.device),
            even=True,
            prefix=tokens[:, :prefix] if prefix else None,
        )
