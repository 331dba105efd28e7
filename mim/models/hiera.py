"""Hiera: hidden mask units are dropped before the first block."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.hiera import Hiera, undo_windowing
from torch import Tensor, nn

from mim.models.building import EncoderRequest, UnknownStructureError
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import WEIGHT_FLOOR, Features, at_resolution, places, scatter_tokens, weighted_mean
from mim.models.tokens import all_places, gate_bias, padding_bias


def build_hiera(request: EncoderRequest) -> "HieraEncoder":
    """Builds a Hiera whose hidden mask units are dropped.

    Raises:
        ValueError: the size does not fit, or the arguments ask for what hiding cannot follow.
    """
    backbone, cell = build_hiera_backbone(request)
    return HieraEncoder(backbone, request.spec(cell))


def build_hiera_backbone(request: EncoderRequest) -> tuple[Any, int]:
    """Asks timm for a Hiera of fixed size.

    Returns:
        The backbone and the side of a mask unit in pixels.

    Raises:
        ValueError: as `build_hiera`.
    """
    pool = request.timm_args.get("global_pool", "avg")
    if pool != "avg":
        raise ValueError(f"global_pool must be 'avg', not {pool!r}")
    backbone: Any = request.backbone(img_size=request.image_size)
    if not isinstance(backbone, Hiera):
        raise UnknownStructureError(f"cells cannot be hidden in a {type(backbone).__name__} by dropping mask units")
    if backbone.patch_drop_rate > 0:
        raise ValueError("patch_drop_rate drops cells behind the mask's back; masking.ratio is the way to hide more")
    unit = [stride * size for stride, size in zip(backbone.patch_stride, backbone.mask_unit_size, strict=True)]
    if len(set(unit)) != 1:
        raise UnknownStructureError(f"mask units must be square, not {unit[0]}x{unit[1]}")
    if request.patch_size not in (None, unit[0]):
        raise ValueError(f"its cells are mask units of {unit[0]} pixels; patch_size cannot be {request.patch_size}")
    pooled = [stride**backbone.q_pool for stride in backbone.q_stride]
    if pooled != list(backbone.mask_unit_size):
        raise UnknownStructureError(
            "its mask units must become one token each; leave q_pool, q_stride and mask_unit_size alone"
        )
    check_divisible(request.image_size, unit[0])
    return backbone, unit[0]


class HieraEncoder(Encoder):
    """A timm Hiera that computes no block for hidden mask units (Ryali et al., Hiera, ICML 2023).

    Its stem is a convolution that reaches over the border of a unit; it meets zeros there, as in Hiera's own
    pretraining. With a gate every unit is computed: its weight in every attention between units is multiplied by its
    gate, and so are its pixels where the stem of its neighbours meets them.
    """

    def __init__(self, backbone: Any, spec: EncoderSpec) -> None:
        super().__init__(backbone, spec, backbone.num_features, [entry["num_chs"] for entry in backbone.feature_info])

    def encode(self, image: Tensor, visible: Tensor | None, count: int | None = None) -> Features:
        """Drops hidden units, or weighs all of them by their gate, and runs the blocks."""
        backbone, (rows, columns) = self.backbone, self.grid()
        index, even, weight = None, True, None
        cells = self._embed(image)  # (B, U, rows * columns, C), U tokens a unit
        if visible is not None and visible.dtype == torch.bool:
            index, even = places(visible.flatten(1), count)
            if even and index.shape[1] == rows * columns:
                index = None  # then it is the plain network, to the last bit
            else:
                chosen = index.clamp(min=0)[:, None, :, None].expand(-1, cells.shape[1], -1, cells.shape[3])
                cells = cells.gather(2, chosen)
                weight = None if even else (index >= 0).float()
        elif visible is not None:
            weight = visible.flatten(1)
            # as dropping has it where the gate is 0 or 1; what is hidden keeps its content, for the gate's gradient
            shown = self._embed(image * self.upsample(visible, self.image_size))
            cells = torch.lerp(cells, shown, weight[:, None, :, None].to(cells.dtype))
        tokens, maps = self._blocks(cells.flatten(1, 2), index, weight, None if index is not None else visible)
        pooled = tokens if weight is None else weighted_mean(tokens, weight.to(tokens.dtype))[:, None]
        if weight is not None:
            tokens = tokens * weight[..., None].to(tokens.dtype)
        if index is None:
            index = all_places(self.grid(), len(image), image.device)
        return Features(backbone.forward_head(pooled, pre_logits=True), maps, tokens, index, even)

    def _embed(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, U, gh * gw, D): the tokens of all units, the units last, as the blocks want them."""
        backbone = self.backbone
        tokens: Tensor = backbone.unroll(backbone._pos_embed(backbone.patch_embed(image)))
        return tokens.reshape(len(tokens), backbone.mu_size, -1, tokens.shape[-1])

    def _blocks(
        self, tokens: Tensor, index: Tensor | None, weight: Tensor | None, gate: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """Runs the blocks over the units at `index` (None = all); gives the last tokens and the map of each stage."""
        backbone, maps = self.backbone, []
        bias = None
        if weight is not None:
            bias = gate_bias(weight, WEIGHT_FLOOR) if index is None else padding_bias(index, spare_first=True)
        for depth, block in enumerate(backbone.blocks):
            weighs = bias is not None and not block.attn.use_mask_unit_attn  # within a unit all weigh the same
            tokens = (_with_bias(block, bias) if weighs else block)(tokens)
            if depth in backbone.stage_ends:
                maps.append(self._lay(tokens, depth, index, gate))
        return tokens, maps

    def _lay(self, tokens: Tensor, depth: int, index: Tensor | None, gate: Tensor | None) -> Tensor:
        """Lays the tokens after a block out as a map, (B, D, h, w), zero where units were dropped."""
        reroll, (rows, columns) = self.backbone.reroll, self.grid()
        if index is None:
            whole: Tensor = reroll(tokens, depth).permute(0, 3, 1, 2)
            return (
                whole if gate is None else whole * at_resolution(gate.to(whole.dtype), (whole.shape[2], whole.shape[3]))
            )
        units = reroll(tokens, depth, mask=index)  # (B, N, h of a unit, w of a unit, D)
        flat = units.flatten(2)
        dense = scatter_tokens(flat, index, flat.new_zeros(len(flat), rows * columns, flat.shape[-1]))
        height, width, channels = units.shape[2:]
        dense = dense.reshape(len(dense), rows * columns, height, width, channels)
        laid: Tensor = undo_windowing(dense, [rows * height, columns * width], [height, width])
        return laid.permute(0, 3, 1, 2)


def _with_bias(block: Any, bias: Tensor | None) -> nn.Module:
    """The same block, weights and all, whose attention between units adds a bias; the block itself is left alone."""
    assert bias is not None
    twin: nn.Module = copy.copy(block)
    twin._modules = {**block._modules, "attn": _BiasedAttention(block.attn, bias)}
    return twin


class _BiasedAttention(nn.Module):
    """Hiera's attention over all tokens, with something added to the logits of each unit, for one call."""

    def __init__(self, attention: Any, bias: Tensor) -> None:
        super().__init__()
        self.attention = attention
        self.q_stride = attention.q_stride
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, U * N, D) -> (B, U * N / q_stride, D')."""
        own, units = self.attention, self.bias.shape[1]
        query, key, value = own.qkv(x).unflatten(-1, (3, own.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, U * N, d)
        if own.q_stride > 1:
            query = query.unflatten(2, (own.q_stride, -1)).amax(dim=2)
        bias = self.bias.repeat(1, x.shape[1] // units)[:, None, None].to(query.dtype)  # units lie innermost
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        output: Tensor = own.proj(mixed.transpose(1, 2).flatten(2))
        return output
