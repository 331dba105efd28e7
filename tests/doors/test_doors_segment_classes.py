"""Several classes of pixels, each on a map of its own."""

import csv
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from importlib.resources import files
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from door_calls import BRIEF, CONFIGS, call, own_logging, read_metrics, succeed
from jsonschema import Draft202012Validator

from mim.config import door
from mim.evaluation import SegmentedClasses, Settings
from mim.evaluation.runs_of_cells import from_runs
from mim.evaluation.segmentation_classes_section import class_means
from mim.predict import main

FILE = CONFIGS / "finetune" / "segment_caries.yaml"
SMALL = (*BRIEF, "input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
APART = (*SMALL, "segment.classes=apart", "training.max_steps=2", "masker.kind=none")
QUICK = ("bootstrap=100", "accelerator=cpu")
NAMES = ("proximal caries", "occlusal caries")
TABLES = ("segmentation.csv", "segmentation_thresholds.csv")


@pytest.fixture(scope="module")
def run(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes") / "run"
    succeed("finetune", FILE, *APART, *boxed, f"output={folder}")
    succeed("evaluate", folder, *QUICK, "worst=1")
    return folder


def test_each_class_is_learnt_and_measured_for_itself(run: Path, phantom: Path) -> None:
    assert json.loads((run / "task.json").read_text())["classes"] == list(NAMES)
    watched = {"val/dice", "val/dice_occlusal caries", "val/dice_proximal caries"}
    assert any(watched <= set(record) for record in read_metrics(run))
    images = SegmentedClasses.load(run / "segmentation.csv", NAMES)
    coco = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    for name, own in zip(images.classes, images.images, strict=True):
        areas = {one["area"] for one in coco["annotations"] if names[one["category_id"]] == name}
        ours = {lesion.area for image in own.overlaps for lesion in image.lesions}
        assert ours
        assert ours <= areas, "the lesions of a class are those of its category"
    content = json.loads((run / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    block = content["blocks"]["segmentation_classes"]
    means = class_means(images.of("test"), Settings(100))
    assert {name: figure.value for name, figure in means.items()} == {
        name: figure["value"] for name, figure in block["mean"].items()
    }
    with (run / "segmentation_thresholds.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == [name for name in NAMES for _ in range(99)]
    page = (run / "report.html").read_text()
    assert all(f"<strong>{number}</strong> {name}" in page for number, name in enumerate(NAMES, 1))
    assert f"The pixels of {NAMES[0]}, {NAMES[1]}" in (run / "model_card.md").read_text()


def test_one_class_apart_is_the_same_run_as_one_class_together(boxed: tuple[str, ...], tmp_path: Path) -> None:
    one = (*SMALL, *boxed, "data.lesion_categories=[proximal caries]", "training.max_steps=2")
    for name in ("together", "apart"):
        succeed("finetune", FILE, *one, f"segment.classes={name}", f"output={tmp_path / name}")
        succeed("evaluate", tmp_path / name, *QUICK, "worst=1")
    for file in ("model.safetensors", "task.json", *TABLES, "metrics.json", "model_card.md", "report.html"):
        assert (tmp_path / "together" / file).read_bytes() == (tmp_path / "apart" / file).read_bytes(), file
    heading = (tmp_path / "apart" / "segmentation.csv").read_text().partition("\n")[0]
    assert heading.startswith("image_id,patient_id,split,lesion,area,drawn,both,dice,surface,")

    old = yaml.safe_load((tmp_path / "together" / "config.yaml").read_text())
    del old["segment"]["classes"]  # as in runs that were made before there were several classes
    (tmp_path / "together" / "config.yaml").write_text(yaml.safe_dump(old))
    succeed("evaluate", tmp_path / "together", *QUICK, "worst=1", f"output={tmp_path / 'again'}")
    for file in (*TABLES, "metrics.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "apart" / file).read_bytes(), file


def test_two_runs_of_several_classes_are_compared(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    succeed("evaluate", run, other, *QUICK, f"output={tmp_path / 'both'}")
    with (tmp_path / "both" / "comparison.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    assert {"dice", *(f"lesion_dice: {name}" for name in NAMES)} <= set(rows)
    assert float(rows["lesion_dice"]["difference"]) == 0
    content = json.loads((tmp_path / "both" / "metrics.json").read_text())
    assert set(content["blocks"]) == {"segmentation_classes", "comparison"}


def predict(*arguments: object) -> str:
    """What `python -m mim.predict ARGUMENTS` says on standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), own_logging():
        status = door(lambda: main([*map(str, arguments), "--accelerator", "cpu", "--workers", "1"]))
    assert status == 0, err.getvalue()
    return err.getvalue()


def test_films_are_predicted_class_by_class_and_become_segments(run: Path, phantom: Path, tmp_path: Path) -> None:
    film = phantom / "labelled" / "film-000013.dcm"
    said = predict(run, film, "--output", tmp_path / "chosen")
    content = json.loads((tmp_path / "chosen" / "predictions.json").read_text())
    block = json.loads((run / "metrics.json").read_text())["blocks"]["segmentation_classes"]
    chosen = {own["name"]: own["figures"]["threshold"]["value"] for own in block["classes"]}
    assert {name: own["value"] for name, own in content["model"]["thresholds"].items()} == chosen
    (one,) = content["films"]
    assert (one["score"], one["call"]) == (None, None), "there is no one class that is called"
    for name, value in chosen.items():
        expected = None if value is None else "positive" if one["scores"][name] >= value else "negative"
        assert one["calls"][name] == expected
        assert (name in one["parts"][0]["pixels"]) == (value is not None)
        assert (f"{name} is scored and not called" in said) == (value is None)

    middle = sorted(one["scores"].values())
    predict(run, film, "--threshold", np.mean(middle), "--output", tmp_path / "between")
    (other,) = json.loads((tmp_path / "between" / "predictions.json").read_text())["films"]
    assert set(other["calls"].values()) == {"positive", "negative"} or middle[0] == middle[1]
    drawn = {name: bool(from_runs(runs).any()) for name, runs in other["parts"][0]["pixels"].items()}
    assert drawn == {name: call == "positive" for name, call in other["calls"].items()}
    assert (tmp_path / "between" / other["parts"][0]["overlay"]).is_file()


def test_each_class_is_a_dicom_segment(run: Path, phantom: Path, tmp_path: Path) -> None:
    seg = pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)").seg
    film = phantom / "labelled" / "film-000013.dcm"
    predict(run, film, "--threshold", "0.0", "--output", tmp_path, "--dicom")
    (file,) = (tmp_path / "dicom").glob("*.seg.dcm")
    made = seg.segread(file)
    labels = [made.get_segment_description(number).segment_label for number in made.segment_numbers]
    assert labels == [f"{name}, pixels" for name in NAMES]


def test_a_class_that_no_training_film_has_is_refused(boxed: tuple[str, ...], phantom: Path, tmp_path: Path) -> None:
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    content["categories"].append({"id": 9, "name": "root caries"})
    file = tmp_path / "lesions.json"
    file.write_text(json.dumps(content))
    said = call("finetune", FILE, *APART, *boxed, f"data.boxes={file}", f"output={tmp_path / 'run'}").error()
    assert "no training film has a lesion of root caries" in said
    assert "data.lesion_categories" in said
