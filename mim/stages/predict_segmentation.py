"""How a segmenter answers for films."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric

from mim.config import FinetuneConfig
from mim.data.augment import evaluation_transform
from mim.data.loader import to_float
from mim.data.manifest import ManifestRow
from mim.data.store import FilmLevels
from mim.stages.classifier import TaskDescription
from mim.stages.predict_answers import Answer
from mim.stages.segmentation import at_size, load_segmenter


class FilmSegmenter:
    """The predictor of `task=segment`.

    The score of a film, for each class, is the highest probability of a pixel, so that a film is called positive where
    anything is drawn in it.

    Args:
        run: folder of the run.
        config: its settings.
        description: what it remembers.
        fabric: the device.

    Attributes:
        positive: what is sought; None = several classes are.
        classes: what is drawn, one mask each.
        drawn_from: by class the probability from which a pixel is drawn; one that is not there is scored, not drawn.
    """

    def __init__(self, run: Path, config: FinetuneConfig, description: TaskDescription, fabric: Fabric) -> None:
        self._task = fabric.to_device(load_segmenter(run, config, description))
        self._fabric = fabric
        self._transform = evaluation_transform(description.encoder.image_size)
        self._masked = config.masker.kind != "none"
        self.classes = description.classes
        self.positive: str | None = self.classes[0] if len(self.classes) == 1 else None
        self.drawn_from: Mapping[str, float] = {}

    @torch.inference_mode()
    def __call__(self, films: Sequence[FilmLevels], rows: Sequence[ManifestRow]) -> list[Answer]:
        """Answers for some films, in their order; pixels are those of the stored film."""
        images = [to_float(torch.from_numpy(self._transform(film.full, 0, film.half)[None])) for film in films]
        out = self._task({"image": self._fabric.to_device(torch.stack(images))})
        probability, visible = out["logits"].float().sigmoid().cpu(), out["visible"].cpu().numpy()
        answers = []
        for row, film in enumerate(films):
            height, width = film.full.shape
            planes = {
                name: at_size(probability[row, place], (height, width)) for place, name in enumerate(self.classes)
            }
            called = [name for name in planes if name in self.drawn_from]
            drawn = {name: (planes[name] >= self.drawn_from[name]).numpy() for name in called}
            answers.append(
                Answer(
                    scores={name: float(own.max()) for name, own in planes.items()},
                    visible=visible[row] if self._masked else None,
                    pixels=drawn,
                )
            )
        return answers
