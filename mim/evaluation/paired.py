"""Two models on the same films: differences of their figures, with intervals and p."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.admission import admit
from mim.evaluation.bootstrap import (
    Floats,
    Statistic,
    auroc_statistic,
    average_precision_statistic,
    mean_statistic,
    percentile_interval,
    resample_patients,
)
from mim.evaluation.delong import delong
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import written
from mim.evaluation.metrics import Settings
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Section, Table
from mim.evaluation.threshold import choose_threshold

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "AUROC",
        "auroc_delong": "AUROC, DeLong's test",
        "auprc": "AUPRC",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
        "brier": "Brier score",
        "ap": "AP",
        "ap50": "AP50",
        "ap75": "AP75",
        "froc": "FROC score",
        "lesion_sensitivity": "Sensitivity for lesions",
        "false_positives_per_image": "False positives an image",
    }
)
NOTE = (
    "Second run minus first, on the same films and the same resamples of patients. p is two-sided, not adjusted for "
    "the number of rows. What needs a threshold (sensitivity, specificity, masks) is at each run's own, from its "
    "validation films."
)


@dataclass(frozen=True)
class PairedDifference:
    """One figure of two models.

    Attributes:
        first: Value of the first model; None where it has none.
        second: Value of the second model.
        difference: Second minus first, with its interval, or the reason why there is none.
        p: Two-sided p of no difference; None where there is no interval.
    """

    first: float | None
    second: float | None
    difference: Figure
    p: float | None


def require_same_films(first: Predictions, second: Predictions) -> None:
    """Refuse tables whose test films, patients or labels differ.

    Raises:
        MimError: In one line, what differs and what to do.
    """
    one, other = ({row[0]: row[1:] for row in _identity(table)} for table in (first, second))
    if one.keys() != other.keys():
        alone = sorted(one.keys() ^ other.keys())
        raise MimError(
            f"comparison: the runs are of different splits: {len(alone)} test films are in one of them only (such as "
            f"{alone[0]}), {len(one.keys() & other.keys())} in both; evaluate both runs on the same split"
        )
    if differing := [film for film, content in one.items() if content != other[film]]:
        raise MimError(
            f"comparison: {len(differing)} test films have another patient or label in the second table (such as "
            f"{differing[0]}); evaluate both runs on the same labels"
        )


def paired_measure(
    statistics: Mapping[str, tuple[Statistic, Statistic]],
    patients: Sequence[str],
    settings: Settings,
    *,
    labels: npt.ArrayLike | None = None,
    reason: str = "it is not defined on these films",
) -> dict[str, PairedDifference]:
    """Compare pairs of statistics on the same resamples of patients.

    p is twice the smaller share of resampled differences at or beyond 0, counting the data themselves as one resample
    (Davison and Hinkley 1997), so it is never 0.

    Args:
        statistics: Pairs, of the first model and of the second, each for N films.
        patients: N names, one a film.
        settings: Resamples, confidence and seed.
        labels: (N,) of 0 and 1; resamples of one class are then dropped.
        reason: Why a statistic may have no value.
    """
    once = np.ones((1, len(patients)), dtype=np.int64)
    flat = {f"{name} {side}": pair[side] for name, pair in statistics.items() for side in (0, 1)}
    values = {name: float(statistic(once)[0]) if len(patients) else np.nan for name, statistic in flat.items()}
    drawn: Mapping[str, Floats] = {}
    if len(set(patients)) > 1:
        drawn = resample_patients(labels, patients, flat, resamples=settings.bootstrap, seed=settings.seed).values
    found = {}
    for name in statistics:
        first, second = (None if np.isnan(values[f"{name} {side}"]) else values[f"{name} {side}"] for side in (0, 1))
        if first is None or second is None:
            found[name] = PairedDifference(first, second, Figure(None, None, None, reason), None)
            continue
        differences = drawn[f"{name} 1"] - drawn[f"{name} 0"] if drawn else np.empty(0)
        differences = differences[~np.isnan(differences)]
        interval = percentile_interval(differences, settings.confidence)
        none = "no interval: one patient only, or no resample that defines it"
        figure = Figure(second - first, *interval) if interval else Figure(second - first, None, None, none)
        found[name] = PairedDifference(first, second, figure, _p(differences) if interval else None)
    return found


def compare_predictions(first: Predictions, second: Predictions, settings: Settings) -> dict[str, PairedDifference]:
    """Compare two classifiers on the test films that both could score.

    Args:
        first: Validation and test films with the scores of the first model.
        second: The same test films with the scores of the second.
        settings: How intervals are made; `specificity` sets each model's threshold on its validation films.

    Raises:
        MimError: The test films, their patients or their labels differ.
    """
    require_same_films(first, second)
    place = {image: row for row, image in enumerate(second.image_id)}
    test = first.of("test")
    other = second.rows(np.array([place[image] for image in test.image_id], dtype=np.int64))
    both = ~np.isnan(test.score) & ~np.isnan(other.score)
    test, other = test.rows(both), other.rows(both)
    statistics: dict[str, tuple[Statistic, Statistic]] = {}
    for name, make in (("auroc", auroc_statistic), ("auprc", average_precision_statistic)):
        statistics[name] = (make(test.label, test.score), make(other.label, other.score))
    thresholds = [choose_threshold(admit(run).predictions.of("val"), settings.specificity) for run in (first, second)]
    if all(threshold.value is not None for threshold in thresholds):
        calls = [run.score >= (at.value or 0) for run, at in zip((test, other), thresholds, strict=True)]
        statistics["sensitivity"] = _pair([mean_statistic(called, test.label == 1) for called in calls])
        statistics["specificity"] = _pair([mean_statistic(~called, test.label == 0) for called in calls])
    statistics["brier"] = _pair([mean_statistic((run.score - run.label) ** 2) for run in (test, other)])
    one_class = "the test films are of one class only, or there are none"
    if not len(test):
        nothing = PairedDifference(
            None, None, Figure(None, None, None, "there are no test films with two scores"), None
        )
        return dict.fromkeys(statistics, nothing)
    found = paired_measure(statistics, test.patient_id, settings, labels=test.label, reason=one_class)
    if 0 < test.label.sum() < len(test):
        found["auroc_delong"] = _by_delong(test, other, settings.confidence)
    return {name: found[name] for name in TITLES if name in found}


def comparison_section(
    found: Mapping[str, PairedDifference],
    names: tuple[str, str],
    settings: Settings,
    titles: Mapping[str, str] | None = None,
) -> Section:
    """Write a comparison for the report and for `metrics.json`.

    Args:
        found: What `compare_predictions` or `compare_detections` gave.
        names: What the two runs are called.
        settings: How intervals were made.
        titles: How figures are called; None = as those of `compare_predictions` and `compare_detections` are.
    """
    called = TITLES if titles is None else titles
    rows = []
    for name, row in found.items():
        values = ["–" if value is None else f"{value:.3f}" for value in (row.first, row.second)]
        rows.append((called[name], *values, *written(row.difference), "–" if row.p is None else _say_p(row.p)))
    columns = ("Figure", names[0], names[1], "difference", f"{settings.confidence * 100:g} % interval", "p")
    return Section(
        name="comparison",
        title=f"{names[1]} against {names[0]}",
        text=tuple(
            sorted(
                {
                    f"Not all could be compared: {row.difference.reason}."
                    for row in found.values()
                    if row.difference.reason
                }
            )
        ),
        tables=(Table("Differences on the test films", columns, tuple(rows), NOTE),),
        figures={
            name: {
                "first": row.first,
                "second": row.second,
                "difference": row.difference.value,
                "low": row.difference.low,
                "high": row.difference.high,
                "p": row.p,
                "reason": row.difference.reason,
            }
            for name, row in found.items()
        },
        summary=tuple(
            f"{called[name]}: {row.difference.value:+.3f} (p {_say_p(row.p)})"
            for name, row in found.items()
            if row.difference.value is not None and row.p is not None
        ),
    )


def _identity(table: Predictions) -> list[tuple[str, str, int]]:
    test = table.of("test")
    return list(zip(test.image_id, test.patient_id, test.label.tolist(), strict=True))


def _pair(statistics: list[Statistic]) -> tuple[Statistic, Statistic]:
    return statistics[0], statistics[1]


def _p(differences: Floats) -> float:
    beyond = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(differences) + 1))


def _say_p(p: float) -> str:
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def _by_delong(test: Predictions, other: Predictions, confidence: float) -> PairedDifference:
    result = delong(test.label, test.patient_id, test.score, other.score)
    value, interval, p = result.difference(confidence)
    none = "no interval: both runs order the films alike, or fewer than two patients have a film of each class"
    figure = Figure(value, *interval) if interval else Figure(value, None, None, none)
    return PairedDifference(float(result.areas[0]), float(result.areas[1]), figure, p)
