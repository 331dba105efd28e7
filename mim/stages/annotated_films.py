"""Films on which something is annotated, divided by patient: what detectors and segmenters learn from."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.config import FinetuneConfig
from mim.data import PreparedDataset, Splits, attach_labels, dataset_salt, split_hash
from mim.data.annotations import Annotations
from mim.errors import MimError
from mim.stages.common import open_films
from mim.stages.finetune import divide, known_lesions

_NAMED = 4  # classes that a title can hold


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


def check_annotated_settings(config: FinetuneConfig) -> None:
    """Refuses what nothing that learns from annotations can have, and what it would not read.

    Raises:
        MimError: in one line.
    """
    if config.data.labels is None:
        raise MimError(
            "data.labels is not set: give data.labels=<CSV in data.path>, which says whose films they are (patient_id, "
            "and split if known)"
        )
    if config.data.target is not None:
        raise MimError(
            f"data.target is a label of whole films; task={config.task} learns from data.boxes: leave it out"
        )
    if config.smoothing or not config.class_weights:
        key = "smoothing" if config.smoothing else "class_weights"
        raise MimError(f"{key} is read only with task=classify or study; leave it out")


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


def classes_in_words(classes: Sequence[str]) -> str:
    """What is sought: the names where they are few, else how many they are."""
    return ", ".join(classes) if len(classes) <= _NAMED else f"{len(classes)} classes"


def count_boxes(found: AnnotatedFilms) -> str:
    """How many films, patients and boxes each split has."""
    parts = []
    splits = (("training", found.splits.train), ("validation", found.splits.val), ("test", found.splits.test))
    for name, films in splits:
        if not films:
            continue  # of a run whose own films are not at hand
        boxes = [len(found.annotations.of(film.index)) for film in films]
        patients = len({film.patient_id for film in films})
        parts.append(
            f"{name} {len(films)} films of {patients} patients, {sum(boxes)} boxes, {boxes.count(0)} films without one"
        )
    return "; ".join(parts)
