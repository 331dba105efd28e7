"""The frozen model behind a threshold masker whose score needs one, from the settings of a fine-tuning."""

from pathlib import Path

import torch

from mim.config import FinetuneConfig, MaskerConfig, PretrainConfig, dump_config, load_config
from mim.errors import MimError
from mim.files import write_atomically
from mim.masking.threshold import ScoreSource
from mim.models import Encoder
from mim.stages.common import NetworkInput
from mim.stages.pretrain_model import build_task, load_pretrained_task
from mim.tasks import AttentionScore, MaskedImageModel, ReconstructionError

SETTINGS = "score_source.yaml"  # of the pretraining, in the folder of the fine-tuning


def start_source(config: FinetuneConfig, encoder: Encoder, meets: NetworkInput) -> ScoreSource | None:
    """Builds what a masker scores by, with the weights to start from; None where its score needs no model.

    Args:
        config: of the fine-tuning.
        encoder: to be fine-tuned, before its first step.
        meets: how its images are normalised.

    Raises:
        MimError: nothing pretrained is named, or the model cannot give such a score.
    """
    masker, from_run = config.masker, config.init is not None and config.init_weights
    if not _needs_model(masker):
        return None
    if masker.score == "attention":
        chosen = config.encoder
        if not (from_run or (chosen is not None and (chosen.pretrained or chosen.weights is not None))):
            raise MimError(
                "masker.score=attention: the attention of fresh weights means nothing; give init=<run of train.py>, or "
                "encoder.pretrained or encoder.weights"
            )
        return _attention(encoder, meets)
    if not from_run:
        raise MimError(
            "masker.score=reconstruction_error needs a model that rebuilds cells; give init=<run of train.py> (and "
            "leave init_weights true, so that its films are kept out of the test)"
        )
    settings = _read(Path(str(config.init)) / "config.yaml")
    with torch.random.fork_rng(devices=[]):
        return _reconstruction(load_pretrained_task(Path(str(config.init)), settings), settings, encoder)


def source_of_run(config: FinetuneConfig, encoder: Encoder, meets: NetworkInput, run: Path) -> ScoreSource | None:
    """Builds what the masker of a finished fine-tuning scores by; its weights are among those of the run.

    Raises:
        MimError: the run does not say how the pretrained model was built.
    """
    if not _needs_model(config.masker):
        return None
    if config.masker.score == "attention":
        return _attention(encoder, meets)
    settings = _read(run / SETTINGS)
    fresh = settings.encoder.model_copy(update={"weights": None, "pretrained": False})
    return _reconstruction(build_task(settings.model_copy(update={"encoder": fresh})), settings, encoder)


def save_source(config: FinetuneConfig, folder: Path) -> None:
    """Writes how the pretrained model was built beside the fine-tuning, which needs the other run no more."""
    if _needs_model(config.masker) and config.masker.score == "reconstruction_error":
        settings = _read(Path(str(config.init)) / "config.yaml")
        write_atomically(folder / SETTINGS, dump_config(settings))


def _needs_model(masker: MaskerConfig) -> bool:
    return masker.kind == "threshold" and masker.score in ("reconstruction_error", "attention")


def _read(path: Path) -> PretrainConfig:
    if not path.is_file():
        raise MimError(f"{path}: is not there; it says how the model was built that masker.score asks")
    return load_config(PretrainConfig, path)


def _attention(encoder: Encoder, meets: NetworkInput) -> AttentionScore:
    try:
        return AttentionScore(encoder, mean=meets.mean, std=meets.std)
    except ValueError as error:
        raise MimError(f"masker.score=attention: {error}") from error


def _reconstruction(task: MaskedImageModel, settings: PretrainConfig, encoder: Encoder) -> ReconstructionError:
    ratio = settings.masking.ratio
    middle = ratio if isinstance(ratio, float) else sum(ratio) / 2
    try:
        return ReconstructionError(task, middle, grid=encoder.grid())
    except ValueError as error:
        raise MimError(f"masker.score=reconstruction_error: {error}") from error
