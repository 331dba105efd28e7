import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from mim.evaluation import Detections, Lesions, Settings, Threshold, detection_section, measure_detections
from mim.evaluation.box_pairs import pair_boxes
from mim.evaluation.coco import coco_values
from mim.evaluation.detection import RULES, choose_detection_threshold, found_at
from mim.evaluation.detection_report import find_errors
from mim.evaluation.detections import join
from mim.evaluation.froc import find_hits

Drawn = Callable[..., tuple[Detections, Lesions]]


def test_figures_are_of_the_test_images_with_a_threshold_from_validation(draw: Drawn) -> None:
    found, lesions = draw(3, images=80)
    section = detection_section(found, lesions, Settings(150))
    searched = join(found, lesions)
    test, val = searched.of("test"), searched.of("val")
    own = section.figures
    assert {name: row["value"] for name, row in own["coco"].items()} == pytest.approx(coco_values(test))
    threshold = choose_detection_threshold(val)
    assert own["threshold"]["value"] == threshold.value
    hits = find_hits(test, pair_boxes(test), RULES["iou"])
    assert threshold.value is not None
    expected = found_at(hits, threshold.value).mean()
    assert own["at_threshold"]["lesion_sensitivity"]["value"] == pytest.approx(expected)
    false = (hits.false_score >= threshold.value).sum() / len(test.detections)
    assert own["at_threshold"]["false_positives_per_image"]["value"] == pytest.approx(false)
    for row in (own["coco"]["ap50"], own["froc"]["iou"]["score"], own["at_threshold"]["lesion_sensitivity"]):
        assert row["low"] < row["value"] < row["high"]
    assert len(section.plots) == 1
    json.dumps(own, allow_nan=False)


def test_groups_of_lesions_add_up_and_the_worst_comes_first(draw: Drawn) -> None:
    found, lesions = draw(3, images=80)
    own = detection_section(found, lesions, Settings(100)).figures
    assert set(own["strata"]) == {"size", "grade", "label"}
    for groups in own["strata"].values():
        values = [group["sensitivity"]["value"] for group in groups]
        assert values == sorted(values)
        counts = [group["counts"]["lesions"] for group in groups]
        assert sum(counts) == own["lesions"]
        total = sum(count * value for count, value in zip(counts, values, strict=True))
        assert total == pytest.approx(own["lesions"] * own["at_threshold"]["lesion_sensitivity"]["value"])


def test_no_lesions_at_all_leave_the_false_positives(draw: Drawn) -> None:
    found, _ = draw(3)
    none = Lesions([], np.empty((0, 4)), [])
    section = detection_section(found, none, Settings(100))
    assert len(section.first_lines) == 1
    assert "hold no lesion" in section.first_lines[0]
    own = section.figures
    assert own["coco"]["ap"]["reason"] == own["froc"]["iou"]["score"]["reason"] == "there are no lesions"
    assert own["at_threshold"]["false_positives_per_image"]["low"] is not None
    assert own["at_threshold"]["lesion_sensitivity"]["value"] is None
    json.dumps(own, allow_nan=False)


def test_few_patients_and_intervals_without_width_are_told_first(draw: Drawn) -> None:
    found, lesions = draw(3, images=80)
    assert not detection_section(found, lesions, Settings(100)).first_lines
    tested = found.of("test")
    one = tested.patient_id[0]
    kept = np.array([split == "val" or own == one for own, split in zip(found.patient_id, found.split, strict=True)])
    few = found.keep(kept)
    own = lesions.rows(np.array([image in few.image_id for image in lesions.image_id]))
    alone = detection_section(few, own, Settings(100)).first_lines
    assert alone == ("Detection: only 1 test patient has a lesion: the intervals are rough.",)
    count = len(found)
    wrong = {
        "boxes": np.tile([0.0, 0.0, 1.0, 1.0], (count, 1)),
        "score": np.full(count, 0.5),
        "label": ["none"] * count,
    }
    section = detection_section(replace(found, image=np.arange(count), **wrong), lesions, Settings(100))
    assert any("AP50 is 0.000 in every resample" in line for line in section.first_lines)
    missed = section.figures["at_threshold"]["lesion_sensitivity"]
    people = len(set(join(found, lesions).of("test").lesion_patient))
    assert (missed["value"], missed["low"]) == (0, 0)
    assert missed["high"] == pytest.approx(1 - 0.025 ** (1 / people))
    assert all(group["sensitivity"]["high"] > 0 for groups in section.figures["strata"].values() for group in groups)


def test_nothing_found_and_no_images_crash_nothing(draw: Drawn) -> None:
    found, lesions = draw(3)
    empty = Detections(
        found.image_id, found.patient_id, found.split, np.empty(0, np.int64), np.empty((0, 4)), np.empty(0), []
    )
    own = detection_section(empty, lesions, Settings(100)).figures
    assert own["coco"]["ap"]["value"] == 0
    assert own["froc"]["iou"]["score"]["value"] == 0
    assert own["threshold"]["reason"] == "nothing was found in the validation images"
    no_test = found.of("val")
    kept = lesions.rows(np.array([name in set(no_test.image_id) for name in lesions.image_id]))
    section = detection_section(no_test, kept, Settings(100))
    assert section.first_lines == ("Detection: there are no test images.",)
    assert section.figures["at_threshold"]["false_positives_per_image"]["reason"] == "there are no images"


def test_a_threshold_that_no_score_reaches_finds_nothing(draw: Drawn) -> None:
    searched = join(*draw(3))
    figures = measure_detections(searched, Threshold(2.0), Settings(100))
    assert figures.at_threshold["lesion_sensitivity"].value == 0
    assert figures.at_threshold["false_positives_per_image"].value == 0


def test_trained_patients_are_left_out(draw: Drawn) -> None:
    found, lesions = draw(3)
    known = next(patient for patient, split in zip(found.patient_id, found.split, strict=True) if split == "test")
    section = detection_section(found, lesions, Settings(100), trained_on=[known])
    assert "trained on" in section.first_lines[0]
    assert section.figures["images"] == found.split.count("test") - 2


@pytest.mark.parametrize("rule", ["iou", "centre"])
def test_errors_of_the_images_add_up_to_the_figures(draw: Drawn, rule: str) -> None:
    searched = join(*draw(3, images=40))
    hits = find_hits(searched, pair_boxes(searched), RULES[rule])
    threshold = float(np.median(searched.detections.score))
    errors = find_errors(searched, threshold, RULES[rule])
    assert [error.image for error in errors] == list(range(len(searched.detections)))
    found = found_at(hits, threshold)
    assert sum(error.found for error in errors) == found.sum()
    missed = np.concatenate([error.missed for error in errors])
    assert sorted(missed) == np.flatnonzero(~found).tolist()
    scores = np.concatenate([searched.detections.score[error.false] for error in errors])
    assert sorted(scores) == sorted(hits.false_score[hits.false_score >= threshold])
    for error in errors:
        own = searched.detections.score[error.false]
        assert (np.diff(own) <= 0).all()
        assert error.worst == (own[0] if len(own) else 0)
        assert (searched.lesion_image[error.missed] == error.image).all()
