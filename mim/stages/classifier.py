"""The classifier of a run: built from its settings, described in task.json, built again from that."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mim.config import EncoderConfig, FinetuneConfig
from mim.errors import MimError
from mim.files import write_atomically
from mim.models import Encoder, EncoderSpec, build_encoder, load_encoder_weights, read_exported
from mim.stages.common import NetworkInput, configured_encoder, logger, resolve_input
from mim.stages.label_kinds import task_labels
from mim.stages.masker import FrozenEncoder, build_masker, mask_training, rebuilding_error
from mim.stages.score_source import source_of_run, start_source
from mim.stages.tuning import check_tuning, tune_encoder
from mim.tasks import MaskedClassifier, RebuildingError
from mim.training import load_weights

FORMAT = 1
DESCRIPTION = "task.json"


@dataclass(frozen=True)
class TaskDescription:
    """What a run of fine-tuning must remember besides its settings and weights.

    Attributes:
        encoder: how to build the encoder.
        mean: normalisation of pixels.
        std: normalisation of pixels.
        classes: names of the classes; a label is a place in this list. Of several labels their names.
        split_hash: who is in which split.
        met_in_pretraining: test films that the pretraining run met.
        masker_encoder: the encoder whose tokens the masker reads; None where it reads none.
    """

    encoder: EncoderSpec
    mean: float
    std: float
    classes: tuple[str, ...]
    split_hash: str
    met_in_pretraining: int
    masker_encoder: FrozenEncoder | None = None

    def save(self, folder: Path) -> None:
        """Writes task.json."""
        write_atomically(folder / DESCRIPTION, json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "TaskDescription":
        """Reads task.json.

        Raises:
            MimError: it is missing, or cannot be understood.
        """
        path = folder / DESCRIPTION
        if not path.is_file():
            raise MimError(f"{folder}: no {DESCRIPTION} in it; it is not a run of finetune.py")
        try:
            content = json.loads(path.read_text())
            encoder = dict(content["encoder"])
            height, width = encoder.pop("image_size")
            if content["format"] != FORMAT:
                raise MimError(f"{path}: format {content['format']}, this version of mim reads {FORMAT}")
            return cls(
                encoder=EncoderSpec(image_size=(int(height), int(width)), **encoder),
                mean=float(content["mean"]),
                std=float(content["std"]),
                classes=tuple(content["classes"]),
                split_hash=str(content["split_hash"]),
                met_in_pretraining=int(content["met_in_pretraining"]),
                masker_encoder=FrozenEncoder.read(content["masker_encoder"]) if content.get("masker_encoder") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise MimError(f"{path}: cannot be understood ({type(error).__name__}: {error})") from error


def first_encoder(config: FinetuneConfig) -> tuple[Encoder, NetworkInput]:
    """Builds the encoder to start from: that of `init` with its weights, or a fresh one.

    Raises:
        MimError: `init` is no finished run, or holds another architecture than the one asked for, or the encoder cannot
            be tuned as asked.
    """
    torch.manual_seed(config.seed)
    encoder, meets = _untuned_encoder(config)
    check_tuning(config, encoder)
    return encoder, meets


def _untuned_encoder(config: FinetuneConfig) -> tuple[Encoder, NetworkInput]:
    if config.init is None:
        meets = resolve_input(config.input)
        return configured_encoder(config.encoder or EncoderConfig(), meets.image_size), meets
    if config.init_weights and config.encoder is not None and config.encoder.weights is not None:
        raise MimError("encoder.weights and init both say what to start from; give one of them")
    run = Path(config.init)
    exported = read_exported(run)
    meets = resolve_input(config.input, NetworkInput(exported.spec.image_size, exported.mean, exported.std))
    if config.encoder is not None:
        encoder = configured_encoder(config.encoder, meets.image_size)
    else:
        spec = EncoderSpec(**{**asdict(exported.spec), "image_size": meets.image_size})
        encoder = build_encoder(spec)
    if config.init_weights:
        logger.info("encoder from %s: %s", run, load_encoder_weights(encoder, run))
    return encoder, meets


def build_classifier(
    config: FinetuneConfig,
    encoder: Encoder,
    meets: NetworkInput,
    classes: int,
    class_weights: Tensor | None,
    masker_encoder: FrozenEncoder | None = None,
    rebuilding: RebuildingError | None = None,
    run: Path | None = None,
) -> MaskedClassifier:
    """Builds the classifier around an encoder: to be trained, or that of a finished run, whose weights come later.

    Args:
        config: settings of the run.
        encoder: with its weights.
        meets: how pixels are normalised.
        classes: number of classes, of grades, or of labels.
        class_weights: of the cross entropy, or None.
        masker_encoder: whose tokens the masker reads, if it does; its weights have yet to be loaded.
        rebuilding: what teaches the masker by rebuilding, in training.
        run: the finished run, or None.

    Args:
        config: its settings.
        encoder: that is behind it.
        source: what a threshold masker scores by where its score needs a model (`mim.stages.score_source`).

    Raises:
        MimError: the masker does not fit the encoder, or its settings contradict each other.
    """
    source = start_source(config, encoder, meets) if run is None else source_of_run(config, encoder, meets, run)
    masker = build_masker(config.masker, encoder, masker_encoder, source)
    task = MaskedClassifier(
        encoder,
        num_classes=classes,
        masker=masker,
        class_weights=class_weights,
        smoothing=config.smoothing,
        mask_training=mask_training(config.masker) if config.masker.kind == "learned" else None,
        mean=meets.mean,
        std=meets.std,
        rebuilding=rebuilding,
        focal_gamma=config.focal_gamma if config.loss == "focal" else None,
        labels=task_labels(config),
    )
    tune_encoder(config, task)
    return task


def rebuild_classifier(
    run: Path, config: FinetuneConfig, description: TaskDescription, weights: Mapping[str, Tensor]
) -> MaskedClassifier:
    """Builds the classifier of a run as it was trained, for weights that have yet to be loaded."""
    encoder = build_encoder(description.encoder)
    return build_classifier(
        config,
        encoder,
        NetworkInput(description.encoder.image_size, description.mean, description.std),
        len(description.classes),
        weights.get("class_weights"),
        description.masker_encoder,
        rebuilding_error(config, encoder),
        run,
    )


def load_classifier(run: Path, config: FinetuneConfig, description: TaskDescription) -> MaskedClassifier:
    """Builds the classifier of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    meets = NetworkInput(description.encoder.image_size, description.mean, description.std)
    weights = load_weights(run / "model.safetensors")
    encoder = build_encoder(description.encoder)
    task = build_classifier(
        config,
        encoder,
        meets,
        len(description.classes),
        weights.get("class_weights"),
        description.masker_encoder,
        run=run,
    )
    load_finished(run, task, weights)
    return task.eval()


def load_finished(run: Path, task: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Loads the weights of a finished run into the task that was built from its settings.

    Raises:
        MimError: they are of another task.
    """
    try:
        task.load_state_dict(weights)
    except RuntimeError as error:
        raise MimError(f"{run / 'model.safetensors'}: does not fit config.yaml and {DESCRIPTION} beside it") from error
