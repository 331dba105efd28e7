"""What a detector says of films that are in no dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from mim.config import FinetuneConfig
from mim.data.augment import FilmTransform, evaluation_transform
from mim.data.loader import Batched, Place, to_float
from mim.data.manifest import ManifestRow
from mim.data.store import FilmLevels
from mim.errors import MimError
from mim.stages.classifier import TaskDescription
from mim.stages.detection import load_detector
from mim.stages.found_boxes import find_boxes
from mim.stages.predict_answers import Answer, FoundBox
from mim.stages.windows import FilmsInMemory, FilmsInWindows

NO_NUMBERS = "its weights are no numbers, as its training diverged: nothing can be found"


def has_numbers(task: nn.Module) -> bool:
    """Whether all weights are finite numbers: a detector of others finds nothing, and does not say why."""
    return all(bool(weight.isfinite().all()) for weight in task.parameters())


class GivenFilms(Batched):
    """Films in memory, as the samples of a dataset that is not changed at random.

    Args:
        films: what a preparation would store of each.
        transform: from stored film to pixels.
    """

    def __init__(self, films: Sequence[FilmLevels], transform: FilmTransform) -> None:
        self._films = films
        self._transform = transform

    def __len__(self) -> int:
        return len(self._films)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Gives `image`, float32 (1, H, W) in [0, 1], and `index`."""
        _, index = place
        film = self._films[index]
        return {"image": to_float(torch.from_numpy(self._transform(film.full, 0, film.half)[None])), "index": index}


class BoxFinder:
    """The predictor of `task=detect`: the boxes that `evaluate.py` finds.

    Args:
        run: folder of the run.
        config: its settings.
        description: what it remembers.
        fabric: the device.

    Raises:
        MimError: the weights are missing, damaged or no numbers: such a detector finds nothing anywhere.
    """

    def __init__(self, run: Path, config: FinetuneConfig, description: TaskDescription, fabric: Fabric) -> None:
        task = load_detector(run, config, description)
        if not has_numbers(task):
            raise MimError(f"{run}: {NO_NUMBERS}")
        self._task = fabric.to_device(task)
        self._device = fabric.device
        self._image_size = description.encoder.image_size
        self._detect = config.detect
        self._classes = description.classes
        self._masked = config.masker.kind != "none"
        self.positive = description.classes[0] if len(description.classes) == 1 else None

    def __call__(self, films: Sequence[FilmLevels], rows: Sequence[ManifestRow]) -> list[Answer]:
        """Answers for some films, in their order."""
        found = find_boxes(self._task, self._given(films, rows), len(films), self._device)
        answers = []
        for place in range(len(films)):
            boxes = [
                FoundBox((x1, y1, x2, y2), self._classes[label], score)
                for (x1, y1, x2, y2), label, score in zip(
                    found.boxes[place].tolist(),
                    found.labels[place].tolist(),
                    found.scores[place].tolist(),
                    strict=True,
                )
            ]
            answers.append(
                Answer(
                    scores={
                        name: max((b.score for b in boxes if b.label == name), default=0.0) for name in self._classes
                    },
                    visible=found.visible[place].numpy() if self._masked else None,
                    boxes=boxes,
                )
            )
        return answers

    def _given(self, films: Sequence[FilmLevels], rows: Sequence[ManifestRow]) -> Batched:
        if self._detect.window is not None:
            return FilmsInWindows(FilmsInMemory(rows, films), range(len(films)), self._image_size, self._detect)
        return GivenFilms(films, evaluation_transform(self._image_size))
