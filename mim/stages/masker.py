"""The masker in front of an encoder: built from its settings, and from the pretraining run that some of them need."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from torch import nn

from mim.config import FinetuneConfig, MaskerConfig, PretrainConfig, load_config
from mim.errors import MimError
from mim.masking import PatchMasker, ThresholdMasker
from mim.masking.scorers import TokenScorer
from mim.masking.threshold import ScoreSource
from mim.models import Encoder, EncoderSpec, build_encoder, load_encoder_weights, read_exported
from mim.stages.pretrain_model import load_pretrained_task
from mim.tasks import FrozenTokens, MaskTraining, RebuildingError
from mim.tasks.dense import LEAST_SEEN, Marks, check_recipe
from mim.training import Plan

LEAST_RANDOM: Final = 0.1
Dense = Literal["detect", "segment"]
MARKS: Mapping[Dense, Marks] = MappingProxyType({"detect": "boxes", "segment": "pixels"})


@dataclass(frozen=True)
class FrozenEncoder:
    """The encoder whose tokens a masker reads, and how its pixels are normalised."""

    spec: EncoderSpec
    mean: float
    std: float

    @classmethod
    def read(cls, content: dict[str, Any]) -> Self:
        """Takes back what `asdict` made of one, by way of JSON."""
        fields = dict(content["spec"])
        height, width = fields.pop("image_size")
        spec = EncoderSpec(image_size=(int(height), int(width)), **fields)
        return cls(spec, float(content["mean"]), float(content["std"]))


def frozen_encoder(config: FinetuneConfig, image_size: tuple[int, int]) -> FrozenEncoder | None:
    """Finds which encoder the masker reads, if it reads one: that of `init`, at the size of the films met now.

    Raises:
        MimError: there is no `init`.
    """
    if config.masker.kind != "learned" or config.masker.scorer != "tokens":
        return None
    if config.init is None:
        raise MimError("masker.scorer=tokens: reads a pretrained encoder; give init=<run of train.py>, or scorer=cnn")
    exported = read_exported(Path(config.init))
    spec = EncoderSpec(**{**asdict(exported.spec), "image_size": image_size})
    return FrozenEncoder(spec, exported.mean, exported.std)


def build_masker(
    config: MaskerConfig, encoder: Encoder, frozen: FrozenEncoder | None = None, source: ScoreSource | None = None
) -> nn.Module | None:
    """Builds the masker that a configuration describes, for the encoder's patch grid.

    Args:
        config: its settings.
        encoder: in front of which it stands.
        frozen: whose tokens it reads, where it reads any; its weights are fresh, and have yet to be loaded.
        source: what a threshold masker scores by where its score needs a model (`mim.stages.score_source`).

    Raises:
        MimError: it does not fit the encoder.
    """
    if config.kind == "none":
        return None
    if config.kind == "threshold":
        try:
            return ThresholdMasker(config.threshold, config.score, config.direction, encoder.patch_size, source=source)
        except ValueError as error:
            raise MimError(f"masker.threshold: {error}") from error
    scorer = None
    if frozen is not None:
        tokens = FrozenTokens(build_encoder(frozen.spec), frozen.mean, frozen.std)
        grid = encoder.grid() if config.per == "patch" else encoder.image_size
        scorer = TokenScorer(tokens, tokens.encoder.map_channels[-1], grid, 4 * config.width)
    try:
        return PatchMasker(
            encoder.patch_size,
            encoder.spec.in_chans,
            config.width,
            config.keep,
            config.temperature,
            config.gate,
            config.per,
            config.decide,
            scorer,
        )
    except ValueError as error:
        raise MimError(f"masker: {error}; masker.kind=threshold has no such need") from error


def load_tokens(masker: nn.Module | None, init: Path) -> None:
    """Gives the encoder that a masker reads, if it reads one, the weights of a pretraining run."""
    if isinstance(masker, PatchMasker) and isinstance(masker.scorer, TokenScorer):
        assert isinstance(masker.scorer.tokens, FrozenTokens)
        load_encoder_weights(masker.scorer.tokens.encoder, init)
        masker.scorer.tokens.encoder.requires_grad_(False)


def mask_training(config: MaskerConfig, least: float = LEAST_RANDOM) -> MaskTraining:
    """Takes the recipe from the settings.

    Args:
        config: its settings.
        least: share of cells from which random masks keep where `random_keep` is left open.

    Raises:
        MimError: they contradict each other.
    """
    try:
        return MaskTraining(
            stages=config.stages,
            random_keep=config.random_keep or (least, 1.0),
            random_share=config.random_share,
            task=config.task,
            follow=config.follow,
            supervised=config.supervised,
            reconstruction=config.reconstruction,
            budget=config.budget_weight,
            budget_ramp=config.budget_ramp,
            lr_scale=config.lr_scale,
        )
    except ValueError as error:
        raise MimError(f"masker.{error}") from error


def dense_training(config: MaskerConfig, task: Dense) -> MaskTraining | None:
    """Takes the recipe of a masker in front of a network that marks places; None where it does not learn.

    Args:
        config: its settings.
        task: what the network is trained for.

    Raises:
        MimError: the settings contradict each other, or hide too much for what is marked.
    """
    if config.kind != "learned":
        return None
    recipe = mask_training(config, LEAST_SEEN)
    try:
        check_recipe(recipe, MARKS[task])
    except ValueError as error:
        raise MimError(f"masker.{error}") from error
    if config.gate != "soft" and config.keep < LEAST_SEEN:
        raise MimError(
            f"masker.keep={config.keep:g}: nothing is found in hidden cells; for task={task} give at least "
            f"{LEAST_SEEN:g}, or masker.gate=soft"
        )
    return recipe


def rebuilding_error(config: FinetuneConfig, encoder: Encoder) -> RebuildingError | None:
    """Loads the pretrained model whose error teaches the masker, where that is wanted.

    Raises:
        MimError: there is no `init`, its model is for other films, or the masks cannot be used by it.
    """
    masker = config.masker
    if masker.kind != "learned" or not masker.reconstruction:
        return None
    if config.init is None:
        raise MimError(
            "masker.reconstruction: rebuilds with a pretrained model; give init=<run of train.py>, or reconstruction=0"
        )
    if masker.gate == "soft" or masker.per == "pixel":
        raise MimError("masker.reconstruction: rebuilds hidden cells; give masker.per=patch and a gate other than soft")
    run = Path(config.init)
    if not (run / "model.safetensors").is_file() or not (run / "config.yaml").is_file():
        raise MimError(f"{run}: masker.reconstruction needs the whole pretraining run, decoder too; it is not there")
    model = load_pretrained_task(run, load_config(PretrainConfig, run / "config.yaml", []))
    theirs, ours = model.encoder, encoder
    if (theirs.image_size, theirs.grid()) != (ours.image_size, ours.grid()):
        raise MimError(
            f"masker.reconstruction: {run} rebuilds a grid of {theirs.grid()} cells on {theirs.image_size} pixels, and "
            f"here it is {ours.grid()} on {ours.image_size}; give the same input.image_size, or reconstruction=0"
        )
    return RebuildingError(model)


def check_lesions(config: FinetuneConfig) -> None:
    """Refuses a masker that is to learn from lesions that nobody names.

    Raises:
        MimError: naming the setting.
    """
    if config.masker.kind == "learned" and config.masker.supervised and config.data.boxes is None:
        raise MimError(
            "masker.supervised: learns from lesions, and data.boxes is not set; give data.boxes=<COCO file>, or "
            "masker.supervised=0"
        )


def masker_ready(config: FinetuneConfig, plan: Plan) -> int:
    """The first step whose weights may be kept: half of what a learned masker learns must lie behind it."""
    if config.masker.kind != "learned":
        return 0
    network, masker, together = config.masker.stages
    half = masker / 2 if masker else together / 2
    return math.ceil(plan.total_steps * (network + half))
