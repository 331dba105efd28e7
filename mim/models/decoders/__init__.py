"""Rebuilding hidden cells from what the encoder made of the visible ones."""

from mim.models.decoders.create import DECODERS, create_decoder, default_kind

__all__ = ["DECODERS", "create_decoder", "default_kind"]
