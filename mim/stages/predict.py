"""Prediction: what a finished run says of films that somebody names."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from tqdm import tqdm

from mim.config import TrainingConfig
from mim.data import ManifestRow
from mim.data.given_files import GivenFile, ReadFile, hash_file, list_given, read_given
from mim.data.locking import locked
from mim.data.store import FilmLevels
from mim.errors import MimError
from mim.evaluation.pictures import mask_picture, png
from mim.files import write_atomically
from mim.stages.common import logger, writing
from mim.stages.finished_run import read_finished
from mim.stages.label_kinds import check_asked
from mim.stages.made_for import MadeFor, preparation_of
from mim.stages.predict_kinds import Answer, Predictor, load_predictor
from mim.stages.predict_records import (
    AnsweredPart,
    describe_model,
    document,
    film_record,
    hash_of_weights,
    is_finite,
    threshold_of,
)
from mim.stages.predict_table import Entry, Results, to_text
from mim.training import make_fabric

OVERLAYS = "overlays"


@dataclass(frozen=True)
class PredictOptions:
    """What a prediction is asked for.

    Attributes:
        run: folder of a finished run.
        paths: files and folders of films.
        output: folder of predictions.json and overlays; None = nothing is written there.
        json: a file that gets predictions.json as well, "-" = standard output; None = none.
        allow: in what films may differ from those of the training (`mim.stages.made_for.Difference`).
        batch_size: films at a time.
        accelerator: device.
        threshold: at which films are called positive; None = as `evaluate.py` chose it.
        overlays: whether pictures are drawn.
        overlay_side: their longer side in pixels.
        dicom: whether DICOM reports and segmentations are written.
        overwrite: whether results that are there already are forgotten.
        hide_names: whether files are called by the hash of their content.
        workers: processes that read files; None = all cores.
    """

    run: Path
    paths: tuple[Path, ...]
    output: Path | None
    json: str | None = None
    allow: frozenset[str] = frozenset()
    batch_size: int = 64
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    threshold: float | None = None
    overlays: bool = True
    overlay_side: int = 768
    dicom: bool = False
    overwrite: bool = False
    hide_names: bool = False
    workers: int | None = None


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predicts films and writes what is asked for.

    Returns:
        The content of predictions.json.

    Raises:
        MimError: the run or a path is not there, or no film at all could be predicted; what could not be is in
            predictions.json then, too.
    """
    if options.dicom and options.output is None:
        raise MimError("--dicom writes files: give --output FOLDER")
    config, description = read_finished(options.run)
    made_for = MadeFor.load(options.run)
    preparation = preparation_of(options.run, config, made_for, options.allow)
    read_as = preparation | {"color": "gray"} if "colour" in options.allow else preparation
    files = list_given(options.paths)
    fabric = make_fabric(TrainingConfig(accelerator=options.accelerator))
    predictor = load_predictor(options.run, config, description, fabric)
    checkpoint = hash_of_weights(options.run)
    check_asked(config, description.classes, threshold=options.threshold, dicom=options.dicom)
    threshold = threshold_of(options.run, checkpoint, options.threshold)
    model = describe_model(config, description, preparation, checkpoint, predictor.positive, threshold)
    if predictor.positive is not None and threshold.value is None:
        logger.warning("films are scored and not called positive or negative: %s", threshold.reason)
    with ExitStack() as stack, writing(options.output or Path(options.json or ".")):
        if options.output is not None and not stack.enter_context(locked(options.output / ".lock", wait=False)):
            raise MimError(f"{options.output}: another process writes there; wait for it, or give another --output")
        results = Results(options.output, model, overwrite=options.overwrite)
        stack.callback(results.close)
        work = _Work(options, model, made_for, predictor, read_as, results)
        names = work.run(files)
        content = document(model, results.entries(names), sorted(options.allow))
        results.finish(content)
        _write_json(options.json, content)
    _say(content, work.already, options)
    if options.dicom:
        _export(options, content)
    if not content["films"]:
        raise MimError(f"none of {len(files)} files could be predicted ({_reasons(content)}){_way_out(content)}")
    return content


@dataclass(eq=False)
class _Reading:
    """A file under way: its films that are to be predicted, and what of it is left out."""

    name: str
    sha256: str
    skipped: list[dict[str, Any]]
    differs: dict[int, dict[str, str]] = field(default_factory=dict)  # by frame
    parts: list[tuple[ManifestRow, FilmLevels]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def waits(self) -> int:
        """How many of its films have no answer yet."""
        return len(self.parts) - len(self.answers)

    def skip(self, frame: int | None, reason: str, detail: str) -> None:
        self.skipped.append(
            {"file": self.name, "sha256": self.sha256, "frame": frame, "reason": reason, "detail": detail}
        )


@dataclass(eq=False)
class _Work:
    options: PredictOptions
    model: Mapping[str, Any]
    made_for: MadeFor | None
    predictor: Predictor
    read_as: Mapping[str, Any]  # options of the preparation
    results: Results
    already: int = 0

    def run(self, files: Sequence[GivenFile]) -> list[str]:
        """Predicts the files that have no results yet; gives the names of all of them, in order."""
        names, to_read = [], []
        for file in files:
            name, sha256 = file.name, None
            if self.options.hide_names:
                sha256 = hash_file(file.path)
                name = sha256[:16] or "unreadable"
            names.append(name)
            known = self.results.knows(name)
            if known and self.results.done(name, sha256 or hash_file(file.path), self.options.allow):
                self.already += 1
            else:
                to_read.append((name, file))
        given = [file for _, file in to_read]
        reading = zip(
            (name for name, _ in to_read),
            read_given(given, self.read_as, workers=self.options.workers),
            strict=True,
        )
        shown = tqdm(reading, total=len(given), desc="predict", unit="file", leave=False, disable=None)
        for entry in self._answer(self._open(name, read) for name, read in shown):
            self.results.add(entry)
        return names

    def _open(self, name: str, read: ReadFile) -> _Reading:
        """Takes what was read of a file apart into what is to be predicted and what is not."""
        file = _Reading(name, read.sha256, [])
        for item in read.decoded.skipped:
            file.skip(item.frame, item.reason, item.detail)
        refused: set[int] = set()
        for row, levels in zip(read.decoded.rows, read.decoded.films, strict=True):
            if row.frame not in file.differs and row.frame not in refused:
                differs = {} if self.made_for is None else self.made_for.differences(row)
                if not_allowed := [name for name in differs if name not in self.options.allow]:
                    file.skip(row.frame, not_allowed[0], "; ".join(differs[name] for name in not_allowed))
                    refused.add(row.frame)
                else:
                    file.differs[row.frame] = dict(differs)
            if row.frame not in refused:
                file.parts.append((row, levels))
        return file

    def _answer(self, files: Iterator[_Reading]) -> Iterator[Entry]:
        """Asks for answers in batches of one size, as `evaluate.py` does, and gives files as they are complete."""
        waiting: list[_Reading] = []
        for file in files:
            waiting.append(file)
            while sum(other.waits for other in waiting) >= self.options.batch_size:
                self._ask(waiting)
            while waiting and not waiting[0].waits:
                yield self._close(waiting.pop(0))
        while any(file.waits for file in waiting):
            self._ask(waiting)
        yield from map(self._close, waiting)

    def _ask(self, waiting: Sequence[_Reading]) -> None:
        """Answers for the next batch of films."""
        batch = [(file, place) for file in waiting for place in range(len(file.answers), len(file.parts))]
        batch = batch[: self.options.batch_size]
        answers = self.predictor([file.parts[place][1] for file, place in batch])
        for (file, _), answer in zip(batch, answers, strict=True):
            file.answers.append(answer)

    def _close(self, file: _Reading) -> Entry:
        """Makes the records of a file, with the pictures of its films."""
        films = []
        for frame, differs in file.differs.items():
            own = [place for place, (row, _) in enumerate(file.parts) if row.frame == frame]
            if not all(is_finite(file.answers[place]) for place in own):
                file.skip(frame, "not-finite", "the network gave a score that is no number; its training diverged")
                continue
            parts = [AnsweredPart(file.parts[place][0], file.answers[place], self._draw(file, place)) for place in own]
            films.append(film_record(file.name, file.sha256, parts, self.model, differs))
        return {"name": file.name, "sha256": file.sha256, "films": films, "skipped": file.skipped}

    def _draw(self, file: _Reading, place: int) -> str | None:
        if self.options.output is None or not self.options.overlays:
            return None
        (row, levels), answer = file.parts[place], file.answers[place]
        pixels = levels.full.astype(np.float32) / np.float32(np.iinfo(levels.full.dtype).max)
        height, width = pixels.shape
        boxes = [
            (x1 * width, y1 * height, x2 * width, y2 * height) for x1, y1, x2, y2 in (box.box for box in answer.boxes)
        ]
        for mask in answer.pixels.values():
            boxes += _around(mask, height, width)
        tile = "" if row.tile is None else f"-{row.tile}"
        name = f"{OVERLAYS}/{file.sha256[:16]}-{row.frame}{tile}.png"
        picture = mask_picture(pixels, answer.visible, boxes, side=self.options.overlay_side)
        path = self.options.output / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(picture))  # not synced: it can be drawn again, and there may be very many
        return name


def _around(
    mask: np.ndarray[Any, np.dtype[np.bool_]], height: int, width: int
) -> list[tuple[float, float, float, float]]:
    """Boxes around the connected parts of a mask of any size, in pixels of a picture of (height, width)."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    across, down = width / mask.shape[1], height / mask.shape[0]
    return [(x * across, y * down, (x + w) * across, (y + h) * down) for x, y, w, h, _ in stats[1:count].tolist()]


def _write_json(target: str | None, content: Mapping[str, Any]) -> None:
    if target is None:
        return
    text = to_text(content)
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with writing(Path(target)):
        write_atomically(Path(target), text)


def _say(content: Mapping[str, Any], already: int, options: PredictOptions) -> None:
    """Says how many films there are, and why others are not: names of files stand in predictions.json alone."""
    counts = content["counts"]
    before = f" ({already} of them were there already)" if already else ""
    where = "" if options.output is None else f": {options.output / 'predictions.json'}"
    logger.info("%d films of %d files%s%s", counts["films"], counts["files"], before, where)
    if counts["skipped"]:
        logger.warning("%d skipped (%s)%s", counts["skipped"], _reasons(content), _way_out(content))


def _reasons(content: Mapping[str, Any]) -> str:
    counted = Counter(item["reason"] for item in content["skipped"])
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(counted.items())) or "nothing to read"


def _way_out(content: Mapping[str, Any]) -> str:
    """The detail of the first film that is not such as the run was made for, and how to have it all the same."""
    for item in content["skipped"]:
        if item["reason"] in ("modality", "size", "aspect", "brightness", "colour"):
            return f"; the first: {item['detail']}; --allow {item['reason']} takes such films all the same"
    return ""


def _export(options: PredictOptions, content: Mapping[str, Any]) -> None:
    from mim.evaluation.dicom_export import export_predictions

    assert options.output is not None
    done = export_predictions(content, options.paths, options.output / "dicom")
    logger.info("%s", done.in_words())
