"""The predictions of a run: those that were made before where they are still of it, else made now."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import load_splits
from mim.data.split_file import SplitRow
from mim.errors import MimError
from mim.evaluation import Predictions
from mim.stages.classifier import TaskDescription
from mim.stages.common import logger
from mim.stages.finished_run import read_finished
from mim.stages.label_kinds import LabelKind, label_kind
from mim.stages.own_tables import gives_figures

Found = TypeVar("Found")
Measure = Callable[[EvaluateConfig], Path]
"""Evaluates one run and gives the folder of the report."""
SCORED = ("classify", "study")
"""Tasks that give each film, or each study, a score."""
STORING = ("long_side", "bits", "voi", "color", "crop", "tile", "tile_overlap")
"""Keys of `data` that decide what of a film is stored."""


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run of fine-tuning that came to its end.

    Attributes:
        path: its folder.
        settings: what it was trained with.
        description: what it needs besides.
        rows: who was in which split.
    """

    path: Path
    settings: FinetuneConfig
    description: TaskDescription
    rows: tuple[SplitRow, ...]

    @classmethod
    def read(cls, path: Path) -> "FinishedRun":
        """Reads it from its folder.

        Raises:
            MimError: it is no run, no run of fine-tuning, or not finished.
        """
        settings, description = read_finished(path)
        return cls(path, settings, description, load_splits(path / "splits.csv"))

    def split(self, name: str) -> set[tuple[str, str, str]]:
        """Films of a split, each with its patient and the name of its class."""
        return {(row.image_id, row.patient_id, row.label) for row in self.rows if row.split == name}

    @property
    def labels(self) -> LabelKind:
        """What its labels are; those of other tasks than `classify` are measured as two classes."""
        return label_kind(self.settings, self.description.classes) if self.settings.task == "classify" else "two"

    @property
    def checkpoint(self) -> str:
        """Hash of the weights, as the header of an evaluation has it."""
        return hashlib.sha256((self.path / "model.safetensors").read_bytes()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class MeasuredRun:
    """A run and what it says of its validation and test films.

    Attributes:
        run: the run.
        predictions: its scores.
        header: what the figures belong to, as `metrics.json` has it.
    """

    run: FinishedRun
    predictions: Predictions
    header: dict[str, Any]

    @property
    def whole(self) -> bool:
        """Whether every film has a score."""
        return not bool(np.isnan(self.predictions.score).any())


def measured(run: FinishedRun, config: EvaluateConfig, measure: Measure) -> MeasuredRun:
    """Reads the predictions of a run, or makes them where there are none of these weights and this split.

    Args:
        run: which.
        config: how it would be evaluated; `run`, `second_run` and `output` are not read.
        measure: evaluates one run.

    Raises:
        MimError: it cannot be evaluated, in one line.
    """
    if run.settings.task not in SCORED:
        raise MimError(
            f"{run.path}: runs with task={run.settings.task} give films no score; give task={' or '.join(SCORED)}"
        )
    return read_or_measure(run, config, measure, read_measured)


def read_or_measure(
    run: FinishedRun, config: EvaluateConfig, measure: Measure, read: Callable[[FinishedRun], Found | None]
) -> Found:
    """Reads what an evaluation wrote, and evaluates first where there is nothing to be read.

    Raises:
        MimError: the run cannot be evaluated, in one line.
    """
    found = read(run)
    if found is None:
        measure(config.model_copy(update={"run": str(run.path), "second_run": None, "output": None}))
        found = read(run)
    if found is None:
        raise MimError(
            f"{run.path}: what evaluate.py wrote there is not of this run; is another process writing to it?"
        )
    return found


@dataclass(frozen=True)
class Tables(Generic[Found]):
    """What was made of the tables of an evaluation.

    Attributes:
        found: that which they say.
        patients: of each of their films.
        splits: likewise.
        of_figures: whether they give the figures of metrics.json.
    """

    found: Found
    patients: Sequence[str]
    splits: Sequence[str]
    of_figures: bool


def read_tables(
    run: FinishedRun, names: Sequence[str], read: Callable[[Mapping[str, Any], Sequence[Path]], Tables[Found]]
) -> Found | None:
    """Reads what evaluate.py wrote into a run; None where it did not, or where that is of other weights or films.

    Args:
        run: the run.
        names: of the tables beside metrics.json.
        read: makes what is asked for of metrics.json and the paths of the tables.
    """
    told, *paths = (run.path / name for name in ("metrics.json", *names))
    if not all(path.is_file() for path in (told, *paths)):
        return None
    try:
        content = json.loads(told.read_text(encoding="utf-8"))
        made = read(content, paths)
        of_run = is_of_run(run, content["header"], made.patients, made.splits)
    except (MimError, OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its evaluation cannot be read (%s) and is made again", run.path, error)
        return None
    if not of_run:
        logger.warning("%s: its evaluation is of other weights or of another split and is made again", run.path)
        return None
    if not made.of_figures:
        logger.warning("%s: its metrics.json is not of its %s; all are made again", run.path, " and ".join(names))
        return None
    return made.found


def read_measured(run: FinishedRun) -> MeasuredRun | None:
    """Reads the scores that evaluate.py wrote into a run; None as with `read_tables`."""

    def read(content: Mapping[str, Any], paths: Sequence[Path]) -> Tables[MeasuredRun]:
        own = Predictions.load(paths[0])
        found = MeasuredRun(run, own, content["header"])
        return Tables(found, own.patient_id, own.split, gives_figures(content, own))

    return read_tables(run, ("predictions.csv",), read)


def is_of_run(run: FinishedRun, header: Mapping[str, Any], patients: Sequence[str], splits: Sequence[str]) -> bool:
    """Whether a table is of the weights and the split of a run.

    Args:
        run: the run.
        header: what stands beside the table.
        patients: of each of its films.
        splits: likewise.

    Raises:
        KeyError: the header lacks a part.
    """
    of_weights = header["checkpoint"] == run.checkpoint and header["split"] == run.description.split_hash[:16]
    met = set(zip(patients, splits, strict=True))
    known = {(row.patient_id, row.split) for row in run.rows if row.split in ("val", "test")}
    return bool(of_weights and header["data"] and met <= known)
