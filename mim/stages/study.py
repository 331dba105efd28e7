"""Fine-tuning on studies: a head over the films of each, behind a masker that weighs them."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from mim.config import FinetuneConfig
from mim.data import PreparedDataset, Splits, dataset_salt, split_hash
from mim.data.annotations import Annotations
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import evaluation_loader
from mim.data.studies import ABSENT, Study, StudySplits, films_of, group_studies, split_studies
from mim.data.study_loader import StudyDataset
from mim.errors import MimError
from mim.masking import SequenceMasker
from mim.models import Encoder
from mim.stages.classifier import TaskDescription, first_encoder, load_finished
from mim.stages.common import NetworkInput, content_hash
from mim.stages.downstream import Downstream, train_downstream
from mim.stages.finetune import count_met, divide, inverse_frequencies, join_labels, known_lesions
from mim.stages.made_for import MadeFor
from mim.stages.masked_parts import MaskedParts
from mim.stages.masker import (
    build_masker,
    check_lesions,
    frozen_encoder,
    load_tokens,
    mask_training,
    rebuilding_error,
)
from mim.stages.score_source import start_source
from mim.stages.tuning import tune_encoder
from mim.tasks import MaskedStudyClassifier, RebuildingError
from mim.training import Monitor, load_weights


@dataclass(frozen=True, eq=False)
class LabelledStudies:
    """Studies by split, and the films that they are of."""

    films: PreparedDataset
    splits: Splits
    studies: StudySplits

    def hash(self) -> str:
        """Hash of who is in which split, and of which films each study is made, in which order and with which label."""
        rows = self.films.rows
        told = [
            (study.study_id, study.label, ["" if film == ABSENT else rows[film].image_id for film in study.films])
            for part in (self.studies.train, self.studies.val, self.studies.test)
            for study in part
        ]
        return hashlib.sha256(json.dumps([split_hash(self.splits), sorted(told)]).encode()).hexdigest()


def finetune_studies(config: FinetuneConfig) -> Path:
    """Trains a classifier of studies as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_study_settings(config)
    encoder, meets = first_encoder(config)
    reads, source = frozen_encoder(config, encoder.image_size), start_source(config, encoder, meets)
    teacher = rebuilding_error(config, encoder)
    found = labelled_studies(config)
    labels = [study.label for study in found.studies.train]
    classes = found.studies.classes
    description = TaskDescription(
        encoder.spec, meets.mean, meets.std, classes, found.hash(), count_met(config, found.films, found.splits), reads
    )
    weights = inverse_frequencies(labels, len(classes)) if config.class_weights else None
    film_masker = build_masker(config.masker, encoder, reads, source)
    load_tokens(film_masker, Path(str(config.init)))
    lesions = known_lesions(config.data, found.films) if config.masker.kind == "learned" else None
    taught = lesions if config.masker.supervised else None
    size = encoder.image_size
    work = Downstream(
        task=build_study_classifier(config, encoder, meets, len(classes), weights, film_masker, teacher),
        description=description,
        splits=found.splits,
        said=count_studies(found.studies),
        samples=make_study_dataset(config, found.films, found.studies.train, size, training=True, annotations=taught),
        fingerprint={
            "films": content_hash(found.films, list(films_of(found.studies.train))),
            "split": description.split_hash,
        },
        validation=StudyValidation(
            make_study_dataset(config, found.films, found.studies.val, size, training=False),
            config.training.batch_size,
        ),
        monitor=Monitor("val/auroc"),
        made_for=MadeFor.of(found.films, list(films_of(found.studies.train))),
        watched=make_study_dataset(config, found.films, found.studies.val, size, training=False, annotations=lesions),
    )
    return train_downstream(config, work)


def check_study_settings(config: FinetuneConfig) -> None:
    """Refuses what a study cannot have.

    Raises:
        MimError: in one line.
    """
    check_lesions(config)
    if config.masker.kind == "learned":
        mask_training(config.masker)  # which refuses what contradicts itself
    if config.study.masker == "none" and config.study.keep is not None:
        raise MimError("study.keep needs weights to go by: give study.masker=sequence, or leave study.keep out")
    if config.study.freeze_encoder and config.tuning != "full":
        raise MimError(
            f"study.freeze_encoder=true and tuning={config.tuning} both say what of the encoder learns; give one"
        )
    fresh = config.encoder is None or not (config.encoder.pretrained or config.encoder.weights)
    if config.study.freeze_encoder and fresh and (config.init is None or not config.init_weights):
        raise MimError("study.freeze_encoder=true would freeze fresh weights: give init=<run>, or encoder.weights")


def labelled_studies(config: FinetuneConfig) -> LabelledStudies:
    """Opens the films, joins their labels, groups them into studies and divides these by patient.

    Raises:
        MimError: a setting, file or column is missing, or studies or split cannot be used.
    """
    films, labelled = join_labels(config)
    splits = divide(config, labelled)
    salt = dataset_salt(films, Path(config.data.cache))
    studies = group_studies(
        films,
        Path(config.data.path),
        labelled,
        salt,
        label=config.data.study_label,
        max_films=config.data.max_films,
    )
    return LabelledStudies(films, splits, split_studies(studies, splits, labelled.path))


def build_study_classifier(
    config: FinetuneConfig,
    encoder: Encoder,
    meets: NetworkInput,
    classes: int,
    class_weights: Tensor | None,
    film_masker: nn.Module | None,
    rebuilding: RebuildingError | None = None,
) -> MaskedStudyClassifier:
    """Builds the classifier around an encoder.

    Args:
        config: its settings.
        encoder: with its weights.
        meets: how pixels are normalised.
        classes: number of classes.
        class_weights: of the cross entropy, or None.
        film_masker: in front of each film.
        rebuilding: what teaches the film masker by rebuilding, in training.
    """
    study = config.study
    masker = None
    if study.masker == "sequence":
        masker = SequenceMasker(encoder.width, study.hidden, study.cell, study.bidirectional, study.layers, study.keep)
    task = MaskedStudyClassifier(
        encoder,
        masker=masker,
        film_masker=film_masker,
        num_classes=classes,
        class_weights=class_weights,
        smoothing=config.smoothing,
        freeze_encoder=study.freeze_encoder,
        mean=meets.mean,
        std=meets.std,
        mask_training=mask_training(config.masker) if config.masker.kind == "learned" else None,
        rebuilding=rebuilding,
    )
    tune_encoder(config, task)
    return task


def rebuild_study_classifier(
    run: Path, config: FinetuneConfig, description: TaskDescription, weights: Mapping[str, Tensor]
) -> MaskedStudyClassifier:
    """Builds the classifier of a run as it was trained, for weights that have yet to be loaded."""
    return _build_again(run, config, description, weights, learns=True)


def _build_again(
    run: Path, config: FinetuneConfig, description: TaskDescription, weights: Mapping[str, Tensor], *, learns: bool
) -> MaskedStudyClassifier:
    parts = MaskedParts.of_run(run, config, description, learns=learns)
    classes = len(description.classes)
    return build_study_classifier(
        config, parts.encoder, parts.meets, classes, weights.get("class_weights"), parts.masker, parts.rebuilding
    )


def load_study_classifier(run: Path, config: FinetuneConfig, description: TaskDescription) -> MaskedStudyClassifier:
    """Builds the classifier of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    weights = load_weights(run / "model.safetensors")
    task = _build_again(run, config, description, weights, learns=False)
    load_finished(run, task, weights)
    return task.eval()


def make_study_dataset(
    config: FinetuneConfig,
    films: PreparedDataset,
    studies: Sequence[Study],
    image_size: tuple[int, int],
    *,
    training: bool,
    annotations: Annotations | None = None,
) -> StudyDataset:
    """Labelled studies; in training each film is cropped, flipped and changed in exposure at random.

    What is annotated is in samples as `lesion`, where it is given.
    """
    transform = train_transform(config.augment, image_size) if training else evaluation_transform(image_size)
    lesions = None if annotations is None else annotations.lesions
    return StudyDataset(films, studies, transform, config.seed, integers=training, lesions=lesions)


def count_studies(studies: StudySplits) -> str:
    """How many studies, films and patients each split has."""
    parts = []
    for name, own in (("training", studies.train), ("validation", studies.val), ("test", studies.test)):
        counts = Counter(studies.classes[study.label] for study in own)
        classes = ", ".join(f"{counts[label]} of class {label}" for label in studies.classes)
        patients = len({study.patient_id for study in own})
        films = sum(1 for _ in films_of(own))
        parts.append(f"{name} {len(own)} studies with {films} films of {patients} patients ({classes})")
    return "; ".join(parts)


class StudyValidation:
    """Measures the validation studies at the end of each epoch.

    Args:
        dataset: the validation studies.
        batch_size: studies at a time.
    """

    def __init__(self, dataset: StudyDataset, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Gives AUROC (not a number where there is one class only), loss, and the share looked at."""
        device = next(module.parameters()).device
        scores, labels, losses, kept = [], [], [], []
        for batch in evaluation_loader(self.dataset, batch_size=self.batch_size, workers=0):
            out = module({name: batch[name].to(device) for name in ("image", "present", "label")})
            scores.append(out["logits"].float().softmax(dim=1)[:, 1].cpu())
            labels.append(batch["label"])
            losses.append(float(out["loss"]) * len(batch["label"]))
            kept.append(out["keep_rate"].float().cpu())
        score, label = torch.cat(scores), torch.cat(labels)
        auroc = float(binary_auroc(score, label)) if 0 < int(label.sum()) < len(label) else math.nan
        return {"val/auroc": auroc, "val/loss": sum(losses) / len(label), "val/keep": float(torch.cat(kept).mean())}
