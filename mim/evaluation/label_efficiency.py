"""How good a model becomes with few labels: a figure against their number, for several initialisations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mim.errors import MimError
from mim.evaluation.curve_figures import CurveFigure, OnTest, require_same_test
from mim.evaluation.metrics import Settings
from mim.evaluation.over_seeds import SeedDifference, SeedMean, difference_of_seeds, mean_over_seeds


@dataclass(frozen=True, eq=False)
class Trial:
    """One training that came to its end.

    Attributes:
        init: What it started from.
        fraction: Share of the labels that it was trained on.
        seed: Seed of the training, and of the draw of the labels.
        labels: Labelled films that it was trained on.
        measured: Its figure on the test films.
    """

    init: str
    fraction: float
    seed: int
    labels: int
    measured: OnTest


@dataclass(frozen=True)
class Point:
    """Trials of one initialisation and one fraction.

    Attributes:
        init: What they started from.
        fraction: Share of the labels.
        labels: Labelled films, mean over the seeds.
        seeds: The seeds, in order.
        mean: The figure on the test films, mean over the seeds, with its interval over patients and seeds.
        difference: What it has more than the baseline over the seeds that both have; None for the baseline itself, and
            where there is no such seed.
    """

    init: str
    fraction: float
    labels: float
    seeds: tuple[int, ...]
    mean: SeedMean
    difference: SeedDifference | None = None


@dataclass(frozen=True)
class LabelEfficiency:
    """All points, by initialisation and then by fraction, and on how many test films of how many patients."""

    figure: CurveFigure
    points: tuple[Point, ...]
    films: int
    patients: int


def measure_label_efficiency(
    trials: Sequence[Trial], inits: Sequence[str], settings: Settings, *, baseline: str | None
) -> LabelEfficiency:
    """Measure trials on the same test films.

    Args:
        trials: At least one; no two of the same initialisation, fraction and seed.
        inits: Names of the initialisations, in the order wanted.
        settings: Resamples, confidence and seed of the intervals.
        baseline: The initialisation that the others are compared with; None = no comparison.

    Raises:
        MimError: No trials, two of the same kind, or test films that differ.
    """
    if not trials:
        raise MimError("label efficiency: there is no finished run to measure")
    kinds = [(trial.init, trial.fraction, trial.seed) for trial in trials]
    if len(set(kinds)) < len(kinds):
        raise MimError("label efficiency: two runs have the same initialisation, fraction and seed; keep one")
    require_same_test([trial.measured for trial in trials])
    measured = {kind: trial.measured for kind, trial in zip(kinds, trials, strict=True)}
    points = []
    for init in inits:
        for fraction in sorted({trial.fraction for trial in trials if trial.init == init}):
            alike = [trial for trial in trials if (trial.init, trial.fraction) == (init, fraction)]
            alike.sort(key=lambda trial: trial.seed)
            points.append(_point(alike, measured, settings, baseline))
    test = trials[0].measured
    return LabelEfficiency(test.figure, tuple(points), len(test.image_id), len(set(test.patient_id)))


def _point(
    own: Sequence[Trial],
    measured: Mapping[tuple[str, float, int], OnTest],
    settings: Settings,
    baseline: str | None,
) -> Point:
    init, fraction, test = own[0].init, own[0].fraction, own[0].measured
    seeds = tuple(trial.seed for trial in own)
    undefined = test.figure.undefined
    statistics = [trial.measured.statistic for trial in own]
    mean = mean_over_seeds(statistics, test.patient_id, settings, labels=test.label, undefined=undefined)
    difference = None
    if baseline is not None and init != baseline:
        pairs = [
            (measured[baseline, fraction, seed].statistic, measured[init, fraction, seed].statistic)
            for seed in seeds
            if (baseline, fraction, seed) in measured
        ]
        if pairs:
            difference = difference_of_seeds(pairs, test.patient_id, settings, labels=test.label, undefined=undefined)
    labels = float(np.mean([trial.labels for trial in own]))
    return Point(init, fraction, labels, seeds, mean, difference)
