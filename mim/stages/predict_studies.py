"""Prediction study by study: the films of each together, as a head over studies meets them."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from tqdm import tqdm

from mim.config import FinetuneConfig
from mim.data.augment import evaluation_transform
from mim.data.given_files import GivenFile, hash_file, read_given
from mim.data.given_studies import group_given
from mim.data.loader import to_float
from mim.data.store import FilmLevels
from mim.data.studies import spread
from mim.data.study_loader import StudyDataset
from mim.stages.classifier import TaskDescription
from mim.stages.made_for import MadeFor
from mim.stages.predict_answers import Answer
from mim.stages.predict_films import name_of
from mim.stages.predict_options import PredictOptions
from mim.stages.predict_reading import Reading, draw, take_apart
from mim.stages.predict_records import AnsweredPart, call_of, film_record
from mim.stages.predict_table import Results
from mim.stages.study import load_study_classifier

NO_STUDY = "no-study"
TOO_MANY = "too-many-films"


@dataclass(frozen=True, eq=False)
class StudyAnswer:
    """What a run says of a study.

    Attributes:
        scores: probability of each class.
        keep_rate: share of the cells that was looked at.
        weights: of each film, from 0 to 1.
        visible: of each film what the network saw, bool (gh, gw); None = there is no masker of cells.
    """

    scores: Mapping[str, float]
    keep_rate: float
    weights: Sequence[float]
    visible: Sequence[NDArray[np.bool_] | None]


class StudyPredictor:
    """The predictor of `task=study`: what `evaluate.py` computes of a batch of studies.

    Args:
        run: folder of the run.
        config: its settings.
        description: what it remembers.
        fabric: the device.

    Attributes:
        positive: the class whose score is called against a threshold.
        most: films of a study that are read, at most; None = all.
    """

    def __init__(self, run: Path, config: FinetuneConfig, description: TaskDescription, fabric: Fabric) -> None:
        self._task = fabric.to_device(load_study_classifier(run, config, description))
        self._fabric = fabric
        self._transform = evaluation_transform(description.encoder.image_size)
        self._classes = description.classes
        self.positive = description.classes[1] if len(description.classes) == 2 else None
        self.most = config.data.max_films

    @torch.inference_mode()
    def __call__(self, studies: Sequence[Sequence[FilmLevels]]) -> list[StudyAnswer]:
        """Answers for some studies, in their order."""
        samples = []
        for films in studies:
            image = [to_float(torch.from_numpy(self._transform(film.full, 0, film.half)[None])) for film in films]
            samples.append(
                {"image": torch.stack(image), "present": torch.ones(len(films), dtype=torch.bool), "label": 0}
            )
        collated = StudyDataset.collate(samples)
        batch = {name: self._fabric.to_device(collated[name]) for name in ("image", "present")}
        out = self._task(batch)
        scores = out["logits"].double().softmax(dim=1).cpu().tolist()
        kept, weights = out["keep_rate"].double().clamp(0, 1).cpu().tolist(), out["weight"].double().cpu().tolist()
        masker = self._task.film_masker
        visible: list[NDArray[np.bool_] | None] = [None] * int(batch["present"].sum())
        if masker is not None:
            visible = list(masker({"image": batch["image"][batch["present"]]}).visible.cpu().numpy())
        answers = []
        for row, films in enumerate(studies):
            own, visible = visible[: len(films)], visible[len(films) :]
            named = dict(zip(self._classes, scores[row], strict=True))
            answers.append(StudyAnswer(named, kept[row], weights[row][: len(films)], own))
        return answers


@dataclass(eq=False)
class _Study:
    """A study under way: its files, and which film of which file stands where."""

    files: list[Reading]
    order: Sequence[int | None]
    names: list[str]
    films: list[tuple[Reading, int]] = field(default_factory=list)  # file, and place among its parts


@dataclass(eq=False)
class StudyWork:
    """The prediction of studies; attributes as of `FilmWork`."""

    options: PredictOptions
    model: Mapping[str, Any]
    made_for: MadeFor | None
    predictor: StudyPredictor
    read_as: Mapping[str, Any]
    results: Results
    already: int = 0

    def run(self, files: Sequence[GivenFile]) -> list[str]:
        """Predicts the studies that have no results yet; gives the names of all files, in order."""
        names = {file: name_of(file, self.options)[0] for file in files}
        folders = [path for path in self.options.paths if path.is_dir()]
        studies, unnamed = group_given(files, self.options.studies, folders=folders, workers=self.options.workers)
        for file in unnamed:
            left = Reading(names[file], hash_file(file.path))
            left.skip(None, NO_STUDY, "the table of --studies does not name it")
            self._add([left])
        waiting = []
        for study in studies:
            if self._known([(names[file], file) for file in study.files]):
                self.already += len(study.files)
            else:
                waiting.append(study)
        given = [file for study in waiting for file in study.files]
        reading = iter(read_given(given, self.read_as, workers=self.options.workers))
        shown = tqdm(waiting, desc="predict", unit="study", leave=False, disable=None)
        batch: list[_Study] = []
        for study in shown:
            opened = [
                take_apart(names[file], read, self.made_for, self.options)
                for file, read in zip(study.files, _take(reading, len(study.files)), strict=True)
            ]
            batch.append(self._arrange(_Study(opened, study.order, [names[file] for file in study.files])))
            if len(batch) >= self.options.batch_size:
                self._answer(batch)
                batch = []
        self._answer(batch)
        return list(names.values())

    def _known(self, files: Sequence[tuple[str, GivenFile]]) -> bool:
        """Whether a study of just these files, of the same bytes, has results."""
        names = [name for name, _ in files]
        first = next((name for name in names if self.results.study_of(name) is not None), None)
        if first is None or sorted(self.results.study_of(first) or ()) != sorted(names):
            return False
        return all(self.results.done(name, hash_file(file.path), self.options.allow) for name, file in files)

    def _arrange(self, study: _Study) -> _Study:
        """Puts the films in their order, and leaves out what is more than the run takes."""
        found = []
        for file, order in zip(study.files, study.order, strict=True):
            for place, (row, _) in enumerate(file.parts):
                at = row.series_order if order is None else order
                found.append(((at is None, at or 0, file.name, row.frame, row.tile or 0), file, place))
        found.sort(key=lambda film: film[0])
        kept = set(spread(len(found), self.predictor.most))
        study.films = [(file, place) for number, (_, file, place) in enumerate(found) if number in kept]
        for number, (_, file, place) in enumerate(found):
            if number not in kept:
                detail = f"the run reads {self.predictor.most} films of a study, at even distances (data.max_films)"
                file.skip(file.parts[place][0].frame, TOO_MANY, detail)
        return study

    def _answer(self, studies: Sequence[_Study]) -> None:
        """Answers for some studies, and takes what is said of them into the results."""
        whole = [study for study in studies if study.films]
        levels = [[file.parts[place][1] for file, place in study.films] for study in whole]
        answers = iter(self.predictor(levels) if levels else [])
        for study in studies:
            if study.films:
                self._close(study, next(answers))
            else:
                self._add(study.files)

    def _close(self, study: _Study, answer: StudyAnswer) -> None:
        """Makes the records of a study and of its films."""
        if not all(map(math.isfinite, (*answer.scores.values(), *answer.weights))):
            for file, place in study.films:
                detail = "the network gave a score that is no number; its training diverged"
                file.skip(file.parts[place][0].frame, "not-finite", detail)
            self._add(study.files)
            return
        said = dict(zip(((id(file), place) for file, place in study.films), range(len(study.films)), strict=True))
        for file in study.files:
            file.answers = [
                Answer({}, None if (at := said.get((id(file), place))) is None else answer.visible[at])
                for place in range(len(file.parts))
            ]
        keys = [
            f"{file.sha256}:{file.parts[place][0].frame}:{file.parts[place][0].tile}" for file, place in study.films
        ]
        name = hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
        total = sum(answer.weights) or 1.0
        films: dict[str, list[dict[str, Any]]] = {}
        for file in study.files:
            own = [(place, said[id(file), place]) for place in range(len(file.parts)) if (id(file), place) in said]
            films[file.name] = [
                self._film(file, frame, own, answer, total) | {"study": name} for frame in file.differs
                if any(file.parts[place][0].frame == frame for place, _ in own)
            ]  # fmt: skip
        score = None if self.predictor.positive is None else answer.scores[self.predictor.positive]
        record = {
            "study": name,
            "files": study.names,
            "films": len(study.films),
            "left_out": sum(len(file.skipped) for file in study.files),
            "scores": dict(answer.scores),
            "score": score,
            "call": call_of(score, self.model),
            "keep_rate": answer.keep_rate,
        }
        self._add(study.files, films, record)

    def _film(
        self, file: Reading, frame: int, own: Sequence[tuple[int, int]], answer: StudyAnswer, total: float
    ) -> dict[str, Any]:
        """The record of one film of a study, with how much it counted."""
        here = [(place, at) for place, at in own if file.parts[place][0].frame == frame]
        parts = [
            AnsweredPart(file.parts[place][0], file.answers[place], draw(self.options, self.model, file, place))
            for place, _ in here
        ]
        record = film_record(file.name, file.sha256, parts, self.model, file.differs[frame])
        weights = [answer.weights[at] for _, at in here]
        position = min(at for _, at in here) + 1
        return record | {"position": position, "weight": max(weights), "share": sum(weights) / total}

    def _add(
        self,
        files: Sequence[Reading],
        films: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        study: Mapping[str, Any] | None = None,
    ) -> None:
        for number, file in enumerate(files):
            entry: dict[str, Any] = {"name": file.name, "sha256": file.sha256}
            entry |= {"films": list((films or {}).get(file.name, ())), "skipped": file.skipped}
            if study is not None and number == 0:
                entry["studies"] = [dict(study)]
            self.results.add(entry)


def _take(items: Iterator[Any], count: int) -> list[Any]:
    return [next(items) for _ in range(count)]
