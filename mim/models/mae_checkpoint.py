"""Published MAE checkpoints, decoder and all."""

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mim.errors import MimError
from mim.models.checkpoint_file import read_tensors
from mim.models.create import create_encoder
from mim.models.decoders.transformer import TransformerDecoder
from mim.models.masked_image_model import MaskedImageModel
from mim.models.targets import PixelTarget

NAMES = {  # (width, depth, patch size, heads): those that MAE's authors publish, and the two usual smaller ones
    (192, 12, 16, 3): "vit_tiny_patch16_224",
    (384, 12, 16, 6): "vit_small_patch16_224",
    (768, 12, 16, 12): "vit_base_patch16_224",
    (1024, 24, 16, 16): "vit_large_patch16_224",
    (1280, 32, 14, 16): "vit_huge_patch14_224",
}
ENCODER_PARTS = ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm.")
DECODER_PARTS = {  # what MAE calls them: what TransformerDecoder calls them
    "mask_token": "mask_token",
    "decoder_embed.": "embed.",
    "decoder_blocks.": "blocks.",
    "decoder_norm.": "norm.",
    "decoder_pred.": "predict.",
}


@dataclass(frozen=True)
class _Sizes:
    """What the shapes in a file say of its network."""

    width: int
    depth: int
    patch: int
    channels: int
    side: int
    mlp_ratio: float
    decoder_width: int
    decoder_depth: int


def load_mae_checkpoint(
    path: str | Path, norm_pix: bool = True, decoder_heads: int = 16, heads: int | None = None
) -> MaskedImageModel:
    """Reads a pretraining checkpoint of MAE (He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022).

    Sizes are read from the shapes, positions are those of the file. The image is taken to be square, as MAE's are.
    The loss is MAE's where every image of a batch hides as many cells, as MAE does: mim takes the mean over the hidden
    cells of each image first.

    Args:
        path: the file, `.pth` (a state_dict, bare or under "model") or `.safetensors`.
        norm_pix: whether the target is pixels normalised by cell, as in the published `norm_pix_loss` runs.
        decoder_heads: attention heads of the decoder, which no shape tells.
        heads: attention heads of the encoder; None = 16 for ViT-H (width 1280), else one for each 64 channels.

    Returns:
        The model. It takes images (B, C, H, W) as the official model does, normalised already: mean 0, deviation 1.

    Raises:
        MimError: the file cannot be read, is no such checkpoint, or does not fit the heads; one line.
    """
    path = Path(path)
    state = read_tensors(path)
    sizes = _read_sizes(path, state)
    heads = heads or (16 if sizes.width == 1280 else max(1, sizes.width // 64))
    for name, width, count in (("heads", sizes.width, heads), ("decoder_heads", sizes.decoder_width, decoder_heads)):
        if width % count:
            raise MimError(
                f"{path}: {name}={count} does not divide the width of {width}; say how many it was made with"
            )
    encoder = create_encoder(
        NAMES.get((sizes.width, sizes.depth, sizes.patch, heads), NAMES[768, 12, 16, 12]),
        (sizes.side, sizes.side),
        sizes.channels,
        "drop",
        **_other_sizes(sizes, heads),
    )
    target = PixelTarget(encoder, norm_pix)
    decoder = TransformerDecoder(
        encoder, target.size, sizes.decoder_width, sizes.decoder_depth, decoder_heads, class_token=True
    )
    own = {name: tensor for name, tensor in state.items() if name.startswith(ENCODER_PARTS)}
    renamed = {
        new + name.removeprefix(old): tensor
        for name, tensor in state.items()
        for old, new in DECODER_PARTS.items()
        if name.startswith(old)
    }
    _load_strict(path, encoder.backbone, own, "encoder")
    _load_strict(path, decoder, renamed, "decoder")
    if (positions := state.get("decoder_pos_embed")) is not None:
        if positions.shape != decoder.positions.shape:
            raise MimError(
                f"{path}: decoder_pos_embed is {tuple(positions.shape)}, and {tuple(decoder.positions.shape)} would "
                "fit the rest"
            )
        decoder.positions.copy_(positions)
    return MaskedImageModel(encoder, decoder, [(target, 1.0)])


def _read_sizes(path: Path, state: dict[str, Tensor]) -> _Sizes:
    """Reads the sizes off the shapes.

    Raises:
        MimError: a part is missing, or the parts do not fit each other.
    """
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight", "mask_token")
    for name in (*needed, "decoder_embed.weight", "decoder_blocks.0.norm1.weight", "decoder_pred.weight"):
        if name not in state:
            raise MimError(
                f"{path}: is no pretraining checkpoint of MAE: {name} is missing; an encoder without its decoder goes "
                "by load_foreign_encoder, or encoder.weights"
            )
    patch, positions = state["patch_embed.proj.weight"], state["pos_embed"]
    if patch.ndim != 4 or patch.shape[2] != patch.shape[3] or positions.ndim != 3:
        raise MimError(
            f"{path}: patch_embed.proj.weight {tuple(patch.shape)} and pos_embed {tuple(positions.shape)} are not "
            "those of square patches"
        )
    cells = positions.shape[1] - 1
    rows = isqrt(max(cells, 0))
    if rows < 1 or rows * rows != cells:
        raise MimError(f"{path}: pos_embed has {cells} cells, which are no square; MAE's images are square")
    width, channels, size, _ = patch.shape
    return _Sizes(
        width=width,
        depth=_count_blocks(state, "blocks"),
        patch=size,
        channels=channels,
        side=rows * size,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        decoder_width=state["decoder_embed.weight"].shape[0],
        decoder_depth=_count_blocks(state, "decoder_blocks"),
    )


def _count_blocks(state: dict[str, Tensor], part: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(f"{part}.")})


def _other_sizes(sizes: _Sizes, heads: int) -> dict[str, Any]:
    """What must be said to timm of a network that has no name of its own."""
    if (sizes.width, sizes.depth, sizes.patch, heads) in NAMES and sizes.mlp_ratio == 4:
        return {}
    return {
        "patch_size": sizes.patch,
        "embed_dim": sizes.width,
        "depth": sizes.depth,
        "num_heads": heads,
        "mlp_ratio": sizes.mlp_ratio,
    }


def _load_strict(path: Path, module: nn.Module, state: dict[str, Tensor], part: str) -> None:
    """Loads all of a state into all of a module.

    Raises:
        MimError: they differ; the first difference is named.
    """
    own = module.state_dict()
    for name in sorted({*own, *state}):
        there = tuple(state[name].shape) if name in state else "missing"
        here = tuple(own[name].shape) if name in own else "unknown"
        if there != here:
            raise MimError(f"{path}: is not as MAE's checkpoints are: {name} of the {part} is {there}, expected {here}")
    with torch.no_grad():
        module.load_state_dict(state)
