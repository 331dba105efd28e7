"""What a detector finds on films, in pixels of the whole films, beside what is annotated there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mim.data import LabelledFilm, PreparedDataset
from mim.data.annotations import Annotations
from mim.data.loader import Batched, evaluation_loader
from mim.data.manifest import ManifestRow
from mim.evaluation import Detections, Lesions, Searched
from mim.evaluation.coco import coco_values
from mim.stages.windows import FilmsInWindows, search_windows


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
