"""Fine-tuning on boxes: a detector behind an encoder, behind a masker."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mim.config import FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset, Splits, attach_labels, dataset_salt, split_hash
from mim.data.annotations import Annotations
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import Batched, FilmDataset, evaluation_loader
from mim.data.manifest import ManifestRow
from mim.data.window_loader import DrawnWindows
from mim.data.windows import check_resolution
from mim.errors import MimError
from mim.evaluation import Detections, Lesions, Searched
from mim.evaluation.coco import coco_values
from mim.models import Encoder
from mim.stages.classifier import TaskDescription, first_encoder, load_finished
from mim.stages.common import NetworkInput, content_hash, open_films
from mim.stages.downstream import Downstream, train_downstream
from mim.stages.finetune import count_met, divide, known_lesions
from mim.stages.made_for import MadeFor
from mim.stages.masked_parts import MaskedParts
from mim.stages.masker import build_masker, dense_training, frozen_encoder, load_tokens, rebuilding_error
from mim.stages.score_source import start_source
from mim.stages.tuning import tune_encoder
from mim.stages.windows import FilmsInWindows, check_window_settings, search_windows, warn_of_cut_boxes
from mim.tasks import MaskedDetector, RebuildingError
from mim.training import Monitor, load_weights

_TEETH = {f"{quadrant}{tooth}" for quadrant in range(1, 9) for tooth in range(1, 9)}  # FDI numbers


@dataclass(frozen=True, eq=False)
class AnnotatedFilms:
    """Films by split, and the boxes on them."""

    films: PreparedDataset
    splits: Splits
    annotations: Annotations

    def hash(self) -> str:
        """Hash of who is in which split, and of which boxes are where."""
        told = []
        for part in (self.splits.train, self.splits.val, self.splits.test):
            for film in part:
                own = [(one.category, [round(side, 6) for side in one.box]) for one in self.annotations.of(film.index)]
                told.append((film.image_id, sorted(own)))
        return hashlib.sha256(json.dumps([split_hash(self.splits), sorted(told)]).encode()).hexdigest()


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
    if config.data.labels is None:
        raise MimError(
            "data.labels is not set: give data.labels=<CSV in data.path>, which says whose films they are (patient_id, "
            "and split if known)"
        )
    if config.data.target is not None:
        raise MimError("data.target is a label of whole films; task=detect learns from data.boxes: leave it out")
    if config.smoothing or not config.class_weights:
        key = "smoothing" if config.smoothing else "class_weights"
        raise MimError(f"{key} is read only with task=classify or study; leave it out")
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


def annotated_films(config: FinetuneConfig) -> AnnotatedFilms:
    """Opens the films, reads their boxes and whose they are, and divides them by patient.

    Raises:
        MimError: a file or column is missing, the split cannot be used, or no training film has a box.
    """
    data = config.data
    films = open_films(data)
    assert data.labels is not None
    labelled = attach_labels(films, Path(data.path), data.labels, None, dataset_salt(films, Path(data.cache)))
    annotations = known_lesions(data, films)
    assert annotations is not None
    splits = divide(config, labelled)
    if not any(annotations.of(film.index) for film in splits.train):
        raise MimError(f"{annotations.path}: no training film has a box (data.boxes): there is nothing to learn")
    return AnnotatedFilms(films, splits, annotations)


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


def count_boxes(found: AnnotatedFilms) -> str:
    """How many films, patients and boxes each split has."""
    parts = []
    splits = (("training", found.splits.train), ("validation", found.splits.val), ("test", found.splits.test))
    for name, films in splits:
        boxes = [len(found.annotations.of(film.index)) for film in films]
        patients = len({film.patient_id for film in films})
        parts.append(
            f"{name} {len(films)} films of {patients} patients, {sum(boxes)} boxes, {boxes.count(0)} films without one"
        )
    return "; ".join(parts)


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector made of some films: boxes on each as shares of its width and height, and what was visible.

    What was visible of a film that was searched in windows is stitched together (`mim.stages.windows.stitch`).
    """

    boxes: list[Tensor]
    labels: list[Tensor]
    scores: list[Tensor]
    visible: list[Tensor]


@torch.no_grad()
def find_boxes(
    task: nn.Module, dataset: Batched, batch_size: int, device: torch.device, *, shown: bool = False
) -> Found:
    """Runs a detector, in evaluation mode, over films, in order: over each as a whole, or window by window.

    Args:
        task: the detector, on the device.
        dataset: the films.
        batch_size: films, or windows, at a time.
        device: where the detector is.
        shown: whether a bar is drawn.
    """
    found = Found([], [], [], [])
    if isinstance(dataset, FilmsInWindows):
        for film in search_windows(task, dataset, batch_size, device, shown=shown):
            found.boxes.append(film.boxes)
            found.labels.append(film.label)
            found.scores.append(film.score)
            found.visible.append(film.visible)
        return found
    loader = evaluation_loader(dataset, batch_size=batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None if shown else True):
        out = task({"image": batch["image"].to(device)})
        height, width = batch["image"].shape[-2:]
        out = {name: value.cpu() for name, value in out.items()}
        for place, label in enumerate(out["box_label"]):
            real = label >= 0
            found.boxes.append(out["boxes"][place][real].double() / torch.tensor([width, height] * 2).double())
            found.labels.append(label[real])
            found.scores.append(out["box_score"][place][real].double())
            found.visible.append(out["visible"][place])
    return found


def to_detections(
    found: Found,
    chosen: Sequence[LabelledFilm],
    split: Sequence[str],
    rows: Sequence[ManifestRow],
    names: Sequence[str],
) -> Detections:
    """What was found, in pixels of each whole film before it was reduced."""
    image = [place for place, labels in enumerate(found.labels) for _ in labels]
    boxes = [on_film(box, row) for own, row in zip(found.boxes, rows, strict=True) for box in own.tolist()]
    return Detections(
        image_id=[film.image_id for film in chosen],
        patient_id=[film.patient_id for film in chosen],
        split=list(split),
        image=torch.tensor(image, dtype=torch.int64).numpy(),
        boxes=torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4).numpy(),
        score=torch.cat(found.scores).numpy() if found.scores else torch.empty(0).numpy(),
        label=[names[number] for own in found.labels for number in own.tolist()],
    )


def to_lesions(annotations: Annotations, chosen: Sequence[LabelledFilm], rows: Sequence[ManifestRow]) -> Lesions:
    """What is annotated on films, in pixels of each whole film; grade and tooth where they are known."""
    known = [
        (film.image_id, on_film(lesion.box, row), lesion)
        for film, row in zip(chosen, rows, strict=True)
        for lesion in annotations.of(film.index)
    ]
    columns = {name: [getattr(lesion, name) for _, _, lesion in known] for name in ("grade", "tooth")}
    return Lesions(
        image_id=[image for image, _, _ in known],
        boxes=torch.tensor([box for _, box, _ in known], dtype=torch.float64).reshape(-1, 4).numpy(),
        label=[lesion.category for _, _, lesion in known],
        columns={name: values for name, values in columns.items() if any(values)},
    )


def stored_part(row: ManifestRow) -> tuple[int, int, int, int]:
    """Left, top, width and height of what is stored of a film, in pixels of the whole film before it was reduced."""
    if row.crop is None:
        return 0, 0, row.width, row.height
    return row.crop.left, row.crop.top, row.crop.width, row.crop.height


def on_film(box: Sequence[float], row: ManifestRow) -> list[float]:
    """A box in shares of the stored part, in pixels of the whole film before it was reduced."""
    left, top, wide, high = stored_part(row)
    return [left + box[0] * wide, top + box[1] * high, left + box[2] * wide, top + box[3] * high]


class DetectionValidation:
    """Measures the validation films at the end of each epoch.

    Args:
        dataset: the validation films.
        chosen: whose they are.
        classes: names of the classes.
        annotations: what is on them.
        batch_size: films, or windows, at a time.
        films: where they are stored.
    """

    def __init__(
        self,
        dataset: Batched,
        chosen: Sequence[LabelledFilm],
        classes: Sequence[str],
        annotations: Annotations,
        batch_size: int,
        films: PreparedDataset,
    ) -> None:
        self.dataset = dataset
        self.films = films
        self.chosen = chosen
        self.classes = classes
        self.annotations = annotations
        self.batch_size = batch_size

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Gives AP50 and AP (not a number where there is no box), and the boxes found on a film."""
        found = find_boxes(module, self.dataset, self.batch_size, next(module.parameters()).device)
        rows = [self.films.rows[film.index] for film in self.chosen]
        detections = to_detections(found, self.chosen, ["val"] * len(self.chosen), rows, self.classes)
        values = coco_values(Searched(detections, to_lesions(self.annotations, self.chosen, rows)))
        return {
            "val/ap50": values["ap50"],
            "val/ap": values["ap"],
            "val/boxes": len(detections.score) / max(1, len(self.chosen)),
        }
