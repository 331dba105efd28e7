import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from door_calls import BRIEF, NETWORK, succeed

from mim.data import read_radiograph
from mim.evaluation.model_card import MISSING
from mim.stages.near_copies import FILE


@pytest.fixture(scope="module")
def copied(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The labels of the phantom, and a training film of another patient that is nearly a test film."""
    folder = tmp_path_factory.mktemp("copied")
    labelled = phantom / "labelled"
    with (labelled / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        (folder / row["image"]).symlink_to(labelled / row["image"])
    original = next(row for row in rows if row["split"] == "test")
    write_copy(labelled / original["image"], folder / "copy.png")
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "patient_id", "split", "caries"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({"image": "copy.png", "patient_id": "another", "split": "train", "caries": original["caries"]})
    return folder


def write_copy(source: Path, path: Path) -> None:
    """The film, brighter by a little, in another format."""
    pixels = read_radiograph(source).pixels
    assert cv2.imwrite(str(path), np.rint(np.clip(pixels * 0.95 + 0.03, 0, 1) * 255).astype(np.uint8))


def test_a_test_film_that_was_nearly_trained_on_stands_in_the_first_lines_and_in_the_list(
    copied: Path, cache: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    data = (cache, f"data.path={copied}", "data.labels=labels.csv", "data.target=caries")
    succeed(
        "finetune", *BRIEF, *NETWORK, *data, "data.copies_across_splits=report", "masker.kind=none", f"output={run}"
    )
    brief = ("bootstrap=100", "accelerator=cpu", "faithfulness.enabled=false", "worst=1")
    said = succeed("evaluate", run, *brief)
    with (run / FILE).open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["met_in"] == "training"
    assert int(row["distance"]) <= 32
    header = json.loads((run / "metrics.json").read_text())["header"]
    assert header["near_copies"] == {"pretraining": 0, "training": 1}
    assert header["trained_on"]["films"] > 0
    page = (run / "report.html").read_text()
    assert "1 of" in page
    assert page.index("near copy of a film") < page.index("What was evaluated")
    assert "near copy of a film" in said.err
    card = (run / "model_card.md").read_text()
    assert "near copy of a film" in card
    assert "vit_tiny_patch16_224" in card
    assert f"training: {header['trained_on']['films']} films" in card
    assert MISSING in card
    for written in (page, card, (run / FILE).read_text()):
        assert str(copied) not in written
        assert "copy.png" not in written


def test_a_pretraining_run_that_is_gone_makes_it_unknown_and_not_none(
    labelled: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "pretrained"
    moved.mkdir()
    for name in (
        "config.yaml",
        "encoder.json",
        "encoder.safetensors",
        "model.safetensors",
        "seen.csv",
        "finished.json",
    ):
        (moved / name).write_bytes((pretrained / name).read_bytes())
    run = tmp_path / "run"
    succeed("finetune", *BRIEF, *labelled, f"init={moved}", "masker.kind=none", f"output={run}")
    brief = ("bootstrap=100", "accelerator=cpu", "faithfulness.enabled=false", "worst=0")
    succeed("evaluate", run, *brief)
    assert json.loads((run / "metrics.json").read_text())["header"]["near_copies"] == {"pretraining": 0, "training": 0}
    (moved / "seen.csv").write_text("image\nfilm\n")
    succeed("evaluate", run, *brief)
    for name in ("report.html", "model_card.md", "metrics.json"):
        assert str(tmp_path) not in (run / name).read_text(), f"{name} names the path of what cannot be read"
    assert "pretraining: not known, the list of what it met" in (run / "model_card.md").read_text()
    (moved / "seen.csv").unlink()
    succeed("evaluate", run, *brief)
    header = json.loads((run / "metrics.json").read_text())["header"]
    assert header["near_copies"] == {"pretraining": None, "training": 0}
    assert "not known in pretraining, 0 in training" in (run / "report.html").read_text()
