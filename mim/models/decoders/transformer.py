"""MAE's decoder."""

import torch
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.decoders.blocks import answer_from, create_blocks, norm_layer
from mim.models.decoders.hidden import hidden_places
from mim.models.encoder import Encoder
from mim.models.features import Features
from mim.models.positions import sine_cosine_positions
from mim.models.prediction import Prediction
from mim.models.tokens import padding_bias


class TransformerDecoder(nn.Module):
    """MAE's decoder: a shared mask token at every hidden cell, positions, a few blocks (He et al., 2022, section 3).

    From the last block's queries on only hidden cells are computed. Their predictions are those of the whole decoder.

    Args:
        encoder: whose patch tokens are decoded.
        size: numbers to predict for a cell.
        width: channels.
        depth: blocks.
        heads: attention heads.
        class_token: whether the encoder's class token takes part, as in the published checkpoints, at a position of
            zeros. Otherwise it stays in the encoder, and register tokens always do.
        share: of the hidden cells that take part in training; the others are left out as if they were not there.

    Raises:
        MimError: `class_token` is asked for and the encoder has none.
    """

    positions: Tensor

    def __init__(
        self,
        encoder: Encoder,
        size: int,
        width: int,
        depth: int,
        heads: int,
        class_token: bool = False,
        share: float = 1.0,
    ) -> None:
        super().__init__()
        if class_token and getattr(encoder.backbone, "cls_token", None) is None:
            raise MimError(f"encoder {encoder.spec.name} has no class token that a decoder could take")
        self.class_token = class_token
        self.share = share
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
        """Predicts the hidden cells; in training a share of them."""
        assert features.tokens is not None
        assert features.index is not None
        seen, kept = features.index, features.tokens.shape[1] if features.even else None
        hidden, even = hidden_places(visible, kept, self.share if self.training else 1.0)
        cells = self.positions[0, int(self.class_token) :]
        # attention does not ask for order: hidden cells go behind the others, where no copy is needed to cut them off
        tokens = [
            *self._prefix(features),
            self.embed(features.tokens) + cells[seen.clamp(min=0)],
            self.mask_token + cells[hidden.clamp(min=0)],
        ]
        bias = None
        if not (features.even and even):
            taken = torch.cat([seen, hidden], dim=1)
            bias = padding_bias(nn.functional.pad(taken, (int(self.class_token), 0)))[:, None, None]
        return Prediction(self._decode(torch.cat(tokens, dim=1), hidden.shape[1], bias), hidden)

    def _prefix(self, features: Features) -> list[Tensor]:
        """The class token with its position, (B, 1, width), where it takes part."""
        if not self.class_token:
            return []
        assert features.prefix is not None
        return [self.embed(features.prefix[:, :1]) + self.positions[:, :1]]

    def _decode(self, tokens: Tensor, count: int, bias: Tensor | None) -> Tensor:
        """Predicts for the last `count` tokens: (B, count, P)."""
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens) if bias is None else block(tokens, attn_mask=bias.to(tokens.dtype))
        answers = answer_from(last, tokens, tokens.shape[1] - count, bias)
        return self.predict(self.norm(answers))  # type: ignore[no-any-return]
