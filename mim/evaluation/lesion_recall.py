"""How many lesions a mask leaves to be seen: the safety figure of an input masker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.errors import MimError
from mim.evaluation.bootstrap import mean_statistic, percentile_interval, resample_patients
from mim.evaluation.figures import Figure
from mim.evaluation.intervals import Intervals

Floats = npt.NDArray[np.float64]
Masks = npt.NDArray[np.bool_]

LEAST_VISIBLE = 0.5
"""Share of its area that a lesion must show to count as visible."""
FEW_LESIONS = 10
"""Below this many lesions a share is marked as resting on few."""
ROUNDING = 1e-6
"""By which an area may fall short of half for what its sum was rounded by."""


@dataclass(frozen=True)
class PlacedLesions:
    """Lesions on the films that masks are of.

    Attributes:
        cells: (L, gh, gw), the share of each lesion's area that lies in each cell; a lesion's cells add up to 1.
        film: (L,) which of the films, from 0.
        patient: L names.
        grade: L grades; empty where a lesion has none.
        grades: All grades in their order, the mildest first; empty where no order is known.
    """

    cells: Floats
    film: npt.NDArray[np.int64]
    patient: tuple[str, ...]
    grade: tuple[str, ...]
    grades: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.cells) == len(self.film) == len(self.patient) == len(self.grade):
            raise MimError(
                f"lesions: {len(self.cells)} places, {len(self.film)} films, {len(self.patient)} patients and "
                f"{len(self.grade)} grades; give one of each a lesion"
            )

    def __len__(self) -> int:
        return len(self.film)


@dataclass(frozen=True)
class Recall:
    """Lesions of one grade: how many, and what share of them each mask leaves visible.

    Attributes:
        grade: Its name; `all` for all lesions together, `not graded` for those without.
        lesions: How many.
        patients: Of how many patients.
        few: Whether they are fewer than ten.
        figures: Share visible, by the name of the mask.
    """

    grade: str
    lesions: int
    patients: int
    few: bool
    figures: Mapping[str, Figure]


def visible_share(lesions: PlacedLesions, masks: Masks) -> Floats:
    """Gives the share of each lesion's area that is visible.

    Args:
        lesions: L lesions.
        masks: (D, N, gh, gw), True = visible, under D draws of a mask.

    Returns:
        (D, L).
    """
    if masks.shape[-2:] != lesions.cells.shape[-2:]:
        raise ValueError(f"masks of {masks.shape[-2:]} cells for lesions on {lesions.cells.shape[-2:]}")
    shares: Floats = np.stack([(lesions.cells * one[lesions.film]).sum(axis=(1, 2)) for one in masks])
    return shares


def lesion_recall(lesions: PlacedLesions, masks: Mapping[str, Masks], intervals: Intervals) -> tuple[Recall, ...]:
    """Gives the share of lesions of which at least half the area is visible, by grade.

    Intervals come from resampling the patients who have such lesions, all lesions of a patient together. Where all are
    visible, or none, every resample says the same, which is not certainty: the interval is then the exact binomial one
    of as many trials as there are patients (Clopper and Pearson 1934).

    Args:
        lesions: Of the films.
        masks: By name, (D, N, gh, gw), True = visible. With several draws of a mask a lesion counts by the share of
            the draws in which it is visible.
        intervals: How intervals are made.

    Returns:
        One row a grade that lesions have, mildest first; then those without grade, if others have one; then all.
    """
    found = {
        name: (visible_share(lesions, mask) >= LEAST_VISIBLE - ROUNDING).mean(axis=0) for name, mask in masks.items()
    }
    grades = np.array(lesions.grade, dtype=object)
    known = [grade for grade in lesions.grades if (grades == grade).any()]
    groups = [(grade, grades == grade) for grade in known]
    rest = ~np.isin(grades, known) if known else np.zeros(len(lesions), dtype=bool)
    if rest.any():
        groups.append(("not graded", rest))
    groups.append(("all", np.ones(len(lesions), dtype=bool)))
    return tuple(_recall(grade, lesions, among, found, intervals) for grade, among in groups)


def _recall(
    grade: str, lesions: PlacedLesions, among: npt.NDArray[np.bool_], found: Mapping[str, Floats], intervals: Intervals
) -> Recall:
    patients = [patient for patient, chosen in zip(lesions.patient, among, strict=True) if chosen]
    count, people = int(among.sum()), len(set(patients))
    figures = {name: recall_figure(values[among], patients, intervals) for name, values in found.items()}
    return Recall(grade, count, people, count < FEW_LESIONS, figures)


def recall_figure(found: Floats, patients: Sequence[str], intervals: Intervals) -> Figure:
    """Gives the share of lesions that are visible, with an interval from resampling patients.

    Where all are visible, or none, the interval is the exact one of `exact_interval`.

    Args:
        found: (L,), 1 = visible, 0 = not, or the share of several draws of a mask in which it is.
        patients: L names.
        intervals: How the interval is made.
    """
    if not len(found):
        return Figure(None, None, None, "there are no lesions")
    value, people = float(found.mean()), len(set(patients))
    if value in (0.0, 1.0):
        return Figure(value, *exact_interval(value, people, intervals.confidence))
    if people < 2:
        return Figure(value, None, None, "no interval: one patient only")
    resampled = resample_patients(
        np.zeros(len(found)),
        patients,
        {"share": mean_statistic(found)},
        resamples=intervals.resamples,
        seed=intervals.seed,
    )
    interval = percentile_interval(resampled.values["share"], intervals.confidence)
    assert interval is not None
    return Figure(value, *interval)


def exact_interval(value: float, trials: int, confidence: float) -> tuple[float, float]:
    """Gives the exact binomial interval of Clopper and Pearson (1934) where all of some trials came out the same.

    Args:
        value: 0 or 1.
        trials: How many.
        confidence: Level, two-sided.
    """
    tail = (1 - confidence) / 2
    if value == 1:
        return tail ** (1 / trials), 1.0
    return 0.0, 1 - tail ** (1 / trials)
