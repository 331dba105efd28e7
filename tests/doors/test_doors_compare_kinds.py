"""Comparison of two detectors, and of two runs on studies."""

import csv
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, CONFIGS, NETWORK, call, succeed
from jsonschema import Draft202012Validator
from sklearn.metrics import roc_auc_score

from mim.evaluation import Detections, Lesions, Predictions, Settings, detection_section

QUICK = ("bootstrap=100", "worst=0", "accelerator=cpu")
SHORT = (*BRIEF, "training.max_steps=1")


def figures_of(output: Path) -> dict[str, dict[str, str]]:
    with (output / "comparison.csv").open(newline="") as file:
        return {row["figure"]: row for row in csv.DictReader(file)}


def check_metrics(output: Path) -> dict[str, dict[str, object]]:
    metrics = json.loads((output / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(metrics)
    blocks: dict[str, dict[str, object]] = metrics["blocks"]
    return blocks


@pytest.fixture(scope="module")
def detectors(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An untrained detector, and one that knows every lesion."""
    folder = tmp_path_factory.mktemp("compare-detectors")
    small = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "detect.channels=32")
    found = ("detect.convolutions=1", "detect.score_threshold=0.0", "detect.most=5")
    for seed in (0, 1):
        file = CONFIGS / "finetune" / "detect_teeth.yaml"
        succeed("finetune", file, *SHORT, *small, *boxed, *found, f"seed={seed}", f"output={folder / f'seed{seed}'}")
        succeed("evaluate", folder / f"seed{seed}", *QUICK)
    run = folder / "seed1"
    detections, lesions = Detections.load(run / "detections.csv"), Lesions.load(run / "lesions.csv")
    places = {image: place for place, image in enumerate(detections.image_id)}
    image = np.array([places[name] for name in lesions.image_id])
    score = np.full(len(lesions), 0.9)
    replace(detections, image=image, boxes=lesions.boxes, score=score, label=lesions.label).save(run / "detections.csv")
    measure_tables(run)
    return folder / "seed0", run


def measure_tables(run: Path) -> None:
    """Writes the figures of the tables in a run into its metrics.json."""
    found = Detections.load(run / "detections.csv"), Lesions.load(run / "lesions.csv")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["blocks"]["detection"] = dict(detection_section(*found, Settings(100)).figures)
    (run / "metrics.json").write_text(json.dumps(metrics))


def test_two_detectors_are_compared_on_the_same_films_and_lesions(detectors: tuple[Path, Path]) -> None:
    said = succeed("evaluate", *detectors, *QUICK)
    output = detectors[0].parent / "seed1-against-seed0"
    rows = figures_of(output)
    searched, lesions = Detections.load(detectors[0] / "detections.csv"), Lesions.load(detectors[0] / "lesions.csv")
    test = searched.of("test")
    tested = dict(zip(test.image_id, test.patient_id, strict=True))
    own = json.loads((detectors[0] / "metrics.json").read_text())["blocks"]["detection"]
    for name, value in (("ap50", own["coco"]["ap50"]["value"]), ("froc", own["froc"]["iou"]["score"]["value"])):
        assert float(rows[name]["first"]) == pytest.approx(value, abs=1e-6)
        assert float(rows[name]["second"]) == pytest.approx(1, abs=1e-6), "it knows every lesion"
        assert float(rows[name]["difference"]) == pytest.approx(1 - value, abs=1e-6)
        assert float(rows[name]["low"]) <= 1 - value <= float(rows[name]["high"])
        assert float(rows[name]["p"]) < 0.05
    assert {"ap", "ap75", "lesion_sensitivity", "false_positives_per_image"} <= set(rows)
    assert set(check_metrics(output)) == {"detection", "comparison"}
    assert "difference of AP50" in said.out
    assert "lesions" in said.out
    page = (output / "report.html").read_text()
    assert "seed1 against seed0" in page
    assert str(detectors[0].parent) not in page
    assert f"{len(tested)} test films of" in page
    people = len({patient for image, patient in tested.items() if image in set(lesions.image_id)})
    assert people < 10
    assert f"Only {people} test patients have a lesion" in page


def test_detectors_of_other_lesions_or_other_classes_are_refused(detectors: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = detectors
    copy = tmp_path / "copy"
    shutil.copytree(second, copy)
    detections, lesions = Detections.load(copy / "detections.csv"), Lesions.load(copy / "lesions.csv")
    test = set(detections.of("test").image_id)
    gone = next(place for place, image in enumerate(lesions.image_id) if image in test)
    lesions.rows(np.arange(len(lesions)) != gone).save(copy / "lesions.csv")
    measure_tables(copy)
    error = call("evaluate", first, copy, *QUICK, f"output={tmp_path / 'out'}").error()
    assert "1 test films have other lesions than in" in error
    assert not (tmp_path / "out").exists()
    described = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**described, "classes": ["calculus"]}))
    assert "its classes are of boxes (calculus)" in call("evaluate", first, copy, *QUICK).error()


def test_boxes_that_another_detector_found_are_not_taken_for_its_own(
    detectors: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(detectors[0], copy)
    shutil.copy(detectors[1] / "detections.csv", copy / "detections.csv")
    said = succeed("evaluate", copy, detectors[1], *QUICK, f"output={tmp_path / 'out'}")
    assert "is not of its detections.csv and lesions.csv" in said.err
    assert (copy / "detections.csv").read_bytes() == (detectors[0] / "detections.csv").read_bytes()


def test_two_runs_on_studies_are_compared(studies: tuple[str, ...], tmp_path: Path) -> None:
    runs = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    for seed, run in enumerate(runs):
        data = (*studies, "task=study", "study.hidden=8", "masker.kind=none", f"seed={seed}")
        succeed("finetune", *SHORT, *NETWORK, *data, f"output={run}")
    said = succeed("evaluate", *runs, *QUICK)
    output = tmp_path / "seed1-against-seed0"
    tables = [Predictions.load(run / "predictions.csv").of("test") for run in runs]
    areas = [float(roc_auc_score(table.label, table.score)) for table in tables]
    row = figures_of(output)["auroc"]
    assert [float(row[name]) for name in ("first", "second")] == pytest.approx(areas)
    assert float(row["difference"]) == pytest.approx(areas[1] - areas[0])
    check_metrics(output)
    assert f"{len(tables[0])} test studies of" in said.out
    assert "read study" in said.err
