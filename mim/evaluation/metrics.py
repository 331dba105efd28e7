"""All figures of an evaluation, and `metrics.json`.

Keys of `metrics.json` (every number is finite; what cannot be computed is null and has a reason):

- `schema_version`: 1.
- `header`: what the figures belong to: `target`, hashes `data`, `split` and `checkpoint`, `version`, `seed`,
  `image_size`, `trained_on`, `lesions`, `near_copies`, `more`; or null.
- `settings`: `bootstrap` (resamples), `confidence`, `specificity` (asked for), `seed`.
- `threshold`: `value`, `chosen_on` ("val"), `reason`. A film is called positive where its score >= value.
- `test`, `val`: `films`, `patients`, `positives`, `negatives`; `resamples`, `dropped` (resamples of one class);
  `confusion` with `true_negatives`, `false_positives`, `false_negatives`, `true_positives`, or null; and the figures
  `auroc`, `auroc_delong` (the same with DeLong's interval), `auprc`, `sensitivity`, `specificity`, `ppv`, `npv`, `f1`,
  `accuracy`, `brier`, `prevalence`, `keep_rate` (mean share of cells seen) and `keep_rate_auroc` (AUROC of that share
  against the label), each `{value, low, high, reason}`, all without unit and in [0, 1].
- `blocks`: the figures of each further block of the report, by its name (`mim.evaluation.section`); those of
  `faithfulness` are explained in docs/reference/faithfulness.md.
- `warnings`: sentences that the report shows at its top.

`mim/evaluation/schemas/metrics.schema.json` says the same as a JSON Schema (draft 2020-12).
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mim.errors import MimError
from mim.evaluation.admission import admit
from mim.evaluation.figures import FIGURES, SPLIT_NAMES, SplitMetrics, measure_split
from mim.evaluation.header import Header
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Section
from mim.evaluation.threshold import Threshold, choose_threshold
from mim.files import write_atomically

SCHEMA_VERSION = 1
FEW_PATIENTS = 10
"""Patients of a class below which a percentile interval is called rough."""


@dataclass(frozen=True)
class Settings:
    """How threshold and intervals are made.

    Raises:
        MimError: A value out of its range.
    """

    bootstrap: int = 2000
    confidence: float = 0.95
    specificity: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if self.bootstrap < 1:
            raise MimError(f"bootstrap is {self.bootstrap}; give at least 1 resample")
        if self.seed < 0:
            raise MimError(f"seed is {self.seed}; give 0 or more")
        for name in ("confidence", "specificity"):
            if not 0 < getattr(self, name) < 1:
                raise MimError(f"{name} is {getattr(self, name)}; give a number between 0 and 1, such as 0.9")


@dataclass(frozen=True)
class Metrics:
    """Figures of test and validation films, the threshold between them, and what a reader must be warned of."""

    settings: Settings
    threshold: Threshold
    test: SplitMetrics
    val: SplitMetrics
    warnings: tuple[str, ...]

    def to_dict(
        self, header: Header | None = None, warnings: Sequence[str] = (), sections: Sequence[Section] = ()
    ) -> dict[str, Any]:
        """Give the content of `metrics.json`; further warnings stand before those of the figures."""
        splits = {}
        for name, split in (("test", self.test), ("val", self.val)):
            content = asdict(split)
            splits[name] = content | content.pop("figures")
        return {
            "schema_version": SCHEMA_VERSION,
            "header": asdict(header) if header else None,
            "settings": asdict(self.settings),
            "threshold": {"value": self.threshold.value, "chosen_on": "val", "reason": self.threshold.reason},
            **splits,
            "blocks": {section.name: dict(section.figures) for section in sections},
            "warnings": [*warnings, *self.warnings],
        }

    def save(
        self, path: Path, header: Header | None = None, warnings: Sequence[str] = (), sections: Sequence[Section] = ()
    ) -> None:
        """Write `metrics.json`; a reader never meets half of it."""
        text = json.dumps(self.to_dict(header, warnings, sections), indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(path, text + "\n")


def evaluate_predictions(
    predictions: Predictions,
    *,
    bootstrap: int = 2000,
    confidence: float = 0.95,
    specificity: float = 0.9,
    seed: int = 0,
    trained_on: Collection[str] = (),
) -> Metrics:
    """Choose a threshold on the validation films and measure the test films with it.

    Films without a score, and films of patients that were trained on, are left out; a warning says so.

    Intervals come from resampling whole patients (percentile method). The threshold is held fixed in them: they say
    how figures vary with the test patients, not with the validation patients.

    Args:
        predictions: Validation and test films.
        bootstrap: Resamples of patients.
        confidence: Level of the intervals.
        specificity: Least specificity on the validation films at the threshold.
        seed: What the resamples follow from.
        trained_on: Patients whose films the model was trained on.

    Raises:
        MimError: A setting out of its range.
    """
    settings = Settings(bootstrap, confidence, specificity, seed)
    admitted = admit(predictions, trained_on)
    predictions = admitted.predictions
    films = {split: predictions.of(split) for split in SPLIT_NAMES}
    threshold = choose_threshold(films["val"], specificity)
    measured = {
        split: measure_split(rows, split, threshold.value, resamples=bootstrap, confidence=confidence, seed=seed)
        for split, rows in films.items()
    }
    warnings = [*admitted.warnings, *([f"No threshold: {threshold.reason}."] if threshold.reason else [])]
    warnings += _shared_patients(films["test"], films["val"])
    for split, metrics in measured.items():
        warnings += _gaps(split, metrics)
    warnings += _doubts(films["test"], measured["test"], confidence)
    return Metrics(settings, threshold, measured["test"], measured["val"], tuple(warnings))


def _shared_patients(test: Predictions, val: Predictions) -> Iterator[str]:
    shared = len(set(test.patient_id) & set(val.patient_id))
    if shared:
        yield (
            f"{shared} {_plural(shared, 'patient has', 'patients have')} films in both the validation and the test "
            "set: the test figures are not independent of the threshold."
        )


def _gaps(split: str, metrics: SplitMetrics) -> Iterator[str]:
    """Say once for each reason which figures of a split are not given."""
    by_reason: dict[str, list[str]] = {}
    for name, figure in metrics.figures.items():
        if figure.reason:
            by_reason.setdefault(figure.reason, []).append(FIGURES[name].title)
    for reason, titles in by_reason.items():
        names = ", ".join(titles) if len(titles) < len(FIGURES) else "all of them"
        yield f"Figures of the {SPLIT_NAMES[split]} set that are missing or without interval: {names} ({reason})."


def _doubts(test: Predictions, metrics: SplitMetrics, confidence: float) -> Iterator[str]:
    """Say what makes the test figures less certain than they look."""
    if metrics.dropped:
        yield (
            f"{metrics.dropped} of {metrics.resamples} resamples of the test patients held one class only and were "
            "dropped; the intervals rest on the others."
        )
    yield from few_patients(test)
    for name in ("auroc", "auprc", "sensitivity", "specificity"):
        figure = metrics.figures[name]
        if figure.value is not None and figure.low is not None and figure.low == figure.high:
            yield f"{FIGURES[name].title} is {without_width(figure.value)}."
    rate = metrics.figures["keep_rate_auroc"]
    if rate.low is not None and rate.high is not None and not rate.low <= 0.5 <= rate.high:
        yield (
            f"The share of cells seen is itself related to the label (AUROC {rate.value:.3f}, "
            f"{confidence * 100:g} % interval {rate.low:.3f} to {rate.high:.3f}): the mask may give the answer away."
        )


def few_patients(test: Predictions) -> Iterator[str]:
    """Say of which class there are so few patients that an interval over them is rough."""
    for label, name in ((1, "positive"), (0, "negative")):
        patients = len({patient for patient, own in zip(test.patient_id, test.label, strict=True) if own == label})
        if 0 < patients < FEW_PATIENTS:
            people = _plural(patients, "patient has", "patients have")
            yield f"Only {patients} test {people} a {name} film: the intervals are rough."


def few_with_lesions(patients: int) -> str:
    """Say that an interval over so few patients is rough."""
    people = "patient has" if patients == 1 else "patients have"
    return f"only {patients} test {people} a lesion: the intervals are rough."


def without_width(value: float) -> str:
    """Say what it means that a figure is the same in all resamples."""
    return f"{value:.3f} in every resample: its interval has no width, which is not certainty; more patients are needed"


def _plural(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
