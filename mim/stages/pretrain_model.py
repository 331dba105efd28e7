"""The model that is pretrained, from its settings."""

from pathlib import Path

import torch

from mim.config import PretrainConfig
from mim.errors import MimError
from mim.models import create_decoder
from mim.models.targets import PixelTarget
from mim.stages.common import configured_encoder, resolve_input
from mim.tasks import MaskedImageModel
from mim.training import load_weights


def build_task(config: PretrainConfig) -> MaskedImageModel:
    """Builds the model from its settings and seed alone.

    Raises:
        MimError: the encoder cannot be built or hidden as asked.
    """
    torch.manual_seed(config.seed)
    meets = resolve_input(config.input)
    encoder = configured_encoder(config.encoder, meets.image_size)
    if encoder.grid() == (1, 1):
        raise MimError(f"input.image_size: one cell of {encoder.patch_size} pixels is too few to hide some; enlarge it")
    targets = [(PixelTarget(encoder, config.target.normalize_pixels), 1.0)]
    size = sum(target.size for target, _ in targets)
    chosen = config.decoder
    decoder = create_decoder(encoder, size, chosen.kind, chosen.width, chosen.depth, chosen.heads, chosen.share)
    return MaskedImageModel(encoder, decoder, targets, mean=meets.mean, std=meets.std)


def load_pretrained_task(run: Path, config: PretrainConfig) -> MaskedImageModel:
    """Builds the model of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    task = build_task(config)
    try:
        task.load_state_dict(load_weights(run / "model.safetensors"))
    except RuntimeError as error:
        raise MimError(f"{run / 'model.safetensors'}: does not fit config.yaml beside it") from error
    return task
