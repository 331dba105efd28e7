import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_png
from hypothesis import given
from hypothesis import strategies as st

from mim.data import PreparedDataset, attach_labels, split_films
from mim.data.annotations import Annotations, read_annotations
from mim.data.store import FilmLevels
from mim.data.tooth_crops import CLASSES, ToothCrops, _around, check_tooth_column, crop_teeth, label_by_lesions
from mim.errors import MimError

TEETH = {"36": (20, 30, 40, 60), "37": (60, 30, 50, 60), "11": (230, 100, 30, 80)}  # x, y, width, height


def write_boxes(path: Path, *boxes: tuple[int, str, tuple[float, ...]], films: int = 6) -> None:
    names = sorted({name for _, name, _ in boxes})
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 260, "height": 180} for n in range(films)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"image_id": film, "category_id": names.index(name), "bbox": list(box)} for film, name, box in boxes
        ],
    }
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Six films, of two patients each two; the last has no tooth, and in the others tooth 36 has caries where odd."""
    root = tmp_path_factory.mktemp("teeth")
    for number in range(6):
        write_png(root / "films" / f"{number}.png", pattern(number, 180, 260))
    teeth = [(film, name, box) for film in range(5) for name, box in TEETH.items()]
    write_boxes(root / "films" / "teeth.json", *teeth, (0, "36", (100, 100, 30, 30)))
    caries = [(film, "caries", (30, 50, 10, 12)) for film in (1, 3)]  # within 36; its middle is not in 37
    write_boxes(root / "films" / "caries.json", *caries, (1, "caries", (150, 5, 10, 10)))
    patients = [(f"{n}.png", f"p{n // 2}", ("train", "val", "test")[n // 2]) for n in range(6)]
    write_csv(root / "films" / "labels.csv", ("image", "patient_id", "split"), *patients)
    return store_films(root / "films", root / "out")


@pytest.fixture(scope="module")
def teeth(films: PreparedDataset) -> ToothCrops:
    return crop_teeth(films, films.source, "teeth.json", 0.25)


def test_teeth_are_the_pixels_around_their_boxes(films, teeth) -> None:
    assert len(teeth) == 16
    assert sorted(teeth.names[:4]) == ["11", "36", "36.2", "37"]
    for number, row in enumerate(teeth.rows):
        full, half = teeth.levels(number)
        film = films.levels(teeth.film.item(number))
        assert np.shares_memory(full, film.full)
        assert row.crop is not None
        np.testing.assert_array_equal(full, film.full[row.crop.slices])
        np.testing.assert_array_equal(teeth.image(number), full)
        assert half.shape == ((full.shape[0] + 1) // 2, (full.shape[1] + 1) // 2)
        top, left = row.crop.top, row.crop.left
        np.testing.assert_array_equal(half, film.half[top // 2 :, left // 2 :][: half.shape[0], : half.shape[1]])
        x, y, wide, high = TEETH.get(teeth.names[number], (100, 100, 30, 30))
        for side, least in zip(row.crop, (x - wide / 4, y - high / 4, x + wide * 1.25, y + high * 1.25), strict=True):
            assert abs(side - least) < 2 or side in (0, 180, 260)
        assert row.image_id == f"{films.rows[teeth.film.item(number)].image_id}-{teeth.names[number]}"
        assert row == teeth.rows[number]
    assert len({row.image_id for row in teeth.rows}) == len({row.sha256 for row in teeth.rows}) == 16


def test_teeth_of_reduced_films_lie_where_they_do_on_whole_ones(films, tmp_path: Path) -> None:
    reduced = crop_teeth(store_films(films.source, tmp_path / "out", long_side=130), films.source, "teeth.json", 0.0)
    for number, row in enumerate(reduced.rows):
        x, y, wide, high = TEETH.get(reduced.names[number], (100, 100, 30, 30))
        assert np.abs(np.array(row.crop) - (x, y, x + wide, y + high)).max() <= 4
        assert row.crop.height / 2 == pytest.approx(reduced.image(number).shape[0], abs=1)


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.lists(st.floats(0, 1), min_size=4, max_size=4),
    st.floats(0, 2),
)
def test_a_tooth_lies_within_its_film_and_has_pixels(size, corners, margin) -> None:
    xs, ys = sorted(corners[:2]), sorted(corners[2:])
    left, top, right, bottom = _around((xs[0], ys[0], xs[1], ys[1]), size, margin)
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    assert left % 2 == top % 2 == 0


def test_a_worker_gets_the_same_teeth(teeth) -> None:
    copy = pickle.loads(pickle.dumps(teeth))
    assert list(copy.rows) == list(teeth.rows)
    assert isinstance(copy.levels(3), FilmLevels)
    np.testing.assert_array_equal(copy.image(3), teeth.image(3))


def test_a_tooth_is_positive_where_the_middle_of_a_lesion_lies_in_it_and_patients_stay_together(films, teeth) -> None:
    labelled = attach_labels(teeth, films.source, "labels.csv", None, SALT)
    lesions = read_annotations(films, films.source, "caries.json")
    known = label_by_lesions(teeth, labelled, lesions)
    assert known.classes == CLASSES
    positive = {(teeth.film.item(film.index), teeth.names[film.index]) for film in known.films if film.label}
    assert positive == {(1, "36"), (3, "36")}
    splits = split_films(known, val_fraction=0.2, test_fraction=0.2, seed=0)
    parts = [{teeth.film.item(film.index) for film in part} for part in (splits.train, splits.val, splits.test)]
    assert parts == [{0, 1}, {2, 3}, {4}]
    drawn = read_annotations(teeth, films.source, "caries.json")
    assert {(teeth.film.item(n), teeth.names[n]) for n in drawn.lesions} >= positive
    with pytest.raises(MimError, match=r"no tooth of data\.crops has a lesion"):
        label_by_lesions(teeth, labelled, Annotations(lesions.path, {}, lesions.categories, ()))


def test_labels_of_teeth_stand_in_rows_of_their_own(films, teeth) -> None:
    rows = [(f"{film}.png", f"p{film // 2}", name, film % 2) for film in range(5) for name in ("36", "37")]
    write_csv(films.source / "by_tooth.csv", ("image", "patient_id", "tooth", "sick"), *rows, ("0.png", "p0", "48", 1))
    check_tooth_column(teeth, films.source, "by_tooth.csv")
    labelled = attach_labels(teeth, films.source, "by_tooth.csv", "sick", SALT)
    found = {(teeth.film.item(one.index), teeth.names[one.index]): one.label for one in labelled.films}
    assert found == {(film, name): film % 2 for film in range(5) for name in ("36", "37")}
    assert len(labelled.missing) == 1, "the tooth that has no box"
    with pytest.raises(MimError, match=r"labels\.csv: data\.target labels teeth .* no column 'tooth'"):
        check_tooth_column(teeth, films.source, "labels.csv")


def test_boxes_that_cannot_be_used_are_told_with_their_setting(films) -> None:
    with pytest.raises(MimError, match=r"none\.json.*\(data\.crops\)"):
        crop_teeth(films, films.source, "none.json", 0.1)
