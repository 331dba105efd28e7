"""The figures given of one split, each with its value, its interval and what it cannot do without."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
    roc_auc_score,
)

from mim.evaluation.bootstrap import (
    Floats,
    Integers,
    Statistic,
    auroc_statistic,
    average_precision_statistic,
    mean_statistic,
    percentile_interval,
    ratio_statistic,
    resample_patients,
)
from mim.evaluation.delong import delong
from mim.evaluation.predictions import Predictions

SPLIT_NAMES: Mapping[str, str] = MappingProxyType({"test": "test", "val": "validation"})


@dataclass(frozen=True)
class Figure:
    """A value with its interval; None where it cannot be computed, with the reason."""

    value: float | None
    low: float | None
    high: float | None
    reason: str | None = None


@dataclass(frozen=True)
class Confusion:
    """Films by what they are and what they are called at the threshold."""

    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int


@dataclass(frozen=True)
class SplitMetrics:
    """Everything that is said of one split; `dropped` resamples held one class only."""

    films: int
    patients: int
    positives: int
    negatives: int
    resamples: int
    dropped: int
    figures: Mapping[str, Figure]
    confusion: Confusion | None


@dataclass(frozen=True)
class Definition:
    """One figure: its value by a library, the same under weights for the bootstrap, and what it needs.

    `interval`, from films and confidence, takes the place of the bootstrap; `unless` is why it may give none.
    """

    title: str
    value: Callable[[Predictions, float], float]
    weighted: Callable[[Predictions, float], Statistic]
    needs: tuple[str, ...] = ()
    interval: Callable[[Predictions, float], tuple[float, float] | None] | None = None
    unless: str = ""


def _called(films: Predictions, threshold: float) -> Integers:
    return (films.score >= threshold).astype(np.int64)


def _squared_error(films: Predictions) -> Floats:
    error: Floats = (films.score - films.label) ** 2
    return error


FIGURES: Mapping[str, Definition] = MappingProxyType(
    {
        "auroc": Definition(
            "AUROC",
            lambda films, _: roc_auc_score(films.label, films.score),
            lambda films, _: auroc_statistic(films.label, films.score),
            ("positive", "negative"),
        ),
        "auroc_delong": Definition(
            "AUROC, interval by DeLong",
            lambda films, _: roc_auc_score(films.label, films.score),
            lambda films, _: auroc_statistic(films.label, films.score),
            ("positive", "negative"),
            lambda films, confidence: delong(films.label, films.patient_id, films.score).interval(confidence),
            "the variance is 0, or fewer than two patients have a film of each class",
        ),
        "auprc": Definition(
            "AUPRC",
            lambda films, _: average_precision_score(films.label, films.score),
            lambda films, _: average_precision_statistic(films.label, films.score),
            ("positive", "negative"),
        ),
        "sensitivity": Definition(
            "Sensitivity",
            lambda films, at: recall_score(films.label, _called(films, at)),
            lambda films, at: mean_statistic(_called(films, at), films.label == 1),
            ("positive", "threshold"),
        ),
        "specificity": Definition(
            "Specificity",
            lambda films, at: recall_score(films.label, _called(films, at), pos_label=0),
            lambda films, at: mean_statistic(1 - _called(films, at), films.label == 0),
            ("negative", "threshold"),
        ),
        "ppv": Definition(
            "Positive predictive value",
            lambda films, at: precision_score(films.label, _called(films, at)),
            lambda films, at: ratio_statistic(films.label * _called(films, at), _called(films, at)),
            ("threshold", "called positive"),
        ),
        "npv": Definition(
            "Negative predictive value",
            lambda films, at: precision_score(films.label, _called(films, at), pos_label=0),
            lambda films, at: ratio_statistic((1 - films.label) * (1 - _called(films, at)), 1 - _called(films, at)),
            ("threshold", "called negative"),
        ),
        "f1": Definition(
            "F1 score",
            lambda films, at: f1_score(films.label, _called(films, at)),
            lambda films, at: ratio_statistic(2 * films.label * _called(films, at), films.label + _called(films, at)),
            ("positive", "threshold"),
        ),
        "accuracy": Definition(
            "Accuracy",
            lambda films, at: accuracy_score(films.label, _called(films, at)),
            lambda films, at: mean_statistic(_called(films, at) == films.label),
            ("threshold",),
        ),
        "brier": Definition(
            "Brier score",
            lambda films, _: brier_score_loss(films.label, films.score, pos_label=1),
            lambda films, _: mean_statistic(_squared_error(films)),
        ),
        "prevalence": Definition(
            "Prevalence",
            lambda films, _: films.label.mean(),
            lambda films, _: mean_statistic(films.label),
        ),
        "keep_rate": Definition(
            "Share of cells seen",
            lambda films, _: films.keep_rate.mean(),
            lambda films, _: mean_statistic(films.keep_rate),
        ),
        "keep_rate_auroc": Definition(
            "AUROC of the share seen",
            lambda films, _: roc_auc_score(films.label, films.keep_rate),
            lambda films, _: auroc_statistic(films.label, films.keep_rate),
            ("positive", "negative"),
        ),
    }
)


def measure_split(
    films: Predictions, split: str, threshold: float | None, *, resamples: int, confidence: float, seed: int
) -> SplitMetrics:
    """Compute every figure that these films allow; the others are None with the reason.

    Args:
        films: The films of one split.
        split: "val" or "test", for the reasons.
        threshold: Score at and above which a film is positive; None = there is none.
        resamples: Resamples of patients.
        confidence: Level of the intervals.
        seed: What the resamples follow from.
    """
    reasons = _missing(films, split, threshold)
    at = 0.0 if threshold is None else threshold  # what needs a threshold is not computed without one
    computed = {name: definition for name, definition in FIGURES.items() if name not in reasons}
    patients = len(set(films.patient_id))
    values: Mapping[str, Floats] = {}
    dropped = 0
    if patients > 1:
        drawn = {name: definition for name, definition in computed.items() if definition.interval is None}
        statistics = {name: definition.weighted(films, at) for name, definition in drawn.items()}
        resampled = resample_patients(films.label, films.patient_id, statistics, resamples=resamples, seed=seed)
        values, dropped = resampled.values, resampled.dropped
    figures = {name: Figure(None, None, None, reasons[name]) for name in reasons}
    for name, definition in computed.items():
        if definition.interval is not None:
            interval = definition.interval(films, confidence) if patients > 1 else None
        else:
            interval = percentile_interval(values[name], confidence) if name in values else None
        figures[name] = _figure(float(definition.value(films, at)), interval, patients, definition.unless)
    positives = int(films.label.sum())
    confusion = None
    if threshold is not None and len(films):
        counts = confusion_matrix(films.label, _called(films, threshold), labels=[0, 1])
        confusion = Confusion(*(int(count) for count in counts.ravel()))
    ordered = {name: figures[name] for name in FIGURES}
    return SplitMetrics(len(films), patients, positives, len(films) - positives, resamples, dropped, ordered, confusion)


def _figure(value: float, interval: tuple[float, float] | None, patients: int, unless: str) -> Figure:
    if interval:
        return Figure(value, *interval)
    none = "one patient only" if patients < 2 else unless or "no resample of the patients held both classes"
    return Figure(value, None, None, f"no interval: {none}")


def _missing(films: Predictions, split: str, threshold: float | None) -> dict[str, str]:
    """Give the reason for each figure that cannot be computed."""
    name = SPLIT_NAMES[split]
    lacking: dict[str, str] = {}
    if threshold is None:
        lacking["threshold"] = "no threshold could be chosen on the validation films"
    else:
        called = films.score >= threshold
        if not called.any():
            lacking["called positive"] = f"no {name} film is called positive"
        if called.all():
            lacking["called negative"] = f"no {name} film is called negative"
    if not (films.label == 0).any():
        lacking["negative"] = f"the {name} set has no negative film"
    if not (films.label == 1).any():
        lacking["positive"] = f"the {name} set has no positive film"
    if not len(films):
        return dict.fromkeys(FIGURES, f"there are no {name} films")
    return {
        figure: "; ".join(lacking[need] for need in definition.needs if need in lacking)
        for figure, definition in FIGURES.items()
        if any(need in lacking for need in definition.needs)
    }
