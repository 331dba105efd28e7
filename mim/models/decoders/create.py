"""The decoder that fits an encoder."""

from torch import nn

from mim.errors import MimError
from mim.models.decoders.conv import ConvDecoder
from mim.models.decoders.cross import CrossDecoder
from mim.models.decoders.linear import LinearDecoder
from mim.models.decoders.transformer import TransformerDecoder
from mim.models.decoders.unet import UNetDecoder
from mim.models.encoder import Encoder

# the ways of hiding that each decoder can answer for, the one that it is the default of first
DECODERS = {
    "mae": ("drop",),
    "cross": ("drop",),
    "linear": ("token",),
    "unet": ("sparse", "layer", "drop", "fill"),
    "fcmae": ("sparse", "layer", "drop", "fill"),
}
DEFAULTS = {"drop": "mae", "token": "linear"}  # elsewhere fcmae
OF_A_SHARE = ("mae", "cross")


def create_decoder(
    encoder: Encoder,
    size: int | None = None,
    kind: str | None = None,
    width: int = 192,
    depth: int = 2,
    heads: int = 6,
    share: float = 1.0,
    of_pixels: bool | None = None,
) -> nn.Module:
    """Builds a decoder.

    Args:
        encoder: whose features are decoded.
        size: numbers to predict for a cell; None = its pixels.
        kind: one of `DECODERS`; None = what fits the encoder: `mae` where hidden tokens are dropped, `linear` where a
            mask token stands for them, `fcmae` behind CNNs.
        width: channels; `linear` has none of its own.
        depth: blocks; for `unet`, convolutions a level.
        heads: attention heads, where there is attention.
        share: of the hidden cells that `mae` and `cross` decode in training, drawn anew in each call.
        of_pixels: whether these numbers are laid out like the pixels of a cell, which `unet` makes use of; None =
            where they are as many.

    Raises:
        MimError: the encoder cannot have such a decoder, the decoder cannot leave cells out, the heads do not divide
            the width, or the width is not a multiple of 4.
    """
    size = size or encoder.patch_size**2 * encoder.spec.in_chans
    kind = kind or default_kind(encoder)
    _check(encoder, kind, share)
    if kind == "fcmae":
        return ConvDecoder(encoder, size, width, depth)
    if kind == "unet":
        return UNetDecoder(encoder, size, width, depth, of_pixels)
    if kind == "linear":
        return LinearDecoder(encoder, size)
    if width % heads or width % 4:
        raise MimError(f"decoder.width={width} must be a multiple of 4 and of decoder.heads={heads}")
    if kind == "cross":
        return CrossDecoder(encoder, size, width, depth, heads, share=share)
    return TransformerDecoder(encoder, size, width, depth, heads, share=share)


def default_kind(encoder: Encoder) -> str:
    """The decoder that an encoder has unless another is asked for."""
    return DEFAULTS.get(encoder.spec.hidden, "fcmae")


def _check(encoder: Encoder, kind: str, share: float) -> None:
    """Refuses a decoder that cannot answer for what the encoder hides, or not for a share of it."""
    name, hidden = encoder.spec.name, encoder.spec.hidden
    if kind not in DECODERS:
        raise MimError(f"decoder.kind={kind} is not known; choose from {', '.join(DECODERS)}")
    fits = [other for other, ways in DECODERS.items() if hidden in ways]
    if len(encoder.map_channels) == 1 and "unet" in fits:
        fits.remove("unet")
    if kind not in fits:
        why = f"{name} has no pyramid of maps" if hidden in DECODERS[kind] else f"{name} hides by {hidden!r}"
        raise MimError(f"decoder.kind={kind} does not fit: {why}; choose {' or '.join(fits)}")
    if kind == "linear" and (coarsest := int(encoder.backbone.feature_info[-1]["reduction"])) != encoder.patch_size:
        raise MimError(
            f"decoder.kind=linear needs one token a cell: {name} ends at stride {coarsest}; "
            f"give encoder.patch_size={coarsest}"
        )
    if share != 1 and kind not in OF_A_SHARE:
        raise MimError(f"decoder.share={share}: decoder.kind={kind} decodes all cells; {' and '.join(OF_A_SHARE)} can")
    if not 0 < share <= 1:
        raise MimError(f"decoder.share={share} must be above 0 and at most 1")
