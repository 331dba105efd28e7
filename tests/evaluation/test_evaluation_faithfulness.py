import json
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from mim.evaluation import (
    Comparisons,
    Faithfulness,
    Figure,
    Intervals,
    Leakage,
    Recall,
    Section,
    WayScores,
    auroc_difference,
    auroc_figures,
    compare_ways,
    make_faithfulness_section,
)

FILMS = 200
PATIENTS = [f"p{film // 2}" for film in range(FILMS)]
LABELS = np.random.default_rng(1).integers(2, size=FILMS)
INTERVALS = Intervals(resamples=300)


def scores(quality: float, seed: int) -> np.ndarray:
    """(1, N) scores; the higher the quality, the better they tell the classes apart."""
    noise = np.random.default_rng(seed).normal(size=FILMS)
    return (1 / (1 + np.exp(-(quality * (LABELS - 0.5) + noise))))[None]


def measure(own: np.ndarray, random: np.ndarray, otsu: np.ndarray, **changed: object) -> Faithfulness:
    ways = {
        "masker": WayScores({0.5: own, 1.0: own}, own),
        "random": WayScores({0.5: random, 1.0: own}, random),
        "otsu": WayScores({0.5: otsu, 1.0: own}, otsu),
    }
    measured = Faithfulness(
        masker="learned",
        films=FILMS,
        patients=FILMS // 2,
        share=0.5,
        random_masks=len(random),
        comparisons=compare_ways(LABELS, PATIENTS, ways, INTERVALS),
        absent={"attention": "a ResNet has none"},
        same=(),
        recall=(),
        no_recall="where the lesions are is not known",
        leakage=None,
        no_leakage="not asked for",
    )
    return replace(measured, **changed)  # type: ignore[arg-type]


def section(measured: Faithfulness) -> Section:
    made = make_faithfulness_section(measured, INTERVALS)
    json.dumps(made.figures, allow_nan=False)
    for plot in made.plots:
        ElementTree.fromstring(plot.drawing)
    return made


def test_a_mask_that_is_no_better_than_random_and_otsu_is_called_out_first() -> None:
    rival = scores(2.0, 1)
    lines = section(measure(rival[:1], rival, rival)).first_lines
    assert len(lines) == 2
    assert "does not beat a random mask" in lines[0]
    assert "Otsu" in lines[1]


def test_a_mask_that_is_better_is_not_called_out() -> None:
    made = section(measure(scores(4.0, 1), scores(1.0, 2), scores(1.0, 3)))
    assert made.first_lines == ()
    assert made.figures["differences"]["random"]["low"] > 0


def test_a_mask_that_beats_only_one_of_them_is_called_out_for_the_other() -> None:
    (line,) = section(measure(scores(3.0, 1), scores(0.5, 2), scores(3.0, 3))).first_lines
    assert "Otsu" in line


def test_a_mask_that_is_worse_is_said_to_be() -> None:
    lines = section(measure(scores(0.5, 1), scores(4.0, 2), scores(4.0, 3))).first_lines
    assert all("worse than" in line for line in lines)
    assert len(lines) == 2


def test_the_same_mask_as_otsus_is_not_held_against_itself() -> None:
    own = scores(3.0, 1)
    made = section(measure(own, scores(0.5, 2), own, same=("otsu",)))
    assert made.first_lines == ()
    assert any("cell by cell" in line for line in made.text)


def test_films_of_one_class_leave_reasons_in_place_of_figures() -> None:
    zeros = np.zeros(FILMS, dtype=int)
    ways = {name: WayScores({0.5: scores(1, 1)}, scores(1, 1)) for name in ("masker", "random", "otsu")}
    measured = measure(scores(1, 1), scores(1, 1), scores(1, 1))
    made = section(replace(measured, comparisons=compare_ways(zeros, PATIENTS, ways, INTERVALS)))
    point = made.figures["curves"]["masker"][0]
    assert point["value"] is None
    assert "one class" in point["reason"]
    assert all("cannot be said" in line for line in made.first_lines)


def test_without_a_masker_there_is_no_verdict() -> None:
    curves: Mapping[str, Mapping[float, Figure]] = {"random": {0.5: Figure(0.7, 0.6, 0.8)}}
    measured = measure(scores(1, 1), scores(1, 1), scores(1, 1))
    none = replace(measured, masker="none", share=None, comparisons=Comparisons(curves, {}, {}))
    made = section(none)
    assert made.first_lines == ()
    assert "no masker" in made.text[0]
    assert made.figures["at_own_share"] == {}


def recall(value: float, grade: str, lesions: int) -> Recall:
    return Recall(
        grade, lesions, lesions, lesions < 10, {"masker": Figure(value, 0.1, 1.0), "random": Figure(0.5, 0, 1)}
    )


def test_lesion_recall_is_the_first_table_and_hidden_lesions_the_first_line() -> None:
    rows = (recall(0.5, "E1", 8), recall(0.9, "D3", 20), recall(22 / 28, "all", 28))
    made = section(measure(scores(4.0, 1), scores(1.0, 2), scores(1.0, 3), recall=rows, no_recall=""))
    assert made.tables[0].caption.startswith("Lesion recall")
    assert [row[:2] for row in made.tables[0].rows] == [("E1", "8*"), ("D3", "20"), ("All", "28")]
    assert "hides 6 of 28 marked lesions" in made.first_lines[0]
    assert "8 mildest (E1) it hides 4" in made.first_lines[0]
    assert any("E1, 8 lesions (few)" in line for line in made.summary)


def leakage(**changed: object) -> Leakage:
    own, none = scores(3.0, 1), Figure(0.5, 0.4, 0.6)
    lost = auroc_difference(LABELS, PATIENTS, scores(1.0, 2), own[0], INTERVALS)
    clean = Leakage(
        alone={"masker": none, "random": none, "otsu": none},
        shifted=none,
        swapped=none,
        lost_by_shift=lost,
        lost_by_swap=lost,
        follows_mask=none,
        keep_rate=none,
        overlap=Figure(0.4, 0.39, 0.41),
        overlap_by_chance=1 / 3,
        evaluator=None,
        no_evaluator="none was named",
    )
    return replace(clean, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"alone": {"masker": Figure(0.98, 0.95, 1.0)}}, "without a single pixel"),
        ({"follows_mask": Figure(0.8, 0.7, 0.9)}, "reads the answer from the mask"),
        ({"overlap": Figure(0.99, 0.98, 1.0)}, "nearly the same mask"),
    ],
)
def test_a_leak_is_said_first(changed: dict[str, object], said: str) -> None:
    better = (scores(4.0, 1), scores(1.0, 2), scores(1.0, 3))
    assert section(measure(*better, leakage=leakage(), no_leakage="")).first_lines == ()
    (line,) = section(measure(*better, leakage=leakage(**changed), no_leakage="")).first_lines
    assert said in line


def test_the_chance_of_the_draw_is_in_the_interval_of_random_masks() -> None:
    one = scores(2.0, 1)
    several = np.concatenate([scores(quality, seed) for seed, quality in enumerate((0.5, 1.0, 3.0, 4.0))])
    figures = auroc_figures(
        LABELS, PATIENTS, {"one": one, "several": several, "same": one.repeat(4, axis=0)}, INTERVALS
    )
    widths = {name: figure.high - figure.low for name, figure in figures.items()}  # type: ignore[operator]
    assert widths["several"] > widths["one"]
    assert figures["same"] == figures["one"]
