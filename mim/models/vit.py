"""Vision transformers: hidden tokens are dropped before the first block."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mim.models.building import EncoderRequest
from mim.models.encoder import Encoder, EncoderSpec, check_divisible
from mim.models.features import Features, places, scatter_tokens
from mim.models.positions import sine_cosine_positions

GATE_FLOOR = 1e-6  # weight that a closed gate keeps in attention, so that its gradient is finite


def build_vit(request: EncoderRequest) -> "TokenDropEncoder":
    """Builds a vision transformer whose hidden tokens are dropped.

    Raises:
        ValueError: if the network pools or drops tokens in a way that hiding cannot follow, or the size does not fit.
    """
    args: dict[str, Any] = {}
    if "global_pool" not in request.timm_args:
        # the final norm stays where timm's default puts it, so that the weights fit timm.create_model(name)
        args = {"global_pool": "avg", "fc_norm": False}
    elif (pool := request.timm_args["global_pool"]) not in ("avg", "token"):
        raise ValueError(f"global_pool must be 'avg' or 'token', not {pool!r}")
    if request.patch_size is not None:
        args["patch_size"] = request.patch_size
    backbone = request.backbone(img_size=request.image_size, dynamic_img_size=False, **args)
    if not isinstance(backbone, VisionTransformer) or not all(hasattr(block, "attn") for block in backbone.blocks):
        raise ValueError(f"cells cannot be hidden in a {type(backbone).__name__} by dropping tokens")
    if not isinstance(backbone.patch_drop, nn.Identity):
        raise ValueError("patch_drop_rate drops tokens behind the mask's back; masking.ratio is the way to hide more")
    cell = backbone.patch_embed.patch_size
    if cell[0] != cell[1]:
        raise ValueError(f"patches must be square, not {cell[0]}x{cell[1]}")
    check_divisible(request.image_size, cell[0])
    return TokenDropEncoder(backbone, request.spec(cell[0]), fresh=not request.pretrained)


class TokenDropEncoder(Encoder):
    """A timm VisionTransformer that computes nothing for hidden tokens beyond their (empty) embedding.

    With a gate instead of a boolean mask every token is computed, and a token's weight in every attention is multiplied
    by its gate: 1 leaves it as it is, 0 takes it out as dropping would.
    """

    backbone: VisionTransformer

    def __init__(self, backbone: VisionTransformer, spec: EncoderSpec, fresh: bool) -> None:
        super().__init__(backbone, spec, backbone.num_features, [backbone.num_features])
        if fresh and backbone.pos_embed is not None:
            # MAE's fixed positions as the start: on few films learnt ones from noise take most of a short training
            with torch.no_grad():
                patches = backbone.pos_embed[:, -backbone.patch_embed.num_patches :]
                patches.copy_(sine_cosine_positions(backbone.patch_embed.grid_size, backbone.embed_dim)[None])

    def encode(self, image: Tensor, visible: Tensor | None) -> Features:
        """Drops hidden tokens, or weighs all of them by their gate, and runs the blocks."""
        backbone = self.backbone
        prefix = backbone.num_prefix_tokens
        tokens = backbone._pos_embed(backbone.patch_embed(image))  # (B, P + L, D)
        cells = tokens.shape[1] - prefix
        even = True
        if visible is None:
            index, bias, weight = torch.arange(cells, device=image.device).expand(len(image), -1), None, None
        elif visible.dtype == torch.bool:
            index, even = places(visible.flatten(1))
            bias = None if even else self._blocked(index, prefix)
            kept = tokens[:, prefix:].gather(1, index.clamp(min=0)[..., None].expand(-1, -1, tokens.shape[-1]))
            tokens = torch.cat([tokens[:, :prefix], kept.masked_fill((index < 0)[..., None], 0)], dim=1)
            weight = None if bias is None else (index >= 0).to(tokens.dtype)
        else:
            index = torch.arange(cells, device=image.device).expand(len(image), -1)
            weight = visible.flatten(1)
            log_weight = torch.log(weight.float() * (1 - GATE_FLOOR) + GATE_FLOOR)
            bias = torch.nn.functional.pad(log_weight, (prefix, 0))[:, None, None]  # (B, 1, 1, P + L)
        tokens = backbone.norm_pre(backbone.patch_drop(tokens))
        for block in backbone.blocks:
            tokens = block(tokens) if bias is None else block(tokens, attn_mask=bias.to(tokens.dtype))
        tokens = backbone.norm(tokens)
        return self._features(tokens, index, weight, even)

    @staticmethod
    def _blocked(index: Tensor, prefix: int) -> Tensor:
        """An attention bias, (B, 1, 1, P + N), that keeps attention from the padding of `places`."""
        blocked = index < 0
        if prefix == 0:  # an image that shows nothing attends to its own padding instead of to nothing at all
            blocked[:, 0] = False
        bias = torch.zeros(blocked.shape, device=index.device).masked_fill(blocked, -torch.inf)
        return torch.nn.functional.pad(bias, (prefix, 0))[:, None, None]

    def _features(self, tokens: Tensor, index: Tensor, weight: Tensor | None, even: bool) -> Features:
        backbone, prefix = self.backbone, self.backbone.num_prefix_tokens
        patches = tokens[:, prefix:]
        if weight is None:
            pooled = backbone.pool(tokens)
        elif backbone.global_pool == "token":
            pooled = tokens[:, 0]
        else:
            weight = weight.to(patches.dtype)
            patches = patches * weight[..., None]
            pooled = patches.sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=GATE_FLOOR)
        grid = self.grid()
        canvas = patches.new_zeros(len(patches), grid[0] * grid[1], patches.shape[-1])
        laid = scatter_tokens(patches, index, canvas).transpose(1, 2).reshape(len(patches), -1, *grid)  # (B, D, gh, gw)
        return Features(
            pooled=backbone.fc_norm(pooled),
            maps=[laid],
            tokens=patches,
            index=index,
            even=even,
            prefix=tokens[:, :prefix] if prefix else None,
        )
