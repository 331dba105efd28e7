"""From which probability the pixels of each class are drawn."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from mim.errors import MimError
from mim.stages.predict_records import Threshold, threshold_of


def thresholds_of(run: Path, checkpoint: str, given: float | None, classes: Sequence[str]) -> dict[str, Threshold]:
    """The threshold that was given, else those that `evaluate.py` chose on validation for these weights, a class each.

    Raises:
        MimError: `metrics.json` of the run cannot be understood.
    """
    path = run / "metrics.json"
    if given is not None or len(classes) == 1 or not path.is_file():
        return dict.fromkeys(classes, threshold_of(run, checkpoint, given))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["header"]["checkpoint"] != checkpoint:
            reason = "metrics.json is of other weights; run evaluate.py again, or give --threshold"
            return dict.fromkeys(classes, Threshold(None, "none", reason))
        figures = {one["name"]: one["figures"] for one in content["blocks"]["segmentation_classes"]["classes"]}
        return {name: _read(figures[name]["threshold"]) for name in classes}
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise MimError(f"{path}: cannot be understood ({type(error).__name__}); run evaluate.py again") from error


def _read(chosen: dict[str, float | str | None]) -> Threshold:
    value = chosen["value"]
    if not isinstance(value, int | float) or not math.isfinite(value):
        return Threshold(None, "none", str(chosen.get("reason") or "evaluate.py found none"))
    return Threshold(float(value), "validation")
