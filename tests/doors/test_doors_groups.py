"""Figures by group, from the columns of the table of labels."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from door_calls import BRIEF, CONFIGS, NETWORK, call, succeed

from mim.evaluation import Lesions, Predictions, SegmentedImages

QUICK = ("bootstrap=100", "accelerator=cpu", "worst=0")
SHORT = (*BRIEF, "training.max_steps=1")
SITES = ("Zebra clinic", "Aardvark clinic")


@pytest.fixture(scope="module")
def table(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom's labels with more columns, each patient in one split, of a site and of a sex."""
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["patient_id"] for row in rows})
    path = tmp_path_factory.mktemp("groups") / "labels.csv"
    for row in rows:
        place = patients.index(row["patient_id"])
        row |= {
            "site": SITES[place % 2],
            "sex": "fm"[place // 3 % 2],
            "device": ("", "sensor A", "sensor B")[place % 3],
        }
        row |= {"age": str(10 + 7 * place % 70), "split": ("train", "val", "test", "test")[place % 4]}
        row |= {"sick": str(place // 4 % 2)}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def blocks_of(output: Path) -> dict[str, Any]:
    blocks: dict[str, Any] = json.loads((output / "metrics.json").read_text())["blocks"]
    return blocks


def check_nothing_is_told(output: Path) -> None:
    text = "".join(path.read_text() for path in output.iterdir() if path.suffix in (".csv", ".json", ".html", ".md"))
    assert not [site for site in SITES if site in text]


def test_films_are_measured_by_group(labelled: tuple[str, ...], table: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    data = (*labelled, f"data.labels={table}", "masker.kind=none")
    succeed("finetune", *SHORT, *NETWORK, *data, f"output={run}")
    off = "faithfulness.enabled=false"
    succeed("evaluate", run, *QUICK, off, f"output={tmp_path / 'all'}")
    predictions = Predictions.load(tmp_path / "all" / "predictions.csv")
    assert set(predictions.columns) == {"severity", "device", "site", "sex", "age"}
    assert set(predictions.columns["site"]) == {"site 1", "site 2"}
    assert all((value == "") == (label == 0) for value, label in
               zip(predictions.columns["severity"], predictions.label, strict=True))  # fmt: skip
    found = blocks_of(tmp_path / "all")["strata"]
    for column, groups in found.items():
        leads = [group["auroc"]["value"] for group in groups if group["auroc"]["value"] is not None]
        assert leads == sorted(leads), column
    test = predictions.of("test")
    counts = {group["group"]: sum(group["counts"].values()) for group in found["sex"]}
    assert counts == {name: list(test.columns["sex"]).count(name) for name in ("f", "m")}
    page = (tmp_path / "all" / "report.html").read_text()
    assert "By age, worst first" in page
    assert "†" in page, "groups of few films are marked, not hidden"
    check_nothing_is_told(tmp_path / "all")

    succeed("evaluate", run, *QUICK, off, "groups=[]", f"output={tmp_path / 'none'}")
    assert not Predictions.load(tmp_path / "none" / "predictions.csv").columns
    assert "strata" not in blocks_of(tmp_path / "none")
    assert (
        "which groups=tooth needs" in call("evaluate", run, off, "groups=[tooth]", f"output={tmp_path / 'x'}").error()
    )


def test_studies_are_measured_by_group(labelled: tuple[str, ...], table: Path, tmp_path: Path) -> None:
    data = (*labelled, f"data.labels={table}", "data.target=sick", "task=study", "study.hidden=8", "masker.kind=none")
    succeed("finetune", *SHORT, *NETWORK, *data, f"output={tmp_path / 'run'}")
    succeed("evaluate", tmp_path / "run", *QUICK)
    assert {"site", "sex", "age"} <= set(Predictions.load(tmp_path / "run" / "predictions.csv").columns)
    assert {"site", "sex", "age"} <= set(blocks_of(tmp_path / "run")["strata"])
    assert "calibration" in blocks_of(tmp_path / "run")
    check_nothing_is_told(tmp_path / "run")


def test_a_segmenter_is_measured_by_group(boxed: tuple[str, ...], table: Path, tmp_path: Path) -> None:
    small = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
    file = CONFIGS / "finetune" / "segment_caries.yaml"
    succeed("finetune", file, *SHORT, *small, *boxed, f"data.labels={table}", f"output={tmp_path / 'run'}")
    succeed("evaluate", tmp_path / "run", *QUICK)
    images = SegmentedImages.load(tmp_path / "run" / "segmentation.csv")
    assert {"site", "sex", "age"} <= set(images.image_columns)
    assert "severity" not in images.image_columns, "the grade of each lesion says more"
    block = blocks_of(tmp_path / "run")["segmentation"]
    assert {"grade", "site", "sex", "age"} <= set(block["strata"])
    assert {"site", "sex", "age"} <= set(block["image_strata"])
    test = images.of("test")
    for group in block["image_strata"]["sex"]:
        assert sum(group["counts"].values()) == list(test.image_columns["sex"]).count(group["group"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Images by sex, worst first" in page
    assert "†" in page, "groups of few films are marked, not hidden"
    check_nothing_is_told(tmp_path / "run")
    succeed("evaluate", tmp_path / "run", *QUICK, "groups=[severity,sex]", f"output={tmp_path / 'two'}")
    two = blocks_of(tmp_path / "two")["segmentation"]
    assert set(two["image_strata"]) == {"sex"}
    assert {"grade", "sex"} <= set(two["strata"])


def test_lesions_are_measured_by_group_of_their_film(boxed: tuple[str, ...], table: Path, tmp_path: Path) -> None:
    small = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "detect.channels=32")
    found = ("detect.convolutions=1", "detect.score_threshold=0.0", "detect.most=5", f"data.labels={table}")
    file = CONFIGS / "finetune" / "detect_teeth.yaml"
    succeed("finetune", file, *SHORT, *small, *boxed, *found, f"output={tmp_path / 'run'}")
    succeed("evaluate", tmp_path / "run", *QUICK)
    lesions = Lesions.load(tmp_path / "run" / "lesions.csv")
    assert {"grade", "site", "sex", "age"} <= set(lesions.columns)
    strata = blocks_of(tmp_path / "run")["detection"]["strata"]
    assert {"size", "grade", "site", "sex", "age"} <= set(strata)
    check_nothing_is_told(tmp_path / "run")
