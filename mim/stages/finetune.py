"""Fine-tuning: a classification head behind an encoder, behind a masker."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc

from mim.config import FinetuneConfig, LabelledDataConfig, dump_config
from mim.data import (
    LabelledFilm,
    LabelledFilms,
    PreparedDataset,
    Splits,
    attach_labels,
    check_unseen,
    dataset_salt,
    limit_training,
    load_seen,
    save_splits,
    split_films,
    split_hash,
    take_label_fraction,
)
from mim.data.annotations import Annotations, read_annotations
from mim.data.augment import evaluation_transform, train_transform
from mim.data.learnable import check_learnable
from mim.data.loader import FilmDataset, evaluation_loader
from mim.errors import MimError
from mim.evaluation.label_questions import mean_auroc
from mim.models.features import at_resolution
from mim.stages.classifier import TaskDescription, build_classifier, first_encoder
from mim.stages.common import (
    TrainBatches,
    content_hash,
    finish,
    logger,
    open_films,
    say_finished,
    steps_per_epoch,
    writing,
)
from mim.stages.label_kinds import check_label_settings, known_counts, label_kind, positive_weights, task_labels
from mim.stages.made_for import MadeFor
from mim.stages.mask_watch import describe_scores
from mim.stages.masker import check_lesions, frozen_encoder, load_tokens, masker_ready, rebuilding_error
from mim.stages.score_source import save_source
from mim.stages.tooth_labels import check_crop_settings, join_tooth_labels
from mim.stages.tuning import count_learning
from mim.tasks.classification import to_probabilities
from mim.training import Monitor, Plan, make_fabric, on_rank_zero, open_run, train_task


def finetune(config: FinetuneConfig) -> Path:
    """Trains a classifier as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_crop_settings(config.data)
    check_lesions(config)
    check_label_settings(config)
    check_imbalance(config)
    encoder, meets = first_encoder(config)
    reads = frozen_encoder(config, encoder.image_size)
    films, splits = labelled_films(config)
    classes = splits.labels or splits.classes
    description = TaskDescription(
        encoder.spec, meets.mean, meets.std, classes, split_hash(splits), count_met(config, films, splits), reads
    )
    labels = [film.label for film in splits.train]
    weights = weigh_classes(splits) if config.class_weights else None
    teacher = rebuilding_error(config, encoder)
    task = build_classifier(config, encoder, meets, len(classes), weights, reads, teacher)
    load_tokens(task.masker, Path(str(config.init)))
    # layers that timm builds and this task never asks have no gradient, nor has a part while it is not trained
    fabric = make_fabric(config.training, find_unused_parameters=True)
    with open_run(fabric, Path(str(config.output)), dump_config(config)) as folder:
        if (summary := folder.read_finished()) is not None:
            on_rank_zero(fabric, lambda: say_finished(folder, summary))
            return folder.path

        def begin() -> None:
            with writing(folder.path):
                save_splits(folder.path / "splits.csv", splits)
                description.save(folder.path)
                MadeFor.of(films, [film.index for film in splits.train]).save(folder.path)
                save_source(config, folder.path)
            logger.info("%s", count_films(splits))
            if isinstance(config.data.target, str) and config.data.label_kind != "ordered":
                for line in say_positive(classes, config.data.target):
                    logger.info("%s", line)
            logger.info("%s", count_learning(config, task))

        per_epoch = steps_per_epoch(config, len(splits.train), fabric.world_size)
        plan = Plan.from_config(config.training, per_epoch)
        ready = masker_ready(config, plan)
        lesions = known_lesions(config.data, films) if config.masker.kind == "learned" else None
        taught = lesions if config.masker.supervised else None
        dataset = make_dataset(config, films, splits.train, encoder.image_size, training=True, annotations=taught)
        watched = make_dataset(config, films, splits.val, encoder.image_size, training=False, annotations=lesions)
        outcome = train_task(
            fabric,
            task,
            TrainBatches(dataset, config, fabric, plan.total_steps, labels if config.sampling == "balanced" else None),
            config=config,
            folder=folder,
            steps_per_epoch=per_epoch,
            fingerprint={
                "films": content_hash(films, [film.index for film in splits.train]),
                "split": description.split_hash,
            },
            on_epoch_end=Validation(watched, config, ready, classes),
            monitor=Monitor("val/auroc", since=ready),
            on_begin=begin,
        )
        on_rank_zero(fabric, lambda: finish(folder, task, outcome, f"next: python evaluate.py {folder.path}"))
        return folder.path


def labelled_films(config: FinetuneConfig) -> tuple[PreparedDataset, Splits]:
    """Opens the films, joins their labels, divides them by patient, and takes as many to train on as are wanted.

    Raises:
        MimError: a setting, file or column is missing, or the split cannot be used.
    """
    films, labelled = join_labels(config)
    return films, divide(config, labelled)


def join_labels(config: FinetuneConfig) -> tuple[PreparedDataset, LabelledFilms]:
    """Opens the films and joins their labels.

    Raises:
        MimError: a setting, file or column is missing.
    """
    data = config.data
    if data.crops is not None:
        return join_tooth_labels(data)
    if data.labels is None or data.target is None:
        missing = "labels" if data.labels is None else "target"
        raise MimError(f"data.{missing} is not set: give data.labels=<CSV in data.path> and data.target=<its column>")
    films = open_films(data)
    salt = dataset_salt(films, Path(data.cache))
    kind = "two" if config.task != "classify" else data.label_kind
    labelled = attach_labels(films, Path(data.path), data.labels, data.target, salt, kind=kind, order=data.label_order)
    known_lesions(data, films)  # evaluate.py draws them: it must not be the first to find that they are wrong
    return films, labelled


def divide(config: FinetuneConfig, labelled: LabelledFilms) -> Splits:
    """Divides labelled films by patient, and takes as many to train on as are wanted.

    Raises:
        MimError: the split cannot be used.
    """
    data = config.data
    splits = split_films(
        labelled,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        split_by=data.split_by,
        folds=data.folds,
        fold=data.fold,
        copies=data.copies_across_splits,
    )
    splits = take_label_fraction(splits, data.label_fraction, config.seed)
    splits = limit_training(splits, data.train_limit, config.seed)
    if splits.labels or len(splits.classes) > 2:
        check_learnable(splits, labelled.path, labelled.target)
    return splits


def known_lesions(data: LabelledDataConfig, films: PreparedDataset) -> Annotations | None:
    """Reads the lesions that `data.boxes` names; None where it names none.

    Raises:
        MimError: the file cannot be used, in one line.
    """
    if data.boxes is None:
        return None
    return read_annotations(films, Path(data.path), data.boxes, data.lesion_categories, data.grades)


def count_met(config: FinetuneConfig, films: PreparedDataset, splits: Splits) -> int:
    """Counts test films that the pretraining run of `init` met.

    Raises:
        MimError: there are some and `data.seen_in_pretraining` says stop; or the run does not say what it met.
    """
    if config.init is None or not config.init_weights:
        return 0
    path = Path(config.init) / "seen.csv"
    if not path.is_file():
        raise MimError(f"{path}: is not there, so which films were met is not known; init must be a run of train.py")
    return check_unseen(splits.test, load_seen(path), films.salt_check, config.data.seen_in_pretraining)


def check_imbalance(config: FinetuneConfig) -> None:
    """Refuses settings against the imbalance of classes that contradict each other.

    Raises:
        MimError: naming them.
    """
    if config.sampling == "balanced" and config.class_weights:
        raise MimError(
            "sampling=balanced and class_weights=true would both make up for the rare class; give class_weights=false"
        )
    if config.loss == "focal" and config.smoothing:
        raise MimError("smoothing is of loss=cross_entropy, and loss is focal; give smoothing=0")


def inverse_frequencies(labels: Sequence[int], classes: int) -> Tensor:
    """(classes,) weights of the classes: mean 1 over the labels of the training."""
    counts = Counter(labels)
    number = torch.tensor([counts[label] for label in range(classes)], dtype=torch.float32)
    return number.sum() / (len(number) * number)


def weigh_classes(splits: Splits) -> Tensor:
    """(classes,) inverse frequencies of the classes in the training; of several labels those of having them."""
    if splits.labels:
        return positive_weights([film.labels for film in splits.train])
    return inverse_frequencies([film.label for film in splits.train], len(splits.classes))


def say_positive(classes: Sequence[str], target: str) -> Iterator[str]:
    """Which of two classes is the positive one where their names are words, whose order nobody thinks of; else nothing.

    Sensitivity is of this class, and a score is its probability.
    """
    if len(classes) != 2 or all(name.replace(".", "", 1).lstrip("+-").isdigit() for name in classes):
        return
    yield (
        f"positive is {classes[1]!r}: of {classes[0]!r} and {classes[1]!r} it comes second in the order of letters; "
        f"write 0 and 1 under {target!r} to have it the other way round"
    )


def count_films(splits: Splits) -> str:
    """How many films and patients each split has."""
    parts = []
    for name, films in (("training", splits.train), ("validation", splits.val), ("test", splits.test)):
        counts = Counter(splits.classes[film.label] for film in films)
        classes = ", ".join(f"{counts[label]} of class {label}" for label in splits.classes)
        if splits.labels:
            known = [known_counts([film.labels for film in films], place) for place in range(len(splits.labels))]
            classes = ", ".join(
                f"{label} {own} of {of} known" for label, (own, of) in zip(splits.labels, known, strict=True)
            )
        parts.append(f"{name} {len(films)} films of {len({film.patient_id for film in films})} patients ({classes})")
    return "; ".join(parts)


def make_dataset(
    config: FinetuneConfig,
    films: PreparedDataset,
    chosen: tuple[LabelledFilm, ...],
    image_size: tuple[int, int],
    *,
    training: bool,
    annotations: Annotations | None = None,
) -> FilmDataset:
    """Labelled films; in training cropped, flipped and changed in exposure at random.

    Args:
        config: what is random, and the seed.
        films: where they are stored.
        chosen: which of them.
        image_size: (height, width) in pixels.
        training: whether they are changed at random.
        annotations: what is to be in samples as `lesion`; None = nothing.
    """
    transform = train_transform(config.augment, image_size) if training else evaluation_transform(image_size)
    several = task_labels(config) == "several"
    return FilmDataset(
        films,
        [film.index for film in chosen],
        transform,
        config.seed,
        labels=[film.labels for film in chosen] if several else [film.label for film in chosen],
        integers=training,
        lesions=None if annotations is None else annotations.lesions,
    )


class Validation:
    """Measures the validation films at the end of each epoch.

    Args:
        dataset: the validation films.
        config: batch size and masker are read.
        ready: steps after which a learned masker should decide.
        classes: names of the classes, or of several labels.
    """

    def __init__(
        self, dataset: FilmDataset, config: FinetuneConfig, ready: int = 0, classes: Sequence[str] = ("0", "1")
    ) -> None:
        self.dataset = dataset
        self.labels = task_labels(config)
        self.kind = label_kind(config, classes)
        self.masker = config.masker
        self.learned = config.masker.kind == "learned"
        self.ready = ready
        self.batch_size = config.training.batch_size

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Gives AUROC (not a number where there is one class only), loss, the share of cells seen, and mask figures.

        Of more than two classes, of grades and of several labels it is the mean over `mim.evaluation.label_questions`.
        The latter are of a masker that learns, with the share of lesion pixels that it shows where lesions are known;
        where it has collapsed, a warning says so.
        """
        device = next(module.parameters()).device
        scores, labels, losses, kept, odds = [], [], [], [], []
        shown, sought = 0.0, 0.0  # pixels of lesions
        for batch in evaluation_loader(self.dataset, batch_size=self.batch_size, workers=0):
            out = module({"image": batch["image"].to(device), "label": batch["label"].to(device)})
            scores.append(to_probabilities(out["logits"].float(), self.labels).cpu())
            labels.append(batch["label"])
            losses.append(float(out["loss"]) * len(batch["label"]))
            kept.append(float(out["keep"]) * len(batch["label"]))
            if self.learned and "scores" in out:
                odds.append(out["scores"].cpu())
            if "lesion" in batch:
                pixels = batch["lesion"]
                visible = at_resolution(out["visible"].float(), (pixels.shape[2], pixels.shape[3])).cpu()
                shown, sought = shown + float((visible * pixels).sum()), sought + float(pixels.sum())
        score, label = torch.cat(scores), torch.cat(labels)
        if self.kind != "two":
            auroc = mean_auroc(score.double().numpy(), label.numpy(), self.kind)
        else:
            auroc = float(binary_auroc(score[:, 1], label)) if 0 < int(label.sum()) < len(label) else math.nan
        figures = {"val/auroc": auroc, "val/loss": sum(losses) / len(label), "val/keep": sum(kept) / len(label)}
        if sought:
            figures["val/lesion_shown"] = shown / sought
        return figures | (self.watch_masker(step, torch.cat(odds)) if odds else {})

    def watch_masker(self, step: int, scores: Tensor) -> dict[str, float]:
        """Figures of how a masker decides, (N, gh, gw) log-odds; warns of one that has collapsed."""
        return describe_scores(step, scores, self.masker, self.ready)
