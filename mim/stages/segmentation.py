"""Fine-tuning on pixels: a segmenter behind an encoder, behind a masker."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from mim.config import FinetuneConfig
from mim.data import LabelledFilm
from mim.data.annotations import Annotations, Lesion
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import FilmDataset, evaluation_loader
from mim.data.outlines import Polygons
from mim.errors import MimError
from mim.evaluation import PixelCounts
from mim.evaluation.segmentation_classes import check_class_names
from mim.models import Encoder
from mim.stages.annotated_films import (
    AnnotatedFilms,
    annotated_films,
    check_annotated_settings,
    classes_in_words,
    count_boxes,
)
from mim.stages.classifier import TaskDescription, first_encoder, load_finished
from mim.stages.common import NetworkInput, content_hash
from mim.stages.detection import check_mirroring
from mim.stages.downstream import Downstream, train_downstream
from mim.stages.finetune import count_met
from mim.stages.made_for import MadeFor
from mim.stages.masked_parts import MaskedParts
from mim.stages.masker import build_masker, dense_training, frozen_encoder, load_tokens, rebuilding_error
from mim.stages.score_source import start_source
from mim.stages.tuning import tune_encoder
from mim.tasks import MaskedSegmenter, RebuildingError
from mim.training import Monitor, load_weights


def finetune_segmenter(config: FinetuneConfig) -> Path:
    """Trains a segmenter as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_segmentation_settings(config)
    encoder, meets = first_encoder(config)
    reads, source = frozen_encoder(config, encoder.image_size), start_source(config, encoder, meets)
    masker = build_masker(config.masker, encoder, reads, source)
    load_tokens(masker, Path(str(config.init)))
    task, found, classes = _first_task(config, encoder, meets, masker)
    description = TaskDescription(
        encoder.spec,
        meets.mean,
        meets.std,
        classes,
        outline_hash(found),
        count_met(config, found.films, found.splits),
        reads,
    )
    size = encoder.image_size
    watched = make_segmentation_dataset(config, found, found.splits.val, size, training=False)
    trained_on = [film.index for film in found.splits.train]
    work = Downstream(
        task=task,
        description=description,
        splits=found.splits,
        said=count_boxes(found).replace("boxes", "lesions"),
        samples=make_segmentation_dataset(config, found, found.splits.train, size, training=True),
        fingerprint={"films": content_hash(found.films, trained_on), "split": description.split_hash},
        validation=SegmentationValidation(watched, config.training.batch_size, classes),
        monitor=Monitor("val/dice"),
        made_for=MadeFor.of(found.films, trained_on),
        watched=watched,
    )
    return train_downstream(config, work)


def _first_task(
    config: FinetuneConfig, encoder: Encoder, meets: NetworkInput, masker: nn.Module | None
) -> tuple[MaskedSegmenter, AnnotatedFilms, tuple[str, ...]]:
    """The segmenter that training starts from, the films, and what is drawn; what does not fit is told first."""
    teacher = rebuilding_error(config, encoder)
    task = _untuned(config, encoder, meets, 1, masker, teacher)
    found = outlined_films(config)
    classes = classes_of(config, found)
    if len(classes) > 1:
        task = _untuned(config, encoder, meets, len(classes), masker, teacher)
    tune_encoder(config, task)
    return task, found, classes


def check_segmentation_settings(config: FinetuneConfig) -> None:
    """Refuses what a segmenter cannot have, and what it would not read.

    Raises:
        MimError: in one line.
    """
    if config.data.boxes is None:
        raise MimError(
            "data.boxes is not set: task=segment learns from pixels; give data.boxes=<COCO file in data.path> with "
            "polygons or run lengths"
        )
    check_annotated_settings(config)
    dense_training(config.masker, "segment")


def outlined_films(config: FinetuneConfig) -> AnnotatedFilms:
    """Opens the films, reads what is annotated and whose they are, and divides them by patient.

    Raises:
        MimError: a file or column is missing, the split cannot be used, no training film has a lesion, or one is
            annotated by a box alone and boxes are not to be filled.
    """
    found = annotated_films(config)
    refuse_bare_boxes(found.annotations, (*found.splits.train, *found.splits.val, *found.splits.test), config)
    return found


def refuse_bare_boxes(annotations: Annotations, films: Sequence[LabelledFilm], config: FinetuneConfig) -> None:
    """Refuses lesions that are annotated by a box alone, where boxes are not to be filled.

    Raises:
        MimError: naming the first.
    """
    lesions = [(film, lesion) for film in films for lesion in annotations.of(film.index)]
    bare = [film.image_id for film, lesion in lesions if lesion.outline is None]
    if bare and config.segment.boxes == "refuse":
        raise MimError(
            f"{annotations.path}: {len(bare)} of {len(lesions)} annotations are boxes without pixels (the first "
            f"is on film {bare[0]}): task=segment needs polygons or run lengths; give segment.boxes=fill to count "
            "whole boxes as lesion"
        )


def outline_hash(found: AnnotatedFilms) -> str:
    """Hash of who is in which split, and of which pixels are annotated where."""
    digest = hashlib.sha256(found.hash().encode())
    films = (*found.splits.train, *found.splits.val, *found.splits.test)
    for film in sorted(films, key=lambda film: film.image_id):
        own = sorted(_outline_hash(lesion) for lesion in found.annotations.of(film.index))
        digest.update("".join([film.image_id, *own]).encode())
    return digest.hexdigest()


def _outline_hash(lesion: Lesion) -> str:
    digest = hashlib.sha256()
    if isinstance(lesion.outline, Polygons):
        for corners in lesion.outline.corners:
            digest.update(corners.round(6).tobytes() + b";")
    elif lesion.outline is not None:
        runs = lesion.outline
        digest.update(runs.ends.tobytes() + repr((runs.height, runs.width, runs.part)).encode())
    return digest.hexdigest()


def classes_of(config: FinetuneConfig, found: AnnotatedFilms) -> tuple[str, ...]:
    """What is drawn, a map each: all categories together, or each for itself.

    Raises:
        MimError: apart, a category has no lesion on a training film, or a name that no table can hold; or films are
            mirrored whose categories are teeth.
    """
    categories = found.annotations.categories
    if config.segment.classes == "together" or len(categories) == 1:
        return (" or ".join(categories),)
    check_class_names(categories)
    check_mirroring(config, categories)
    known = {lesion.category for film in found.splits.train for lesion in found.annotations.of(film.index)}
    if absent := [name for name in categories if name not in known]:
        raise MimError(
            f"{found.annotations.path}: no training film has a lesion of {', '.join(absent)}, so there is nothing to "
            "learn of it with segment.classes=apart; name the other categories in data.lesion_categories"
        )
    return categories


def lesions_by_class(lesions: Sequence[Lesion], classes: int) -> tuple[list[Lesion], ...]:
    """Divides lesions by the map that they are drawn on: all on one, or each on that of its category."""
    if classes == 1:
        return (list(lesions),)
    return tuple([lesion for lesion in lesions if lesion.label == place] for place in range(classes))


def pixels_of(classes: Sequence[str]) -> str:
    """What is drawn, in words."""
    return f"the pixels of {classes_in_words(classes)}"


def build_segmenter(
    config: FinetuneConfig,
    encoder: Encoder,
    meets: NetworkInput,
    classes: int,
    masker: nn.Module | None,
    rebuilding: RebuildingError | None = None,
) -> MaskedSegmenter:
    """Builds the segmenter around an encoder.

    Args:
        config: its settings.
        encoder: with its weights.
        meets: how pixels are normalised.
        classes: number of maps.
        masker: in front of it.
        rebuilding: what teaches the masker by rebuilding, in training.

    Raises:
        MimError: masker, head and encoder do not go together.
    """
    task = _untuned(config, encoder, meets, classes, masker, rebuilding)
    tune_encoder(config, task)
    return task


def _untuned(
    config: FinetuneConfig,
    encoder: Encoder,
    meets: NetworkInput,
    classes: int,
    masker: nn.Module | None,
    rebuilding: RebuildingError | None,
) -> MaskedSegmenter:
    segment = config.segment
    try:
        return MaskedSegmenter(
            encoder,
            masker,
            num_classes=classes,
            head=segment.head,
            channels=segment.channels,
            finest=segment.finest,
            loss=segment.loss,
            mean=meets.mean,
            std=meets.std,
            mask_training=dense_training(config.masker, "segment"),
            rebuilding=rebuilding,
        )
    except ValueError as error:
        raise MimError(f"segment: {error}") from error


def rebuild_segmenter(
    run: Path, config: FinetuneConfig, description: TaskDescription, weights: Mapping[str, Tensor]
) -> MaskedSegmenter:
    """Builds the segmenter of a run as it was trained, for weights that have yet to be loaded."""
    return _build_again(run, config, description, learns=True)


def _build_again(run: Path, config: FinetuneConfig, description: TaskDescription, *, learns: bool) -> MaskedSegmenter:
    parts = MaskedParts.of_run(run, config, description, learns=learns)
    classes = len(description.classes)
    return build_segmenter(config, parts.encoder, parts.meets, classes, parts.masker, parts.rebuilding)


def load_segmenter(run: Path, config: FinetuneConfig, description: TaskDescription) -> MaskedSegmenter:
    """Builds the segmenter of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    weights = load_weights(run / "model.safetensors")
    task = _build_again(run, config, description, learns=False)
    load_finished(run, task, weights)
    return task.eval()


def make_segmentation_dataset(
    config: FinetuneConfig,
    found: AnnotatedFilms,
    chosen: Sequence[LabelledFilm],
    image_size: tuple[int, int],
    *,
    training: bool,
) -> FilmDataset:
    """Films with the pixels of lesions; in training each is cropped, flipped and changed in exposure at random."""
    apart = config.segment.classes == "apart"
    return FilmDataset(
        found.films,
        [film.index for film in chosen],
        train_transform(config.augment, image_size) if training else evaluation_transform(image_size),
        config.seed,
        integers=training,
        lesions=found.annotations.lesions,
        planes=len(found.annotations.categories) if apart else 1,
    )


@torch.no_grad()
def draw_maps(
    task: nn.Module, dataset: FilmDataset, batch_size: int, device: torch.device, *, shown: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Runs a segmenter, in evaluation mode, over films, in order.

    Args:
        task: the segmenter, on the device.
        dataset: the films.
        batch_size: films at a time.
        device: where the segmenter is.
        shown: whether a bar is drawn.

    Yields:
        For each film (K, H, W) the probability of each class, in pixels of what the network met, and (gh, gw) what it
        saw.
    """
    loader = evaluation_loader(dataset, batch_size=batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None if shown else True):
        out = task({"image": batch["image"].to(device)})
        yield from zip(out["logits"].float().sigmoid().cpu(), out["visible"].cpu(), strict=True)


def at_size(probability: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities (H, W) interpolated to another height and width, float64."""
    wide = F.interpolate(probability[None, None].double(), size=size, mode="bilinear", align_corners=False)
    return wide[0, 0].clamp(0, 1)


class SegmentationValidation:
    """Measures the validation films at the end of each epoch.

    Args:
        dataset: the validation films.
        batch_size: films at a time.
        classes: what is drawn, one map each.
    """

    def __init__(self, dataset: FilmDataset, batch_size: int, classes: Sequence[str] = ("lesion",)) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.classes = tuple(classes)

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Gives Dice of all pixels at the best threshold (not a number where there is no lesion), and the loss.

        Both are in pixels of what the network met. Of several classes `val/dice` is the mean over those that have a
        lesion, each at its own threshold, and `val/dice_<class>` is each one's.
        """
        device = next(module.parameters()).device
        counts = [PixelCounts() for _ in self.classes]
        losses = []
        for batch in evaluation_loader(self.dataset, batch_size=self.batch_size, workers=0):
            out = module({name: batch[name].to(device) for name in ("image", "lesion")})
            losses.append(float(out["loss"]) * len(batch["image"]))
            for probability, lesion in zip(out["logits"].float().sigmoid().cpu(), batch["lesion"], strict=True):
                for place, own in enumerate(counts):
                    own.add(probability[place].numpy(), lesion[place].numpy())
        return {**self._figures(counts), "val/loss": sum(losses) / max(1, counts[0].images)}

    def _figures(self, counts: Sequence[PixelCounts]) -> dict[str, float]:
        best = [float(own.dice().max()) if own.truth else math.nan for own in counts]
        if len(counts) == 1:
            chosen = counts[0].choose().value
            return {"val/dice": best[0], "val/threshold": math.nan if chosen is None else chosen}
        known = [value for value in best if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        return {"val/dice": mean, **{f"val/dice_{name}": own for name, own in zip(self.classes, best, strict=True)}}
