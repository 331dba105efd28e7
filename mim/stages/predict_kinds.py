"""How runs of each kind answer for films: for each `task` of the settings what loads its predictor.

Another kind of task is another entry, made of a class of a module of its own. Runs on studies answer for several films
at once: `mim.stages.predict_studies`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch
from lightning_fabric import Fabric

from mim.config import FinetuneConfig
from mim.data.augment import evaluation_transform
from mim.data.loader import to_float
from mim.data.manifest import ManifestRow
from mim.data.store import FilmLevels
from mim.errors import MimError
from mim.stages.classifier import TaskDescription, load_classifier
from mim.stages.label_kinds import label_kind
from mim.stages.predict_answers import Answer, FoundBox, Predictor
from mim.stages.predict_boxes import BoxFinder
from mim.stages.predict_segmentation import FilmSegmenter
from mim.tasks import MaskedClassifier

__all__ = ["PREDICTORS", "Answer", "FilmClassifier", "FoundBox", "Predictor", "load_predictor"]


class FilmClassifier:
    """The predictor of `task=classify`: what `evaluate.py` computes of a batch, to the last bit.

    Args:
        run: folder of the run.
        config: its settings.
        description: what it remembers.
        fabric: the device.
    """

    def __init__(self, run: Path, config: FinetuneConfig, description: TaskDescription, fabric: Fabric) -> None:
        task: MaskedClassifier = fabric.to_device(load_classifier(run, config, description))
        self._task = task
        self._fabric = fabric
        self._transform = evaluation_transform(description.encoder.image_size)
        self._classes = description.classes
        self._masked = config.masker.kind != "none"
        self.positive = description.classes[1] if label_kind(config, description.classes) == "two" else None

    @torch.inference_mode()
    def __call__(self, films: Sequence[FilmLevels], rows: Sequence[ManifestRow]) -> list[Answer]:
        """Answers for some films, in their order."""
        images = [to_float(torch.from_numpy(self._transform(film.full, 0, film.half)[None])) for film in films]
        out = self._task({"image": self._fabric.to_device(torch.stack(images))})
        scores = self._task.probabilities(out["logits"].double()).cpu().numpy()
        visible = out["visible"].cpu().numpy()
        return [
            Answer(
                scores=dict(zip(self._classes, map(float, scores[row]), strict=True)),
                visible=visible[row] if self._masked else None,
            )
            for row in range(len(films))
        ]


PREDICTORS: Mapping[str, Callable[[Path, FinetuneConfig, TaskDescription, Fabric], Predictor]] = MappingProxyType(
    {"classify": FilmClassifier, "detect": BoxFinder, "segment": FilmSegmenter}
)


def load_predictor(run: Path, config: FinetuneConfig, description: TaskDescription, fabric: Fabric) -> Predictor:
    """Loads what answers for films in a finished run.

    Raises:
        MimError: runs of this kind do not answer for single films, or the weights are missing or damaged.
    """
    if config.data.crops is not None:
        raise MimError(
            f"{run}: it was trained on teeth (data.crops) and cannot answer for whole films; evaluate.py measures it"
        )
    load = PREDICTORS.get(config.task)
    if load is None:
        known = ", ".join(PREDICTORS)
        raise MimError(
            f"{run}: task={config.task} cannot answer for single films; mim.predict reads runs of task={known}, "
            "evaluate.py measures this one on its own data"
        )
    return load(run, config, description, fabric)
