from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mim.errors import MimError
from mim.evaluation import Detections, Lesions
from mim.evaluation.detections import join

Drawn = Callable[..., tuple[Detections, Lesions]]


def test_tables_are_read_back_exactly_images_without_boxes_included(tmp_path: Path, draw: Drawn) -> None:
    found, lesions = draw(2)
    assert set(range(len(found))) - set(found.image.tolist())
    found.score[3] = np.nan
    found.save(tmp_path / "detections.csv")
    lesions.save(tmp_path / "lesions.csv")
    again, truth = Detections.load(tmp_path / "detections.csv"), Lesions.load(tmp_path / "lesions.csv")
    order = np.argsort(found.image, kind="stable")
    assert (again.image_id, again.patient_id, again.split) == (found.image_id, found.patient_id, found.split)
    assert np.array_equal(again.boxes, found.boxes[order])
    assert np.array_equal(again.score, found.score[order], equal_nan=True)
    assert again.label == tuple(found.label[row] for row in order)
    assert np.array_equal(truth.boxes, lesions.boxes)
    assert (truth.image_id, truth.label, truth.columns) == (lesions.image_id, lesions.label, lesions.columns)


def test_an_empty_table_is_read_back(tmp_path: Path) -> None:
    none = np.empty((0, 4))
    Detections([], [], [], np.empty(0, np.int64), none, np.empty(0), []).save(tmp_path / "detections.csv")
    assert len(Detections.load(tmp_path / "detections.csv")) == 0
    Lesions([], none, [], {"grade": []}).save(tmp_path / "lesions.csv")
    assert len(Lesions.load(tmp_path / "lesions.csv")) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": ["train", "test"]}, "'train' must be val or test"),
        ({"image_id": ["a", "a"]}, "named twice"),
        ({"image": [2]}, "belongs to no image"),
        ({"boxes": [[5, 5, 5, 9]]}, "box 1 .* x2 must lie above x1"),
        ({"boxes": [[0, 0, 1, np.nan]]}, "box 1 .* finite"),
        ({"score": [np.inf]}, "box 1 has an infinite score"),
        ({"score": [0.5, 0.6]}, "one value a box"),
        ({"patient_id": ["p"]}, "one value an image"),
    ],
)
def test_a_bad_table_is_named(change: dict[str, Any], message: str) -> None:
    good = {
        "image_id": ["a", "b"],
        "patient_id": ["p", "q"],
        "split": ["val", "test"],
        "image": [0],
        "boxes": [[0, 0, 4, 4]],
        "score": [0.5],
        "label": ["caries"],
    }
    with pytest.raises(MimError, match=message):
        Detections(**good | change)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,q,test,0,0,1,1,0.5,caries", "row 2: image 'a' has another patient"),
        ("b,p,test,0,0,wide,1,0.5,caries", "row 2: .*wide.* not all numbers"),
        ("b,p,test,0,0,1,1,high,caries", "row 2: high are not all numbers"),
        ("b,p,test,0,0,1", "row 2 has 6 values"),
    ],
)
def test_a_bad_row_of_a_file_is_named(tmp_path: Path, row: str, message: str) -> None:
    path = tmp_path / "detections.csv"
    path.write_text(f"image_id,patient_id,split,x1,y1,x2,y2,score,label\na,p,test,0,0,1,1,0.5,caries\n{row}\n")
    with pytest.raises(MimError, match=rf"detections\.csv: {message}"):
        Detections.load(path)


def test_lesions_of_another_split_are_refused_in_one_line(draw: Drawn) -> None:
    found, lesions = draw(1)
    with pytest.raises(MimError, match=r"are not in the table of detections .* another split") as error:
        join(found.of("val"), lesions)
    assert "\n" not in str(error.value)


def test_what_cannot_be_measured_is_left_out_and_said(draw: Drawn) -> None:
    found, lesions = draw(1)
    known = found.patient_id[-1]
    found.score[:2] = np.nan
    joined = join(found, lesions, trained_on=[known])
    assert known not in joined.detections.patient_id
    assert not np.isnan(joined.detections.score).any()
    assert len(joined.detections) == len(found) - found.patient_id.count(known)
    assert "1 patient was trained on: 2 of 40 images" in joined.warnings[0]
    assert f"2 of {len(found.score) - (found.image >= 38).sum()} detections have no score" in joined.warnings[1]
    assert set(joined.lesions.image_id) <= set(joined.detections.image_id)
