"""MAE's decoder."""

import torch
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.decoders.blocks import answer_from, create_blocks, norm_layer
from mim.models.encoder import Encoder
from mim.models.features import Features, places, scatter_tokens
from mim.models.positions import sine_cosine_positions
from mim.models.prediction import Prediction


class TransformerDecoder(nn.Module):
    """MAE's decoder: a shared mask token at every hidden cell, positions, a few blocks (He et al., 2022, section 3).

    Where every image has as many visible cells as the others, only hidden cells are computed from the last block's
    queries on. Their predictions are those of the whole decoder.

    Args:
        encoder: whose patch tokens are decoded.
        size: numbers to predict for a cell.
        width: channels.
        depth: blocks.
        heads: attention heads.
        class_token: whether the encoder's class token takes part, as in the published checkpoints, at a position of
            zeros. Otherwise it stays in the encoder, and register tokens always do.

    Raises:
        MimError: `class_token` is asked for and the encoder has none.
    """

    positions: Tensor

    def __init__(
        self, encoder: Encoder, size: int, width: int, depth: int, heads: int, class_token: bool = False
    ) -> None:
        super().__init__()
        if class_token and getattr(encoder.backbone, "cls_token", None) is None:
            raise MimError(f"encoder {encoder.spec.name} has no class token that a decoder could take")
        self.class_token = class_token
        self.embed = nn.Linear(encoder.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.normal_(self.mask_token, std=0.02)
        positions = sine_cosine_positions(encoder.grid(), width)[None]
        if class_token:
            positions = nn.functional.pad(positions, (0, 0, 1, 0))  # (1, 1 + gh * gw, width)
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = create_blocks(width, depth, heads)
        self.norm = norm_layer(width)
        self.predict = nn.Linear(width, size)

    def forward(self, features: Features, visible: Tensor) -> Prediction:
        """Predicts the hidden cells, or every cell where images have different numbers of them."""
        assert features.tokens is not None
        assert features.index is not None
        tokens = self.embed(features.tokens)  # (B, N, width)
        prefix, cells = self._prefix(features), self.positions[0, int(self.class_token) :]
        mask_token = self.mask_token.to(tokens.dtype)
        if not features.even:
            canvas = scatter_tokens(tokens, features.index, mask_token.expand(len(tokens), len(cells), -1)) + cells
            tokens, start = torch.cat([*prefix, canvas], dim=1), len(prefix)
            return Prediction(self._decode(tokens, start))
        # attention does not ask for order: hidden cells are put behind the others, where no copy is needed to cut them
        hidden, _ = places(~visible.flatten(1), len(cells) - tokens.shape[1])
        tokens = torch.cat([*prefix, tokens + cells[features.index], mask_token + cells[hidden]], dim=1)
        return Prediction(self._decode(tokens, tokens.shape[1] - hidden.shape[1]), hidden)

    def _prefix(self, features: Features) -> list[Tensor]:
        """The class token with its position, (B, 1, width), where it takes part."""
        if not self.class_token:
            return []
        assert features.prefix is not None
        return [self.embed(features.prefix[:, :1]) + self.positions[:, :1]]

    def _decode(self, tokens: Tensor, start: int) -> Tensor:
        """Predicts for the tokens from `start` on: (B, M, P)."""
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        return self.predict(self.norm(answer_from(last, tokens, start)))  # type: ignore[no-any-return]
