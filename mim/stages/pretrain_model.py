"""The model that is pretrained, from its settings."""

from pathlib import Path

import torch

from mim.config import DecoderConfig, PretrainConfig, TargetConfig
from mim.errors import MimError
from mim.models import Encoder, create_decoder
from mim.models.decoders import default_kind
from mim.models.targets import HogTarget, LatentTarget, PixelTarget, SpectralTarget, Target, VisibleDistillation
from mim.stages.common import configured_encoder, resolve_input
from mim.stages.pretrain_masking import build_guide, check_masking, visible_count
from mim.tasks import MaskedImageModel
from mim.training import load_weights


def build_task(config: PretrainConfig) -> MaskedImageModel:
    """Builds the model from its settings and seed alone.

    Raises:
        MimError: the encoder cannot be built, hidden or given targets as asked.
    """
    check_targets(config.target)
    torch.manual_seed(config.seed)
    meets = resolve_input(config.input)
    encoder = configured_encoder(config.encoder, meets.image_size)
    if encoder.grid() == (1, 1):
        raise MimError(f"input.image_size: one cell of {encoder.patch_size} pixels is too few to hide some; enlarge it")
    check_masking(config.masking, encoder.grid())
    targets, distillation = build_targets(encoder, config.target)
    size = sum(target.size for target, _ in targets)
    chosen = config.decoder
    # the embeddings of a teacher may be as many numbers as a cell has pixels, and are none
    of_pixels = all(isinstance(target, PixelTarget | SpectralTarget) for target, _ in targets)
    check_decoder(chosen, encoder)
    decoder = create_decoder(
        encoder, size, chosen.kind, chosen.width, chosen.depth, chosen.heads, chosen.share, of_pixels
    )
    guide = build_guide(config.masking, encoder)
    task = MaskedImageModel(
        encoder, decoder, targets, mean=meets.mean, std=meets.std, distillation=distillation, guide=guide
    )
    task.visible_count = visible_count(config.masking, encoder.grid())
    return task


def check_decoder(chosen: DecoderConfig, encoder: Encoder) -> None:
    """Refuses settings that the decoder does not read.

    Raises:
        MimError: naming the setting.
    """
    kind = chosen.kind or default_kind(encoder)
    unread = {"linear": ("width", "depth", "heads"), "unet": ("heads",), "fcmae": ("heads",)}
    for name in unread.get(kind, ()):
        if getattr(chosen, name) != DecoderConfig.model_fields[name].default:
            raise MimError(f"decoder.{name} is not read by decoder.kind={kind}; leave it out")


def check_targets(chosen: TargetConfig) -> None:
    """Refuses a sum of nothing, and settings of targets that are not there.

    Raises:
        MimError: naming the setting.
    """
    if not (chosen.pixels or chosen.hog or chosen.spectral or chosen.latent):
        raise MimError("target: there is nothing to find, as pixels, hog, spectral and latent are all 0; raise one")
    if not chosen.latent:
        for name in ("distill_visible", "teacher_decay", "teacher_schedule", "teacher_blocks"):
            if getattr(chosen, name) != TargetConfig.model_fields[name].default:
                raise MimError(
                    f"target.{name}: is of a teacher without latent target; give target.latent=1, or leave it"
                )
    if not chosen.pixels and not chosen.normalize_pixels:
        raise MimError("target.normalize_pixels=false: is of pixels, and target.pixels is 0; leave it, or raise that")


def build_targets(
    encoder: Encoder, chosen: TargetConfig
) -> tuple[list[tuple[Target, float]], tuple[VisibleDistillation, float] | None]:
    """Builds the targets whose weight is above 0, and what holds visible tokens against a teacher if that is wanted.

    Raises:
        MimError: the encoder cannot have such a target.
    """
    targets: list[tuple[Target, float]] = []
    if chosen.pixels:
        targets.append((PixelTarget(encoder, chosen.normalize_pixels), chosen.pixels))
    if chosen.hog:
        targets.append((HogTarget(encoder), chosen.hog))
    if chosen.spectral:
        targets.append((SpectralTarget(encoder), chosen.spectral))
    if not chosen.latent:
        return targets, None
    latent = LatentTarget(encoder, chosen.teacher_decay, chosen.teacher_schedule, chosen.teacher_blocks)
    targets.append((latent, chosen.latent))
    if not chosen.distill_visible:
        return targets, None
    return targets, (VisibleDistillation(encoder, latent), chosen.distill_visible)


def load_pretrained_task(run: Path, config: PretrainConfig) -> MaskedImageModel:
    """Builds the model of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    # what the encoder started from need not be at hand any more
    encoder = config.encoder.model_copy(update={"weights": None, "pretrained": False})
    task = build_task(config.model_copy(update={"encoder": encoder}))
    try:
        task.load_state_dict(load_weights(run / "model.safetensors"))
    except RuntimeError as error:
        raise MimError(f"{run / 'model.safetensors'}: does not fit config.yaml beside it") from error
    return task
