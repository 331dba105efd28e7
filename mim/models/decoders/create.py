"""The decoder that fits an encoder."""

from torch import nn

from mim.errors import MimError
from mim.models.decoders.conv import ConvDecoder
from mim.models.decoders.transformer import TransformerDecoder
from mim.models.encoder import Encoder

DECODERS = ("mae", "fcmae")


def create_decoder(
    encoder: Encoder, size: int | None = None, kind: str | None = None, width: int = 192, depth: int = 2, heads: int = 6
) -> nn.Module:
    """Builds a decoder.

    Args:
        encoder: whose features are decoded.
        size: numbers to predict for a cell; None = its pixels.
        kind: one of `DECODERS`; None = what fits the encoder: `mae` behind tokens, `fcmae` behind maps.
        width: channels.
        depth: blocks.
        heads: attention heads, where there is attention.

    Raises:
        MimError: the encoder cannot have such a decoder, the heads do not divide the width, or the width is not a
            multiple of 4.
    """
    size = size or encoder.patch_size**2 * encoder.spec.in_chans
    kind = kind or ("mae" if encoder.spec.hidden == "drop" else "fcmae")
    if kind == "fcmae":
        return ConvDecoder(encoder, size, width, depth)
    if width % heads or width % 4:
        raise MimError(f"decoder.width={width} must be a multiple of 4 and of decoder.heads={heads}")
    return TransformerDecoder(encoder, size, width, depth, heads)
