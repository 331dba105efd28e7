from pathlib import Path

import numpy as np
import pytest

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data.annotations import Annotations, Lesion
from mim.stages.mask_safety import mask_safety, place_lesions, random_masks

LEARNED = FinetuneConfig.model_validate({"masker": {"kind": "learned"}})
NONE = FinetuneConfig.model_validate({"masker": {"kind": "none"}})
ASKED = EvaluateConfig.model_validate({"bootstrap": 100})
SIZE = (32, 64)


def lesion(box, grade=""):
    return Lesion(box, "caries", 0, grade, None, "", 1.0, None)


def annotated(lesions):
    return Annotations(Path("lesions.json"), lesions, ("caries",), ("D1", "D3"))


def test_random_masks_show_as_many_cells_of_each_film_and_depend_on_the_seed_alone():
    visible = np.random.default_rng(0).random((5, 4, 8)) < np.linspace(0.1, 0.9, 5)[:, None, None]
    drawn = random_masks(visible, 3, seed=1)
    assert drawn.shape == (3, *visible.shape)
    assert (drawn.sum(axis=(2, 3)) == visible.sum(axis=(1, 2))).all()
    assert not (drawn[0] == drawn[1]).all()
    assert (random_masks(visible, 3, seed=1) == drawn).all()
    assert not (random_masks(visible, 3, seed=2) == drawn).all()


def test_lesions_are_placed_on_the_films_that_hold_them():
    known = annotated({7: (lesion((0.0, 0.0, 0.25, 0.5)),), 9: (lesion((0.5, 0.5, 1.0, 1.0), "D3"),)})
    placed, _ = place_lesions([9, 3, 7], ["a", "b", "c"], known, SIZE, (2, 4))
    assert placed.film.tolist() == [0, 2]
    assert placed.patient == ("a", "c")
    assert placed.cells[0].tolist() == [[0, 0, 0, 0], [0, 0, 0.5, 0.5]]
    assert placed.cells[1].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


def test_what_is_hidden_is_said_first_and_random_masks_stand_beside_it():
    left = (0.0, 0.0, 0.25, 0.5)
    known = annotated({film: (lesion(left, "D1"), lesion((0.75, 0.5, 1.0, 1.0), "D3")) for film in range(12)})
    visible = np.zeros((12, 2, 4), dtype=bool)
    visible[:, :, 2:] = True  # the right half: every D1 is hidden, no D3
    patients = [f"p{film}" for film in range(12)]
    section = mask_safety(ASKED, LEARNED, visible, range(12), patients, known, SIZE)
    recall = {row["grade"]: row for row in section.figures["lesion_recall"]}
    assert recall["D1"]["figures"]["masker"]["value"] == 0
    assert recall["D3"]["figures"]["masker"]["value"] == 1
    assert recall["all"]["figures"]["masker"]["value"] == 0.5
    assert recall["all"]["figures"]["random"]["value"] == pytest.approx(0.5, abs=0.15)
    assert "hides 12 of 24 marked lesions" in section.first_lines[0]
    assert section.figures["share"] == 0.5


def test_without_a_masker_there_is_no_block_and_without_lesions_it_says_why():
    visible = np.ones((2, 2, 4), dtype=bool)
    assert mask_safety(ASKED, NONE, visible, [0, 1], ["a", "b"], None, SIZE) is None
    section = mask_safety(ASKED, LEARNED, visible, [0, 1], ["a", "b"], None, SIZE)
    assert section.figures["lesion_recall"] == []
    assert "the run has no data.boxes" in section.figures["no_lesion_recall"]
    assert not section.first_lines
