import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, CONFIGS, call, read_metrics, succeed
from jsonschema import Draft202012Validator

from mim.evaluation import Detections, Lesions

FILE = CONFIGS / "finetune" / "detect_teeth.yaml"
SMALL = (
    *BRIEF,
    "input.image_size=[64,96]",
    "encoder.timm_args={layers: [1, 1, 1, 1]}",
    "detect.channels=32",
    "detect.convolutions=1",
    "detect.score_threshold=0.0",
    "detect.most=5",
)
LEARNED = ("masker.kind=learned", "masker.width=4", "masker.supervised=1.0")


@pytest.fixture(scope="module")
def run(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detect") / "run"
    succeed("finetune", FILE, *SMALL, *boxed, f"output={folder}")
    return folder


def test_a_detector_is_trained_watched_and_measured(run: Path, tmp_path: Path, phantom: Path) -> None:
    assert any("val/ap50" in record for record in read_metrics(run))
    output = tmp_path / "report"
    said = succeed("evaluate", run, f"output={output}", "bootstrap=100", "accelerator=cpu")
    assert "test AP50" in said.out
    assert f"report: {output / 'report.html'}" in said.out
    detections, lesions = Detections.load(output / "detections.csv"), Lesions.load(output / "lesions.csv")
    with (run / "splits.csv").open(newline="") as file:
        measured = {row["image_id"]: row["split"] for row in csv.DictReader(file) if row["split"] != "train"}
    assert dict(zip(detections.image_id, detections.split, strict=True)) == measured, "films without a find, too"
    coco = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    width, height = coco["images"][0]["width"], coco["images"][0]["height"]
    assert (detections.boxes >= 0).all()
    assert (detections.boxes <= np.array([width, height] * 2) + 1e-9).all()
    drawn = {tuple(round(side, 3) for side in annotation["bbox"]) for annotation in coco["annotations"]}
    corners = lesions.boxes.round(3)
    ours = {(x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)) for x1, y1, x2, y2 in corners.tolist()}
    assert ours
    assert ours <= drawn, "in pixels of the films, as the file has them"
    content = json.loads((output / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    assert content["blocks"]["detection"]["images"] == list(measured.values()).count("test")
    card = (output / "model_card.md").read_text()
    assert "marks boxes of" in card
    tested = set(detections.of("test").image_id)
    assert f"with {sum(image in tested for image in lesions.image_id)} lesions" in card
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
    assert "framed in yellow" in page
    assert page.count('<figure class="case"') >= 1
    assert "<rect " in page
    assert 'data-layer="boxes"' in page or 'data-layer="marks"' in page


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("data.boxes=null",), "data.boxes is not set: task=detect learns from boxes"),
        (("data.labels=null",), "data.labels is not set"),
        (("data.target=caries",), "data.target is a label of whole films"),
        ((*LEARNED, "masker.keep=0.3"), "masker.keep=0.3: nothing is found in hidden cells"),
        ((*LEARNED, "masker.random_keep=[0.2,1.0]"), "masker.random_keep [0.2, 1.0]: nothing is found in hidden cells"),
        ((*LEARNED, "masker.follow=network"), "masker.follow=network: what a detector says are boxes"),
        ((*LEARNED, "masker.stages=[0.5,0.5,0.5]"), "masker.stages [0.5, 0.5, 0.5]"),
        ((*LEARNED, "masker.reconstruction=1.0"), "masker.reconstruction: rebuilds with a pretrained model"),
        ((*LEARNED, "masker.scorer=tokens"), "masker.scorer=tokens: reads a pretrained encoder"),
        (("masker.kind=threshold", "masker.score=reconstruction_error"), "needs a model that rebuilds cells"),
        (("masker.kind=threshold", "masker.threshold=quantile:0.7"), "detect: the masker shows 30% of the cells"),
        (("detect.head=fasterrcnn", "detect.assignment=atss"), "detect: assignment=atss goes with fcos and retinanet"),
        (("detect.channels=40",), "detect.channels"),
        (("smoothing=0.1",), "smoothing is read only with task=classify"),
        (("data.study_label=any",), "data.study_label is read only with task=study"),
        (("detect.lesion_windows=0.2",), "detect.lesion_windows says nothing without detect.window"),
        (("detect.window=[8,8]",), "detect.window"),
        (
            ("detect.window=[64,64]", "input.image_size=[64,64]", "data.long_side=64"),
            "detect.window: 40 of 40 films are stored with fewer pixels than windows of 64 x 64",
        ),
        (("task=classify", "data.target=caries", "masker.kind=none"), "detect.channels is read only with task=detect"),
    ],
)
def test_what_a_detector_cannot_have_is_told_in_a_line(
    changed: tuple[str, ...], said: str, boxed: tuple[str, ...], tmp_path: Path
) -> None:
    output = tmp_path / "none"
    assert said in call("finetune", FILE, *SMALL, *boxed, *changed, f"output={output}").error()
    assert not (output / "checkpoints").exists()


def test_films_with_tooth_numbers_are_not_mirrored(boxed: tuple[str, ...], phantom: Path, tmp_path: Path) -> None:
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    first = content["categories"][0]
    content["categories"] = [{**first, "name": "11"}, {**first, "id": 99, "name": "21"}]
    for annotation in content["annotations"]:
        annotation["category_id"] = first["id"]
    file = tmp_path / "teeth.json"
    file.write_text(json.dumps(content))
    settings = (*SMALL, *boxed, f"data.boxes={file}", f"output={tmp_path / 'none'}")
    said = call("finetune", FILE, *settings, "augment.horizontal_flip=0.5").error()
    assert "augment.horizontal_flip: the classes of data.boxes are tooth numbers" in said


def test_boxes_that_changed_since_the_training_stop_the_evaluation(
    boxed: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    file = tmp_path / "boxes.json"
    file.write_text(json.dumps(content))
    folder = tmp_path / "run"
    succeed("finetune", FILE, *SMALL, *boxed, f"data.boxes={file}", "training.max_steps=1", f"output={folder}")
    content["annotations"] = content["annotations"][:-1]
    file.write_text(json.dumps(content))
    assert "boxes or splits of" in call("evaluate", folder, f"output={tmp_path / 'report'}").error()


def test_a_learned_mask_is_watched_and_what_it_hides_stands_first(boxed: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stages = ("masker.stages=[0.3,0.4,0.3]", "encoder.patch_size=16")
    succeed("finetune", FILE, *SMALL, *boxed, *LEARNED, *stages, f"output={folder}")
    records = read_metrics(folder)
    watched = {"val/ap50", "val/keep", "val/lesion_shown", "val/mask_rate", "val/mask_film_deviation"}
    assert any(watched <= set(record) for record in records)
    assert "train/loss_supervised" not in records[0]
    assert {"train/loss_supervised", "train/loss_budget"} <= set(records[1])
    said = succeed("evaluate", folder, "bootstrap=100", "accelerator=cpu")
    assert said.out.index("lesion recall") < said.out.index("test AP50")
    content = json.loads((folder / "metrics.json").read_text())
    assert list(content["blocks"]) == ["mask", "detection"]
    mask = content["blocks"]["mask"]
    assert mask["share"] == pytest.approx(0.5, abs=0.05)
    assert mask["lesion_recall"][-1]["grade"] == "all"
    assert set(mask["lesion_recall"][-1]["figures"]) == {"masker", "random"}
    assert mask["lesion_recall"][-1]["lesions"] == content["blocks"]["detection"]["lesions"]
    page = (folder / "report.html").read_text()
    assert page.index("What does the mask hide?") < page.index("Detection of lesions")


@pytest.mark.parametrize("score", ["reconstruction_error", "attention"])
def test_a_detector_behind_what_a_pretrained_model_scores(
    score: str, boxed: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    masker = ("masker.kind=threshold", f"masker.score={score}", "masker.threshold=quantile:0.4")
    small = ("detect.channels=32", "detect.convolutions=1", "detect.score_threshold=0.0", "detect.most=5")
    succeed("finetune", *BRIEF, "task=detect", *masker, *small, *boxed, f"init={pretrained}", f"output={folder}")
    succeed("evaluate", folder, "bootstrap=100", "accelerator=cpu")
    share = json.loads((folder / "metrics.json").read_text())["blocks"]["mask"]["share"]
    assert share == pytest.approx(0.6, abs=0.1)


def test_films_are_searched_in_windows_and_a_window_as_large_as_a_film_changes_no_box(
    boxed: tuple[str, ...], run: Path, phantom: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "windows"
    windows = ("detect.window=[64,64]", "detect.windows_per_film=2", "input.image_size=[64,64]")
    said = succeed("finetune", FILE, *SMALL, *boxed, *windows, "detect.window_overlap=0.0", f"output={trained}")
    assert "boxes of the training films are larger than the overlap of windows" in said.err
    assert any("val/ap50" in record for record in read_metrics(trained))
    report = tmp_path / "report"
    said = succeed("evaluate", trained, f"output={report}", "bootstrap=100", "accelerator=cpu")
    assert "test AP50" in said.out
    found = Detections.load(report / "detections.csv")
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [128, 96, 128, 96]).all()
    assert len(set(found.boxes[:, 0] // 64)) > 1, "on both sides of the films"
    assert np.bincount(found.image).max() <= 5, "detect.most"
    assert (report / "report.html").read_text().count("data:image/png;base64,") >= 2

    same = tmp_path / "same"
    shutil.copytree(run, same)
    settings = (same / "config.yaml").read_text()
    (same / "config.yaml").write_text(settings.replace("window: null", "window: [96, 128]"))
    assert "window: [96, 128]" in (same / "config.yaml").read_text()
    tables = []
    for folder in (run, same):
        output = tmp_path / f"report of {folder.name}"
        succeed("evaluate", folder, f"output={output}", "bootstrap=100", "accelerator=cpu")
        tables.append((output / "detections.csv").read_text())
    assert tables[0] == tables[1]
