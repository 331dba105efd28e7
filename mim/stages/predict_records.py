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
from mim.stages.predict_answers import Answer, FoundBox

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
    """The threshold that was given, else the one that `evaluate.py` chose on validation for these weights.

    Raises:
        MimError: `metrics.json` of the run cannot be understood.
    """
    if given is not None:
        return Threshold(given, "given")
    path = run / "metrics.json"
    if not path.is_file():
        return Threshold(None, "none", "evaluate.py was not run, or wrote elsewhere; run it, or give --threshold")
    try:
        content = json.loads(path.read_text())
        blocks = content.get("blocks", {})
        if "segmentation_classes" in blocks:
            return Threshold(None, "none", "each class has its own")
        threshold = content["threshold"] if "threshold" in content else blocks["detection"]["threshold"]
        of = content["header"]["checkpoint"]
        value, reason = threshold["value"], str(threshold.get("reason") or "")
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
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
    thresholds: Mapping[str, Threshold] | None = None,
) -> dict[str, Any]:
    """What answered: no paths, no data; of several classes that are called each for itself their thresholds."""
    several = {name: asdict(one) for name, one in (thresholds or {}).items()}
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
        **({"thresholds": several} if len(several) > 1 else {}),
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
    worst window. Without a positive class it has their mean, and of a detector or segmenter the highest of each class.
    A film of a study has no scores of its own.

    Args:
        name: what the file is called.
        sha256: of its bytes.
        parts: the whole film, or its tiles.
        model: what answered.
        differs: in what the film differs from those of the training, which was allowed.
    """
    row = parts[0].row
    scores, positive = _scores(parts, model), model["positive"]
    score = scores.get(positive) if positive is not None else None
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
        "score": score,
        "call": call_of(score, model),
        **_calls(scores, model),
        "keep_rate": sum(_keep_rate(part.answer) for part in parts) / len(parts),
        "parts": [_part(part, model) for part in parts],
    }
    return record


def is_called(score: float | None, model: Mapping[str, Any]) -> bool | None:
    """Whether a score reaches the threshold; None where one of the two is missing."""
    threshold = model["threshold"]["value"]
    return None if threshold is None or score is None else bool(score >= threshold)


def call_of(score: float | None, model: Mapping[str, Any]) -> str | None:
    """The same in words: `positive`, `negative` or None."""
    called = is_called(score, model)
    return None if called is None else "positive" if called else "negative"


def _calls(scores: Mapping[str, float], model: Mapping[str, Any]) -> dict[str, dict[str, str | None]]:
    """The same for each of several classes that have thresholds of their own; nothing where there are none."""
    if "thresholds" not in model:
        return {}
    return {"calls": {name: call_of(scores[name], {"threshold": own}) for name, own in model["thresholds"].items()}}


def is_finite(answer: Answer) -> bool:
    """Whether all scores are numbers; those of a network that diverged are not."""
    return all(map(math.isfinite, (*answer.scores.values(), *(box.score for box in answer.boxes))))


def document(model: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], allowed: Sequence[str]) -> dict[str, Any]:
    """The whole of predictions.json."""
    films = [film for entry in entries for film in entry["films"]]
    skipped = [item for entry in entries for item in entry["skipped"]]
    reasons = Counter(item["reason"] for item in skipped)
    counts = {"files": len(entries), "films": len(films), "skipped": len(skipped)}
    studies = [study for entry in entries for study in entry.get("studies", ())]
    of_studies = model["task"] == "study"
    return {
        "schema_version": SCHEMA_VERSION,
        "notice": "Research software, not a medical device: not for diagnosis or treatment.",
        "model": dict(model),
        "allowed": sorted(allowed),
        "counts": {
            **counts,
            **({"studies": len(studies)} if of_studies else {}),
            "reasons": dict(sorted(reasons.items())),
        },
        **({"studies": studies} if of_studies else {}),
        "films": films,
        "skipped": skipped,
    }


def _scores(parts: Sequence[AnsweredPart], model: Mapping[str, Any]) -> dict[str, float]:
    names, positive = parts[0].answer.scores, model["positive"]
    if model["task"] in ("detect", "segment"):
        return {name: max(part.answer.scores[name] for part in parts) for name in names}
    if positive in names:
        return dict(max((part.answer.scores for part in parts), key=lambda scores: scores[positive]))
    return {name: sum(part.answer.scores[name] for part in parts) / len(parts) for name in names}


def _keep_rate(answer: Answer) -> float:
    return 1.0 if answer.visible is None else float(answer.visible.mean())


def _part(part: AnsweredPart, model: Mapping[str, Any]) -> dict[str, Any]:
    row, answer = part.row, part.answer
    area = row.crop or Rectangle(0, 0, row.width, row.height)
    record: dict[str, Any] = {
        "region": list(area),
        "scores": dict(answer.scores),
        "keep_rate": _keep_rate(answer),
        "visible": None if answer.visible is None else to_runs(answer.visible),
        "boxes": [_box(box, area, model) for box in answer.boxes],
        "pixels": {name: to_runs(mask) for name, mask in answer.pixels.items()},
        "overlay": part.overlay,
    }
    return record


def _box(box: FoundBox, area: Rectangle, model: Mapping[str, Any]) -> dict[str, Any]:
    x1, y1, x2, y2 = box.box
    return {
        "box": [
            area.left + x1 * area.width,
            area.top + y1 * area.height,
            area.left + x2 * area.width,
            area.top + y2 * area.height,
        ],
        "label": box.label,
        "score": box.score,
        "called": is_called(box.score, model),
    }
