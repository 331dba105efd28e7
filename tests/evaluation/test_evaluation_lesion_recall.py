import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mim.evaluation import Intervals, PlacedLesions, lesion_recall
from mim.evaluation.faithfulness_plots import recall_plot
from mim.evaluation.lesion_recall import exact_interval

INTERVALS = Intervals(resamples=200)
FILMS, GRID = 24, (4, 6)


def make_lesions(grades: tuple[str, ...] = ("E1", "D3")) -> PlacedLesions:
    """One lesion a film, in one cell or over two; two films a patient; grades by turns."""
    draws = np.random.default_rng(0)
    cells = np.zeros((FILMS, *GRID))
    for lesion in range(FILMS):
        row, column = draws.integers(GRID[0]), draws.integers(GRID[1] - 1)
        cells[lesion, row, column] = 0.6 if lesion % 3 else 1.0
        cells[lesion, row, column + 1] = 1 - cells[lesion, row, column]
    patients = tuple(f"p{film // 2}" for film in range(FILMS))
    return PlacedLesions(
        cells, np.arange(FILMS), patients, tuple(grades[n % len(grades)] for n in range(FILMS)), grades
    )


def test_a_mask_that_shows_every_lesion_recalls_all_and_one_that_hides_them_none() -> None:
    lesions = make_lesions()
    masks = {"masker": (lesions.cells > 0)[None], "random": (lesions.cells == 0)[None]}
    for row in lesion_recall(lesions, masks, INTERVALS):
        assert row.figures["masker"].value == 1
        assert row.figures["random"].value == 0


def test_half_the_area_is_enough_and_less_is_not() -> None:
    lesions = PlacedLesions(np.array([[[0.5, 0.5]], [[0.4, 0.6]]]), np.array([0, 1]), ("a", "b"), ("", ""))
    left = np.array([[[[True, False]], [[True, False]]]])
    assert lesion_recall(lesions, {"masker": left}, INTERVALS)[-1].figures["masker"].value == 0.5


def test_the_mildest_come_first_then_those_without_grade_then_all() -> None:
    lesions = make_lesions(("E1", "E2", "D1"))
    mixed = PlacedLesions(lesions.cells, lesions.film, lesions.patient, ("",) * 4 + lesions.grade[4:], lesions.grades)
    rows = lesion_recall(mixed, {"masker": np.ones((1, FILMS, *GRID), dtype=bool)}, INTERVALS)
    assert [row.grade for row in rows] == ["E1", "E2", "D1", "not graded", "all"]
    assert sum(row.lesions for row in rows[:-1]) == rows[-1].lesions == FILMS
    assert [row.few for row in rows] == [True, True, True, True, False]


def test_grades_without_an_order_are_one_group() -> None:
    lesions = make_lesions()
    unordered = PlacedLesions(lesions.cells, lesions.film, lesions.patient, lesions.grade)
    rows = lesion_recall(unordered, {"masker": np.ones((1, FILMS, *GRID), dtype=bool)}, INTERVALS)
    assert [row.grade for row in rows] == ["all"]


def test_grades_of_any_name_can_be_drawn() -> None:
    names = ("$\\frac{$", "<b>")
    rows = lesion_recall(make_lesions(names), {"masker": np.ones((1, FILMS, *GRID), dtype=bool)}, INTERVALS)
    assert [row.grade for row in rows] == [*names, "all"]
    drawing = recall_plot(rows, ("masker",), "recall")
    assert "$\\frac{$" in "".join(ET.fromstring(drawing).itertext())


def test_the_interval_follows_patients_not_lesions() -> None:
    lesions = make_lesions()
    seen = lesions.cells > 0
    seen[: FILMS // 2] = False  # of whole patients nothing is shown
    apart = PlacedLesions(lesions.cells, lesions.film, tuple(map(str, range(FILMS))), lesions.grade, lesions.grades)
    masks = {"masker": seen[None]}
    together, alone = (lesion_recall(one, masks, INTERVALS)[-1].figures["masker"] for one in (lesions, apart))
    assert together.value == alone.value == 0.5
    assert together.low is not None
    assert together.high is not None
    assert alone.low is not None
    assert alone.high is not None
    assert together.high - together.low > 1.2 * (alone.high - alone.low)


def test_all_visible_is_not_certainty() -> None:
    low, high = exact_interval(1.0, 12, 0.95)
    assert high == 1
    assert low**12 == pytest.approx(0.025)  # had the chance been lower, twelve in twelve were rarer than that
    assert exact_interval(0.0, 12, 0.95) == (0.0, pytest.approx(1 - low))


def test_draws_of_a_mask_are_averaged() -> None:
    lesions = make_lesions()
    draws = np.stack([lesions.cells > 0, lesions.cells == 0, lesions.cells > 0, lesions.cells > 0])
    assert lesion_recall(lesions, {"random": draws}, INTERVALS)[-1].figures["random"].value == pytest.approx(0.75)


def test_masks_of_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="cells"):
        lesion_recall(make_lesions(), {"masker": np.ones((1, FILMS, 2, 2), dtype=bool)}, INTERVALS)
