"""How good a model becomes with few labels: AUROC against their number, for several initialisations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mim.errors import MimError
from mim.evaluation.bootstrap import Floats
from mim.evaluation.comparison import Difference, SeedMean, auroc_over_seeds, difference_over_seeds
from mim.evaluation.metrics import Settings
from mim.evaluation.paired import require_same_films
from mim.evaluation.predictions import Predictions


@dataclass(frozen=True, eq=False)
class Trial:
    """One training that came to its end.

    Attributes:
        init: What it started from.
        fraction: Share of the labels that it was trained on.
        seed: Seed of the training, and of the draw of the labels.
        labels: Labelled films that it was trained on.
        predictions: Its scores.
    """

    init: str
    fraction: float
    seed: int
    labels: int
    predictions: Predictions


@dataclass(frozen=True)
class Point:
    """Trials of one initialisation and one fraction.

    Attributes:
        init: What they started from.
        fraction: Share of the labels.
        labels: Labelled films, mean over the seeds.
        seeds: The seeds, in order.
        aurocs: AUROC on the test films for each of them; None where it is not defined.
        mean: Their mean, with its interval over patients and seeds.
        difference: AUROC less that of the baseline over the seeds that both have; None for the baseline itself, and
            where there is no such seed.
    """

    init: str
    fraction: float
    labels: float
    seeds: tuple[int, ...]
    aurocs: tuple[float | None, ...]
    mean: SeedMean
    difference: Difference | None = None


@dataclass(frozen=True)
class LabelEfficiency:
    """All points, by initialisation and then by fraction, and on how many test films of how many patients."""

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
        MimError: No trials, two of the same kind, test films that differ, or one without a score.
    """
    if not trials:
        raise MimError("label efficiency: there is no finished run to measure")
    kinds = [(trial.init, trial.fraction, trial.seed) for trial in trials]
    if len(set(kinds)) < len(kinds):
        raise MimError("label efficiency: two runs have the same initialisation, fraction and seed; keep one")
    reference = trials[0].predictions
    test = reference.of("test")
    scores: dict[tuple[str, float, int], Floats] = {}
    for kind, trial in zip(kinds, trials, strict=True):
        require_same_films(reference, trial.predictions)
        own = trial.predictions.of("test")
        place = {image: row for row, image in enumerate(own.image_id)}
        scores[kind] = own.score[[place[image] for image in test.image_id]]
    points = []
    for init in inits:
        for fraction in sorted({trial.fraction for trial in trials if trial.init == init}):
            alike = [trial for trial in trials if (trial.init, trial.fraction) == (init, fraction)]
            alike.sort(key=lambda trial: trial.seed)
            points.append(_point(alike, test, scores, settings, baseline))
    return LabelEfficiency(tuple(points), len(test), len(set(test.patient_id)))


def _point(
    own: Sequence[Trial],
    test: Predictions,
    scores: Mapping[tuple[str, float, int], Floats],
    settings: Settings,
    baseline: str | None,
) -> Point:
    init, fraction = own[0].init, own[0].fraction
    how = {"resamples": settings.bootstrap, "seed": settings.seed}
    seeds = tuple(trial.seed for trial in own)
    mean = auroc_over_seeds(
        test.label,
        test.patient_id,
        [scores[init, fraction, seed] for seed in seeds],
        confidence=settings.confidence,
        **how,
    )
    pairs = []
    if baseline is not None and init != baseline:
        pairs = [
            (scores[baseline, fraction, seed], scores[init, fraction, seed])
            for seed in seeds
            if (baseline, fraction, seed) in scores
        ]
    difference = None
    if pairs:
        difference = difference_over_seeds(test.label, test.patient_id, pairs, confidence=settings.confidence, **how)
    labels = float(np.mean([trial.labels for trial in own]))
    return Point(init, fraction, labels, seeds, mean.aurocs, mean, difference)
