import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mim.data import find_near_copies, save_near_copies
from mim.data.duplicates import NEAR


@dataclass(frozen=True)
class Film:
    image_id: str
    patient_id: str
    content: str
    perceptual_hash: str


def turned(value: str, bits: int) -> str:
    """A hash that differs in so many bits."""
    return f"{int(value, 16) ^ ((1 << bits) - 1):064x}"


@pytest.fixture
def hashes() -> list[str]:
    draws = np.random.default_rng(0)
    return [draws.bytes(32).hex() for _ in range(300)]


def films(name: str, hashes: list[str]) -> list[Film]:
    return [Film(f"{name}{place}", f"p{name}{place}", f"c{name}{place}", value) for place, value in enumerate(hashes)]


def test_each_test_film_has_the_nearest_film_of_each_place(hashes: list[str]) -> None:
    test = films("t", hashes[:100])
    near = [turned(hashes[7], 9), turned(hashes[7], 4), hashes[8], hashes[8], turned(hashes[9], NEAR + 1)]
    met = {"pretraining": films("s", [*hashes[100:], *near]), "training": films("l", [turned(hashes[3], 1)])}
    found = find_near_copies(test, met)
    assert [(one.image_id, one.met_in, one.other_image_id, one.distance, one.others) for one in found] == [
        ("t7", "pretraining", "s201", 4, 2),
        ("t8", "pretraining", "s202", 0, 2),
        ("t3", "training", "l0", 1, 1),
    ]
    assert not any(one.same_pixels for one in found)


def test_the_same_pixels_are_said_to_be_the_same(hashes: list[str]) -> None:
    test = [Film("t", "p", "same", hashes[0])]
    met = {"training": [Film("a", "", "other", hashes[0]), Film("b", "", "same", hashes[0])]}
    (one,) = find_near_copies(test, met)
    assert one.other_image_id == "b"
    assert one.same_pixels


def test_films_without_detail_are_copies_of_nothing() -> None:
    flat = films("a", ["", ""])
    assert find_near_copies(flat, {"training": flat}) == []


def test_the_list_has_headings_even_where_it_is_empty(tmp_path: Path, hashes: list[str]) -> None:
    save_near_copies(tmp_path / "none.csv", [])
    test = films("t", hashes[:2])
    save_near_copies(tmp_path / "some.csv", find_near_copies(test, {"training": films("l", hashes[1:2])}))
    with (tmp_path / "some.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "image_id": "t1",
        "patient_id": "pt1",
        "met_in": "training",
        "other_image_id": "l0",
        "other_patient_id": "pl0",
        "distance": "0",
        "same_pixels": "0",
        "others": "1",
    }
    assert (tmp_path / "none.csv").read_text().strip().split(",") == list(row)
