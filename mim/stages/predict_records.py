"""What is written of a film that was predicted. `docs/how-to/predict.md` documents every key."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mim import __version__
from mim.config import FinetuneConfig
from mim.data import ManifestRow
from mim.data.regions import Rectangle
from mim.errors import MimError
from mim.evaluation.runs_of_cells import to_runs
from mim.stages.classifier import TaskDescription
from mim.stages.predict_kinds import Answer

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Threshold:
    """At which score a film is called positive.

    Attributes:
        value: None = nothing is called.
        source: "validation" (of `metrics.json` in the run), "given", or "none".
        reason: why there is none.
    """

    value: float | None
    source: str
    reason: str = ""


def hash_of_weights(run: Path) -> str:
    """The hash by which `metrics.json` knows the weights of a run.

    Raises:
        MimError: they cannot be read.
    """
    path = run / "model.safetensors"
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise MimError(f"{path}: cannot be read ({error.strerror})") from error


def threshold_of(run: Path, checkpoint: str, given: float | None) -> Threshold:
    """The threshold that was given, else the one that `evaluate.py` chose on validation for these weights."""
    if given is not None:
        return Threshold(given, "given")
    path = run / "metrics.json"
    if not path.is_file():
        return Threshold(None, "none", "evaluate.py was not run, or wrote elsewhere; run it, or give --threshold")
    try:
        content = json.loads(path.read_text())
        of, threshold = content["header"]["checkpoint"], content["threshold"]
        value, reason = threshold["value"], str(threshold.get("reason") or "")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise MimError(f"{path}: cannot be understood ({type(error).__name__}); run evaluate.py again") from error
    if of != checkpoint:
        return Threshold(None, "none", "metrics.json is of other weights; run evaluate.py again, or give --threshold")
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Threshold(None, "none", reason or "evaluate.py found none")
    return Threshold(float(value), "validation")


def describe_model(
    config: FinetuneConfig,
    description: TaskDescription,
    preparation: Mapping[str, Any],
    checkpoint: str,
    positive: str | None,
    threshold: Threshold,
) -> dict[str, Any]:
    """What answered: no paths, no data."""
    return {
        "task": config.task,
        "target": config.data.target,
        "classes": list(description.classes),
        "positive": positive,
        "checkpoint": checkpoint,
        "version": __version__,
        "backbone": description.encoder.name,
        "hidden": description.encoder.hidden,
        "masker": config.masker.kind,
        "image_size": list(description.encoder.image_size),
        "preparation": dict(preparation),
        "threshold": asdict(threshold),
    }


@dataclass(frozen=True, eq=False)
class AnsweredPart:
    """A stored film, what was said of it, and the picture of that."""

    row: ManifestRow
    answer: Answer
    overlay: str | None


def film_record(
    name: str, sha256: str, parts: Sequence[AnsweredPart], model: Mapping[str, Any], differs: Mapping[str, str]
) -> dict[str, Any]:
    """The record of one film (one frame of a file).

    A film in tiles has the scores of the tile with the highest score of the positive class: it is as suspicious as its
    worst window. Without a positive class it has their mean.

    Args:
        name: what the file is called.
        sha256: of its bytes.
        parts: the whole film, or its tiles.
        model: what answered.
        differs: in what the film differs from those of the training, which was allowed.
    """
    row = parts[0].row
    scores, positive, threshold = _scores(parts, model["positive"]), model["positive"], model["threshold"]["value"]
    record: dict[str, Any] = {
        "file": name,
        "sha256": sha256,
        "frame": row.frame,
        "width": row.width,
        "height": row.height,
        "modality": row.modality or None,
        "bits": row.bits,
        "spacing_mm": None if row.spacing_mm is None else list(row.spacing_mm),
        "differs": dict(differs),
        "scores": scores,
        "score": None if positive is None else scores[positive],
        "call": None,
        "keep_rate": sum(_keep_rate(part.answer) for part in parts) / len(parts),
        "parts": [_part(part) for part in parts],
    }
    if positive is not None and threshold is not None:
        record["call"] = "positive" if scores[positive] >= threshold else "negative"
    return record


def is_finite(answer: Answer) -> bool:
    """Whether all scores are numbers; those of a network that diverged are not."""
    return all(map(math.isfinite, (*answer.scores.values(), *(box.score for box in answer.boxes))))


def document(model: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> dict[str, Any]:
    """The whole of predictions.json."""
    films = [film for entry in entries for film in entry["films"]]
    skipped = [item for entry in entries for item in entry["skipped"]]
    reasons = Counter(item["reason"] for item in skipped)
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": "Research software, not a medical device: not for diagnosis or treatment.",
        "model": dict(model),
        "allowed": sorted(allowed),
        "counts": {
            "files": len(entries),
            "films": len(films),
            "skipped": len(skipped),
            "reasons": dict(sorted(reasons.items())),
        },
        "films": films,
        "skipped": skipped,
    }


def _scores(parts: Sequence[AnsweredPart], positive: str | None) -> dict[str, float]:
    if positive is not None:
        return dict(max((part.answer.scores for part in parts), key=lambda scores: scores[positive]))
    names = parts[0].answer.scores
    return {name: sum(part.answer.scores[name] for part in parts) / len(parts) for name in names}


def _keep_rate(answer: Answer) -> float:
    return 1.0 if answer.visible is None else float(answer.visible.mean())


def _part(part: AnsweredPart) -> dict[str, Any]:
    row, answer = part.row, part.answer
    area = row.crop or Rectangle(0, 0, row.width, row.height)
    record: dict[str, Any] = {
        "region": list(area),
        "scores": dict(answer.scores),
        "keep_rate": _keep_rate(answer),
        "visible": None if answer.visible is None else to_runs(answer.visible),
        "boxes": [
            {
                "box": [
                    area.left + box.box[0] * area.width,
                    area.top + box.box[1] * area.height,
                    area.left + box.box[2] * area.width,
                    area.top + box.box[3] * area.height,
                ],
                "label": box.label,
                "score": box.score,
            }
            for box in answer.boxes
        ],
        "pixels": {name: to_runs(mask) for name, mask in answer.pixels.items()},
        "overlay": part.overlay,
    }
    return record
