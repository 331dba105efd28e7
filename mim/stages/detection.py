"""Fine-tuning on boxes: a detector behind an encoder, behind a masker."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from mim.config import FinetuneConfig
from mim.data import LabelledFilm
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import Batched, FilmDataset
from mim.data.window_loader import DrawnWindows
from mim.data.windows import check_resolution
from mim.errors import MimError
from mim.models import Encoder
from mim.stages.annotated_films import AnnotatedFilms, annotated_films, check_annotated_settings, count_boxes
from mim.stages.classifier import TaskDescription, first_encoder, load_finished
from mim.stages.common import NetworkInput, content_hash
from mim.stages.downstream import Downstream, train_downstream
from mim.stages.finetune import count_met
from mim.stages.found_boxes import DetectionValidation
from mim.stages.made_for import MadeFor
from mim.stages.masked_parts import MaskedParts
from mim.stages.masker import build_masker, dense_training, frozen_encoder, load_tokens, rebuilding_error
from mim.stages.score_source import start_source
from mim.stages.tuning import tune_encoder
from mim.stages.windows import FilmsInWindows, check_window_settings, warn_of_cut_boxes
from mim.tasks import MaskedDetector, RebuildingError
from mim.training import Monitor, load_weights

_TEETH = {f"{quadrant}{tooth}" for quadrant in range(1, 9) for tooth in range(1, 9)}  # FDI numbers


def finetune_detector(config: FinetuneConfig) -> Path:
    """Trains a detector as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_detection_settings(config)
    encoder, meets = first_encoder(config)
    reads, source = frozen_encoder(config, encoder.image_size), start_source(config, encoder, meets)
    teacher = rebuilding_error(config, encoder)
    found = annotated_films(config)
    classes = found.annotations.categories
    check_mirroring(config, classes)
    description = TaskDescription(
        encoder.spec, meets.mean, meets.std, classes, found.hash(), count_met(config, found.films, found.splits), reads
    )
    masker = build_masker(config.masker, encoder, reads, source)
    load_tokens(masker, Path(str(config.init)))
    size = encoder.image_size
    watched = make_detection_dataset(config, found, found.splits.val, size, training=False)
    work = Downstream(
        task=build_detector(config, encoder, meets, len(classes), masker, teacher),
        description=description,
        splits=found.splits,
        said=count_boxes(found),
        samples=make_detection_dataset(config, found, found.splits.train, size, training=True),
        fingerprint={
            "films": content_hash(found.films, [film.index for film in found.splits.train]),
            "split": description.split_hash,
        },
        validation=DetectionValidation(
            watched, found.splits.val, classes, found.annotations, config.training.batch_size, found.films
        ),
        monitor=Monitor("val/ap50"),
        made_for=MadeFor.of(found.films, [film.index for film in found.splits.train]),
        watched=watched.windows if isinstance(watched, FilmsInWindows) else watched,
    )
    return train_downstream(config, work)


def check_detection_settings(config: FinetuneConfig) -> None:
    """Refuses what a detector cannot have, and what it would not read.

    Raises:
        MimError: in one line.
    """
    if config.data.boxes is None:
        raise MimError("data.boxes is not set: task=detect learns from boxes; give data.boxes=<COCO file in data.path>")
    check_annotated_settings(config)
    check_window_settings(config.detect, config.data.tile)
    dense_training(config.masker, "detect")


def check_mirroring(config: FinetuneConfig, classes: Sequence[str]) -> None:
    """Refuses mirrored films where classes are teeth: a mirrored 11 is a 21.

    Raises:
        MimError: naming the setting.
    """
    for key, mirrored in (("horizontal_flip", "left and right"), ("vertical_flip", "upper and lower")):
        if getattr(config.augment, key) and set(classes) <= _TEETH and len(classes) > 1:
            raise MimError(
                f"augment.{key}: the classes of data.boxes are tooth numbers, and a mirrored film has them wrong "
                f"({mirrored}); give augment.{key}=0"
            )


def build_detector(
    config: FinetuneConfig,
    encoder: Encoder,
    meets: NetworkInput,
    classes: int,
    masker: nn.Module | None,
    rebuilding: RebuildingError | None = None,
) -> MaskedDetector:
    """Builds the detector around an encoder.

    Args:
        config: its settings.
        encoder: with its weights.
        meets: how pixels are normalised.
        classes: number of classes.
        masker: in front of it.
        rebuilding: what teaches the masker by rebuilding, in training.

    Raises:
        MimError: masker, head and encoder do not go together.
    """
    detect = config.detect
    try:
        task = MaskedDetector(
            encoder,
            masker,
            classes,
            detect.head,
            detect.channels,
            detect.convolutions,
            detect.finest,
            detect.assignment,
            detect.score_threshold,
            detect.nms_overlap,
            detect.most,
            meets.mean,
            meets.std,
            dense_training(config.masker, "detect"),
            rebuilding,
        )
    except ValueError as error:
        raise MimError(f"detect: {error}") from error
    tune_encoder(config, task)
    return task


def rebuild_detector(
    run: Path, config: FinetuneConfig, description: TaskDescription, weights: Mapping[str, Tensor]
) -> MaskedDetector:
    """Builds the detector of a run as it was trained, for weights that have yet to be loaded."""
    return _build_again(run, config, description, learns=True)


def _build_again(run: Path, config: FinetuneConfig, description: TaskDescription, *, learns: bool) -> MaskedDetector:
    parts = MaskedParts.of_run(run, config, description, learns=learns)
    classes = len(description.classes)
    return build_detector(config, parts.encoder, parts.meets, classes, parts.masker, parts.rebuilding)


def load_detector(run: Path, config: FinetuneConfig, description: TaskDescription) -> MaskedDetector:
    """Builds the detector of a finished run and loads its weights.

    Raises:
        MimError: the weights are missing, damaged or of another model.
    """
    weights = load_weights(run / "model.safetensors")
    task = _build_again(run, config, description, learns=False)
    load_finished(run, task, weights)
    return task.eval()


def make_detection_dataset(
    config: FinetuneConfig,
    found: AnnotatedFilms,
    chosen: Sequence[LabelledFilm],
    image_size: tuple[int, int],
    *,
    training: bool,
) -> Batched:
    """Films with boxes, or windows of them; in training each is cropped, flipped and changed in exposure at random.

    Raises:
        MimError: windows need films that are stored at a higher resolution.
    """
    indices, detect, lesions = [film.index for film in chosen], config.detect, found.annotations.lesions
    if detect.window is not None:
        splits = found.splits
        every = [film.index for film in (*splits.train, *splits.val, *splits.test)]
        check_resolution(found.films, every, detect.window, image_size)
        if not training:
            return FilmsInWindows(found.films, indices, image_size, detect, lesions)
        warn_of_cut_boxes(found.films, indices, lesions, detect)
        return DrawnWindows(
            found.films,
            indices,
            train_transform(config.augment, image_size),
            config.seed,
            window=detect.window,
            lesions=lesions,
            lesion_share=detect.lesion_windows,
            per_film=detect.windows_per_film,
        )
    return FilmDataset(
        found.films,
        indices,
        train_transform(config.augment, image_size) if training else evaluation_transform(image_size),
        config.seed,
        integers=training,
        lesions=lesions,
        boxes=True,
    )
