"""From predictions.json and the films it is of to DICOM files."""

import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from mim.errors import MimError
from mim.evaluation.dicom_export.report import structured_report
from mim.evaluation.dicom_export.results import Algorithm, algorithm_of, results_of
from mim.evaluation.dicom_export.segmentation import segmentation
from mim.evaluation.dicom_export.source import UnfitSource, frames_of, read_source
from mim.files import write_atomically

# what pydicom and highdicom raise on headers that are not as they should be
_ODD_HEADER = (ValueError, TypeError, AttributeError, KeyError, IndexError, ArithmeticError, NotImplementedError)
_FORM = 2  # raised where the same results are written in another way: another content is another object
# what comes of a record that is not as `python -m mim.predict` writes them
_ODD_RECORD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        reports: Structured reports, by file.
        segmentations: Segmentations, by file.
        skipped: How many files of which nothing was written, by reason.
    """

    reports: Sequence[Path]
    segmentations: Sequence[Path]
    skipped: Mapping[str, int]

    def in_words(self) -> str:
        """In a line."""
        said = f"DICOM: {len(self.reports)} reports, {len(self.segmentations)} segmentations"
        left = "; ".join(f"{count} without: {reason}" for reason, count in sorted(self.skipped.items()))
        return f"{said}; {left}" if left else said


def export_predictions(content: Mapping[str, Any], paths: Sequence[Path], output: Path) -> Exported:
    """Writes `HASH.sr.dcm` for each DICOM file and, where there is something to show, `HASH.seg.dcm`.

    Of a file of several frames there is one report, and a segmentation `HASH-N.seg.dcm` for each frame, from 1.

    An object that is there already with the same content stays as it is.

    Args:
        content: Of predictions.json.
        paths: The films, or folders of them, known again by the hash of their bytes; none = where `content` says.
        output: Folder to write to.

    Raises:
        MimError: highdicom is not installed, `content` cannot be understood, or the folder cannot be written.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise MimError("DICOM reports need highdicom: pip install 'mim[dicom]'")
    try:
        model, films = content["model"], content["films"]
        algorithm = algorithm_of(model)
        by_hash: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for film in films:
            by_hash[str(film["sha256"])].append(film)
            int(film["frame"]), _said(film)  # before anything is written
        names = [Path(str(film["file"])) for film in films]
    except _ODD_RECORD as error:
        raise MimError(f"predictions.json cannot be understood: {type(error).__name__}: {error}") from error
    reports: list[Path] = []
    segmentations: list[Path] = []
    skipped = Counter[str]()
    unmet = set(by_hash)
    for path in _files(paths or names):
        digest = _hash(path)
        if digest not in unmet:
            continue
        unmet.remove(digest)
        try:
            with warnings.catch_warnings(), _quiet():
                warnings.simplefilter("ignore")  # they may quote the header
                made = make_objects(path, by_hash[digest], model, algorithm)
        except UnfitSource as error:
            skipped[str(error)] += 1
            continue
        reports.append(_write(made.report, output / f"{digest[:16]}.sr.dcm"))
        for frame, planes in made.segmentations.items():
            which = "" if frame is None else f"-{frame}"
            segmentations.append(_write(planes, output / f"{digest[:16]}{which}.seg.dcm"))
    if unmet:
        skipped["the film is not there, or has changed"] += len(unmet)
    return Exported(tuple(reports), tuple(segmentations), dict(skipped))


@dataclass(frozen=True, eq=False)
class Objects:
    """What is made of one file: the report, and segmentations by frame from 1, None where frames have no number."""

    report: Dataset
    segmentations: Mapping[int | None, Dataset]


def make_objects(
    path: Path, films: Sequence[Mapping[str, Any]], model: Mapping[str, Any], algorithm: Algorithm
) -> Objects:
    """Makes the objects of one file.

    Raises:
        UnfitSource: Nothing can be derived from the file.
        MimError: The records cannot be understood.
    """
    source = read_source(path)
    frames = {int(film["frame"]): film for film in films}  # copies of one file have the same records
    said = [_said(film) for film in frames.values()]
    key = json.dumps([_FORM, str(source.SOPInstanceUID), dict(model), said], sort_keys=True)
    count = frames_of(source)
    if max(frames) >= (count or 1):
        raise UnfitSource("has fewer frames than were predicted")
    try:
        results = [results_of(film, model, int(source.Rows), int(source.Columns)) for film in frames.values()]
        made = {result.frame: segmentation(source, result, algorithm, key) for result in results}
        return Objects(
            structured_report(source, results, algorithm, key),
            {(frame + 1 if count else None): one for frame, one in made.items() if one is not None},
        )
    except _ODD_HEADER as error:
        raise UnfitSource(f"a header that no object can be derived from ({type(error).__name__})") from error


def load_predictions(path: Path) -> Mapping[str, Any]:
    """Reads predictions.json.

    Raises:
        MimError: It is not there, or not that.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MimError(f"{path}: cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(content, dict) or not {"schema_version", "model", "films"} <= content.keys():
        raise MimError(f"{path}: is no predictions.json of python -m mim.predict")
    if content["schema_version"] != 1:
        raise MimError(f"{path}: schema_version {content['schema_version']}, this version of mim reads 1")
    return content


def _said(film: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what does not go into an object, such as the name of the file."""
    return {name: value for name, value in film.items() if name not in ("file", "sha256")} | {
        "parts": [{name: value for name, value in part.items() if name != "overlay"} for part in film["parts"]]
    }


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            yield path


def _hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _write(made: Dataset, path: Path) -> Path:
    """Writes an object unless it is there already."""
    if path.is_file():
        try:
            if pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID == made.SOPInstanceUID:
                return path
        except (InvalidDicomError, AttributeError, ValueError, OSError):
            logging.getLogger(__name__).warning("%s is no whole DICOM file: it is written anew", path)
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    try:
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise MimError(f"{path} cannot be written ({error.strerror})") from error
    return path


class _quiet:  # noqa: N801  (used like the context managers of the standard library)
    """Keeps what pydicom and highdicom log, which may quote the header, from any handler."""

    def __enter__(self) -> None:
        self._loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
        self._before = [logger.propagate for logger in self._loggers]
        for logger in self._loggers:
            logger.propagate = False

    def __exit__(self, *_: object) -> None:
        for logger, propagate in zip(self._loggers, self._before, strict=True):
            logger.propagate = propagate
