"""What the labels of a run of `task=classify` are, and what of the settings goes with them."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from mim.config import FinetuneConfig
from mim.data.label_values import MISSING
from mim.errors import MimError
from mim.tasks.classification import Labels

LabelKind = Literal["two", "classes", "ordered", "several"]


def label_kind(config: FinetuneConfig, classes: Sequence[str]) -> LabelKind:
    """Tells two classes from more, from grades, and from several labels.

    Args:
        config: settings of the run.
        classes: names of its classes or labels (`TaskDescription.classes`).
    """
    labels = task_labels(config)
    if labels != "classes":
        return labels
    return "two" if len(classes) == 2 else "classes"


def label_words(kind: LabelKind, classes: Sequence[str]) -> str:
    """The kind in words."""
    return f"{len(classes)} {({'ordered': 'grades', 'several': 'labels'}).get(kind, 'classes')}"


def task_labels(config: FinetuneConfig) -> Labels:
    """How the classifier is to take its labels."""
    if config.data.target is not None and not isinstance(config.data.target, str):
        return "several"
    return config.data.label_kind


def check_label_settings(config: FinetuneConfig) -> None:
    """Refuses settings of labels that contradict each other.

    Raises:
        MimError: naming them and the way out.
    """
    labels, data = task_labels(config), config.data
    if labels == "several":
        assert isinstance(data.target, tuple)
        if len(data.target) < 2:
            names = ", ".join(data.target) or "<column>"
            raise MimError(f"data.target: a list of labels needs two or more; of one column give data.target={names}")
        if twice := [name for place, name in enumerate(data.target) if name in data.target[:place]]:
            raise MimError(f"data.target names {twice[0]!r} twice: keep one")
        if data.label_kind == "ordered":
            raise MimError("data.label_kind=ordered: grades stand in one column, and data.target is a list of labels")
        if config.sampling == "balanced":
            raise MimError(
                "sampling=balanced: a film of several labels is of no one class; class_weights=true makes up for rare "
                "labels"
            )
    if labels != "ordered" and data.label_order is not None:
        raise MimError("data.label_order is read only with data.label_kind=ordered; give both")
    if labels == "ordered":
        if config.loss == "focal":
            raise MimError(
                "loss=focal knows no order of grades; data.label_kind=ordered learns by their likelihood: "
                "give loss=cross_entropy"
            )
        if config.smoothing:
            raise MimError(
                "smoothing gives some of each film to the farthest grade; with data.label_kind=ordered give smoothing=0"
            )


def check_asked(config: FinetuneConfig, classes: Sequence[str], *, threshold: float | None, dicom: bool) -> None:
    """Refuses what only a prediction of two classes has.

    Args:
        config: settings of the run.
        classes: names of its classes or labels.
        threshold: at which films are to be called; None = as the run says.
        dicom: whether DICOM reports are asked for.

    Raises:
        MimError: naming the option.
    """
    if config.task != "classify" or (kind := label_kind(config, classes)) == "two":
        return
    has = f"this run has {label_words(kind, classes)}; leave it out: predictions.json has the score of each"
    if threshold is not None:
        raise MimError(f"--threshold calls films positive or negative, and {has}")
    if dicom:
        raise MimError(f"--dicom writes the score of one finding, and {has}")


def positive_weights(labels: Sequence[Sequence[int]]) -> Tensor:
    """(labels,) how many films without each of several labels there are for one with it, where it is known."""
    table = torch.tensor(labels)
    return ((table == 0).sum(dim=0) / (table == 1).sum(dim=0)).float()


def known_counts(labels: Sequence[Sequence[int]], place: int) -> tuple[int, int]:
    """How many films have one of several labels, and of how many that is known."""
    values = [own[place] for own in labels]
    return values.count(1), len(values) - values.count(MISSING)
