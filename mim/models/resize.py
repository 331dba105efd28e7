"""Weights of a network for one image size, fitted to the same network at another."""

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

from mim.models.encoder import Encoder, EncoderSpec
from mim.models.hiera import HieraEncoder
from mim.models.swin import SwinEncoder
from mim.models.vit import VitEncoder

TABLE = "relative_position_bias_table"


def resize_positions(state: dict[str, Tensor], spec: EncoderSpec, encoder: Encoder) -> list[str]:
    """Resamples learnt positions in `state` where only the image size differs.

    Rotary positions, those of CNNs and those of the second Swin are computed from coordinates and need nothing.

    Args:
        state: weights of a backbone; changed in place.
        spec: of the encoder they come from.
        encoder: that they are for, of the same timm model.

    Returns:
        What was done, in words.
    """
    if isinstance(encoder, VitEncoder):
        return _resize_vit(state, spec, encoder)
    if isinstance(encoder, HieraEncoder):
        return _resize_hiera(state, spec, encoder)
    if isinstance(encoder, SwinEncoder):
        return _resize_swin(state, spec, encoder)
    return []


def _resize_vit(state: dict[str, Tensor], spec: EncoderSpec, encoder: Encoder) -> list[str]:
    backbone, cell = encoder.backbone, spec.patch_size
    prefix = 0 if backbone.no_embed_class else backbone.num_prefix_tokens
    old = (spec.image_size[0] // cell, spec.image_size[1] // cell)
    return _resize_absolute(state, encoder, old, encoder.grid(), prefix)


def _resize_hiera(state: dict[str, Tensor], spec: EncoderSpec, encoder: Encoder) -> list[str]:
    backbone = encoder.backbone
    if backbone.pos_embed_win is not None:  # it is resampled at every use
        return []
    rows, columns = (side // stride for side, stride in zip(spec.image_size, backbone.patch_stride, strict=True))
    height, width = backbone.tokens_spatial_shape
    return _resize_absolute(state, encoder, (rows, columns), (height, width), 0)


def _resize_absolute(
    state: dict[str, Tensor], encoder: Encoder, old: tuple[int, int], new: tuple[int, int], prefix: int
) -> list[str]:
    own, found = encoder.backbone.pos_embed, state.get("pos_embed")
    if own is None or found is None or old == new or found.shape[-1] != own.shape[-1]:
        return []
    if found.shape[1] != old[0] * old[1] + prefix:  # not what its description says; the shapes will tell
        return []
    state["pos_embed"] = resample_abs_pos_embed(found, new_size=list(new), old_size=list(old), num_prefix_tokens=prefix)
    return [f"pos_embed from {old[0]}x{old[1]} to {new[0]}x{new[1]} cells"]


def _resize_swin(state: dict[str, Tensor], spec: EncoderSpec, encoder: Encoder) -> list[str]:
    """A window is as large as the map where the map is smaller than it; the table has a row for each offset in it."""
    adapted = []
    for depth, stage in enumerate(encoder.backbone.layers):
        for number, block in enumerate(stage.blocks):
            name = f"layers.{depth}.blocks.{number}.attn.{TABLE}"
            if name not in state or block.always_partition:
                continue
            largest = encoder.backbone._ref_window_sizes[depth]
            old = tuple(
                min(limit, side * own // asked)
                for limit, side, own, asked in zip(
                    largest, spec.image_size, block.input_resolution, encoder.image_size, strict=True
                )
            )
            new = tuple(block.window_size)
            own_table, found = getattr(block.attn, TABLE), state[name]
            rows = (2 * old[0] - 1) * (2 * old[1] - 1)
            if old == new or tuple(found.shape) != (rows, own_table.shape[1]):
                continue
            state[name] = resize_rel_pos_bias_table(found, new, tuple(own_table.shape), old_window_size=old)
            adapted.append(f"{name} from a window of {old[0]}x{old[1]} to {new[0]}x{new[1]}")
    return adapted
