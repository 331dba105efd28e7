"""Values with patient-clustered intervals from statistics under weights, and how they are written."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from mim.evaluation.bootstrap import Floats, Statistic, percentile_interval, resample_patients
from mim.evaluation.figures import Figure
from mim.evaluation.metrics import Settings

UNDEFINED = "it is not defined on these films"


def measure(
    statistics: Mapping[str, Statistic],
    patients: Sequence[str],
    settings: Settings,
    *,
    jointly: Mapping[tuple[str, ...], Statistic] | None = None,
    labels: npt.ArrayLike | None = None,
    reasons: Mapping[str, str] | None = None,
) -> dict[str, Figure]:
    """Compute statistics with percentile intervals over resamples of whole patients.

    The value is the statistic with every weight 1; resamples that do not define it are left out of its interval.

    Args:
        statistics: What to compute, each for N films.
        patients: N names, one a film.
        settings: Resamples, confidence and seed.
        jointly: Statistics that give several figures at once, (R, K) under K names.
        labels: (N,) of 0 and 1; resamples of one class are then dropped where the films are of both.
        reasons: Why a figure may have no value.
    """
    why = reasons or {}
    named: dict[tuple[str, ...], Statistic] = {(name,): statistic for name, statistic in statistics.items()}
    named |= jointly or {}
    if not len(patients):
        return {name: Figure(None, None, None, why.get(name, UNDEFINED)) for names in named for name in names}
    once = np.ones((1, len(patients)), dtype=np.int64)
    values = {names: np.atleast_1d(np.squeeze(statistic(once), axis=0)) for names, statistic in named.items()}
    drawn: dict[tuple[str, ...], Floats] = {}
    if len(set(patients)) > 1:
        chosen = {str(number): named[names] for number, names in enumerate(named) if np.isfinite(values[names]).any()}
        resampled = resample_patients(labels, patients, chosen, resamples=settings.bootstrap, seed=settings.seed)
        drawn = {names: resampled.values[str(n)] for n, names in enumerate(named) if str(n) in chosen}
    figures = {}
    for names in named:
        for place, name in enumerate(names):
            column = drawn[names].reshape(-1, len(names))[:, place] if names in drawn else None
            figures[name] = _figure(float(values[names][place]), column, settings, why.get(name, UNDEFINED))
    return figures


def _figure(value: float, drawn: Floats | None, settings: Settings, reason: str) -> Figure:
    if not np.isfinite(value):
        return Figure(None, None, None, reason)
    if drawn is None:
        return Figure(value, None, None, "no interval: one patient only")
    interval = percentile_interval(drawn, settings.confidence)
    if interval is None:
        return Figure(value, None, None, "no interval: no resample of the patients defines it")
    return Figure(value, *interval)


def written(figure: Figure, digits: int = 3) -> tuple[str, str]:
    """A figure as two cells of a table, value and interval; a dash where there is none."""
    if figure.value is None:
        return "–", "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}", "–"
    return f"{figure.value:.{digits}f}", f"{figure.low:.{digits}f} to {figure.high:.{digits}f}"


def as_json(figure: Figure) -> dict[str, float | str | None]:
    """A figure as it stands in `metrics.json`."""
    return {"value": figure.value, "low": figure.low, "high": figure.high, "reason": figure.reason}
