"""Annotations of every format come out alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from annotation_factory import (
    BOXES,
    HEIGHT,
    WIDTH,
    coco,
    dentex,
    make_films,
    write_json,
)
from film_factory import SALT, pattern, store_films, write_csv, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from import_calls import SOURCES, boxes_of, problems, rows, run

from mim.data import attach_labels
from mim.data.annotations import read_annotations
from mim.data.import_labels import main
from mim.data.importers.masks import run_lengths


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return make_films(tmp_path / "films")


@pytest.mark.parametrize("kind", SOURCES)
def test_every_format_with_boxes_comes_out_alike_and_the_doors_take_it(kind: str, films: Path, tmp_path: Path) -> None:
    more = ["--mask-name", "{stem}_mask.png", "--classes", "caries,crown"] if kind == "masks" else []
    status, output = run(films, SOURCES[kind](tmp_path / "source"), kind, *more)
    assert status == 0
    assert problems(output) == []
    assert rows(output / "labels.csv") == [
        {"image": "a.png", "caries": "1", "crown": "1"},
        {"image": "b.png", "caries": "0", "crown": "0"},
    ]
    found = boxes_of(output)
    assert found["b.png"] == []
    assert [name for name, _ in found["a.png"]] == list(BOXES)
    np.testing.assert_allclose([box for _, box in found["a.png"]], list(BOXES.values()), atol=2e-3)
    prepared = store_films(films, tmp_path / "prepared")
    labelled = attach_labels(prepared, films, output / "labels.csv", "caries", SALT)
    assert [film.label for film in labelled.films] == [1, 0]
    shares = [lesion.box for lesion in read_annotations(prepared, films, str(output / "boxes.coco.json")).of(0)]
    wanted = [(x / WIDTH, y / HEIGHT, r / WIDTH, b / HEIGHT) for x, y, r, b in BOXES.values()]
    np.testing.assert_allclose(shares, wanted, atol=1e-4)


def test_folders_are_classes_and_may_be_splits_too(tmp_path: Path) -> None:
    for number, name in enumerate(("normal/1.png", "caries/deep/2.png", "caries/3.png")):
        write_png(tmp_path / "films" / name, pattern(number))
    assert main([str(tmp_path / "films"), "--format", "folder", "--output", str(tmp_path / "one")]) == 0
    assert rows(tmp_path / "one" / "labels.csv") == [
        {"image": "caries/3.png", "class": "caries", "caries": "1", "normal": "0"},
        {"image": "caries/deep/2.png", "class": "caries", "caries": "1", "normal": "0"},
        {"image": "normal/1.png", "class": "normal", "caries": "0", "normal": "1"},
    ]
    for number, name in enumerate(("train/normal/1.png", "valid/caries/2.png", "test/caries/3.png")):
        write_png(tmp_path / "split" / name, pattern(number))
    assert main([str(tmp_path / "split"), "--format", "folder", "--output", str(tmp_path / "two")]) == 0
    assert [row["split"] for row in rows(tmp_path / "two" / "labels.csv")] == ["test", "train", "val"]
    write_png(tmp_path / "films" / "loose.png", pattern(9))
    assert main([str(tmp_path / "films"), "--format", "folder", "--output", str(tmp_path / "three")]) == 2
    assert problems(tmp_path / "three") == [("file-without-label", "", "loose.png")]
    assert not (tmp_path / "three" / "labels.csv").exists()


def test_of_a_table_only_what_is_asked_for_is_taken(films: Path, tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "ris.csv",
        ("Datei", "PatID", "Name", "Geburt", "Befund", "Datum"),
        ("a.png", "P1", "Doe^Jane", "19700101", "1", "2024-05-17"),
        ("b.png", "P2", "Roe^Max", "19800101", "0", "20240518"),
    )
    named = ["--column", "image=Datei", "--column", "patient_id=PatID", "--column", "date=Datum"]
    status, output = run(films, table, "csv", "--label", "Befund", *named)
    assert status == 0
    assert rows(output / "labels.csv") == [
        {"image": "a.png", "patient_id": "P1", "date": "20240517", "Befund": "1"},
        {"image": "b.png", "patient_id": "P2", "date": "20240518", "Befund": "0"},
    ]
    assert not (output / "boxes.coco.json").exists()
    assert not any("Doe" in path.read_text() for path in output.iterdir())


def test_patients_come_from_a_table_or_from_the_path(films: Path, tmp_path: Path) -> None:
    source = write_json(tmp_path / "boxes.json", coco())
    table = write_csv(tmp_path / "ris.csv", ("image", "patient_id", "site"), ("a.png", "P1", "Bern"), ("c.png", "", ""))
    status, output = run(films, source, "coco", "--patients", str(table), "--patient-pattern", r"^(\w)\.png")
    assert status == 0
    found = [(row["patient_id"], row["site"]) for row in rows(output / "labels.csv")]
    assert found == [("P1", "Bern"), ("b", "")]


def test_a_dentex_box_keeps_its_tooth(films: Path, tmp_path: Path) -> None:
    _, output = run(films, write_json(tmp_path / "d.json", dentex()), "dentex")
    content = json.loads((output / "boxes.coco.json").read_text())
    assert [own["attributes"] for own in content["annotations"]] == [{"tooth_fdi": "36"}, {"tooth_fdi": "37"}]


def test_dentex_without_diseases_gives_teeth_and_without_teeth_quadrants(films: Path, tmp_path: Path) -> None:
    teeth = dentex()
    del teeth["categories_3"]
    for annotation in teeth["annotations"]:
        del annotation["category_id_3"]
    _, output = run(films, write_json(tmp_path / "teeth.json", teeth), "dentex")
    assert [name for name, _ in boxes_of(output)["a.png"]] == ["36", "37"]
    assert len(rows(output / "labels.csv")[0]) == 1 + 32
    quadrants = coco() | {"categories": [{"id": number + 5, "name": number + 1} for number in range(4)]}
    (output / "labels.csv").unlink()
    (output / "boxes.coco.json").unlink()
    _, output = run(films, write_json(tmp_path / "quadrants.json", quadrants), "dentex")
    assert [name for name, _ in boxes_of(output)["a.png"]] == ["quadrant 1", "quadrant 2"]


def test_polygons_and_run_lengths_are_kept(films: Path, tmp_path: Path) -> None:
    content = coco()
    content["annotations"][0]["segmentation"] = [[6, 4, 18, 4, 18, 12]]
    content["annotations"][1]["segmentation"] = {"size": [HEIGHT, WIDTH], "counts": [100, 7, HEIGHT * WIDTH - 107]}
    _, output = run(films, write_json(tmp_path / "c.json", content), "coco")
    first, second = json.loads((output / "boxes.coco.json").read_text())["annotations"]
    assert first["segmentation"] == [[6, 4, 18, 4, 18, 12]]
    assert first["area"] == 48
    assert (second["segmentation"]["counts"][1], second["area"]) == (7, 7)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_run_lengths_can_be_turned_back(height: int, width: int, top: int, left: int, seed: int) -> None:
    part = np.random.default_rng(seed).random((height, width)) < 0.5
    size = (height + top + seed % 3, width + left + seed % 2)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = part
    lengths = run_lengths(part, (top, left), size)
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    np.testing.assert_array_equal(values.reshape(size, order="F"), mask)


def test_masks_may_lie_beside_their_films(films: Path) -> None:
    write_png(films / "a_mask.png", np.full((HEIGHT, WIDTH), 255, np.uint8))
    write_png(films / "b_mask.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    status, output = run(films, films, "masks", "--classes", "caries", "--mask-name", "{stem}_mask.png")
    assert status == 0
    assert rows(output / "labels.csv") == [{"image": "a.png", "caries": "1"}, {"image": "b.png", "caries": "0"}]


def test_each_connected_part_of_a_mask_is_a_box_of_its_own(films: Path, tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:5, 3:9] = mask[20:30, 40:44] = 255
    for name in ("a", "b"):
        write_png(tmp_path / "masks" / f"{name}.png", mask)
    status, output = run(films, tmp_path / "masks", "masks", "--classes", "caries")
    assert status == 0
    assert boxes_of(output)["a.png"] == [("caries", (3, 2, 9, 5)), ("caries", (40, 20, 44, 30))]
    assert [own["area"] for own in json.loads((output / "boxes.coco.json").read_text())["annotations"]] == [18, 40] * 2


def test_names_of_label_studio_and_of_other_folders_are_found(films: Path, tmp_path: Path) -> None:
    content = coco()
    content["images"][0]["file_name"] = "images/1a2b3c4d-a.png"
    content["images"][1]["file_name"] = "C:\\annotated\\b.png"
    status, output = run(films, write_json(tmp_path / "c.json", content), "coco")
    assert status == 0
    assert [row["image"] for row in rows(output / "labels.csv")] == ["a.png", "b.png"]


def test_a_path_into_another_folder_of_the_films_is_not_taken_for_a_namesake(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "right" / "a.png", pattern(1, HEIGHT, WIDTH))
    write_png(tmp_path / "films" / "b.png", pattern(2, HEIGHT, WIDTH))
    content = coco()
    content["images"][0]["file_name"] = "left/a.png"
    status, output = run(tmp_path / "films", write_json(tmp_path / "c.json", content), "coco", "--problems", "drop")
    assert status == 0
    assert problems(output) == [("image-without-file", "1", "left/a.png"), ("file-without-label", "", "right/a.png")]
