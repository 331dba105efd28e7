import csv
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from door_calls import BRIEF, CONFIGS, Said, count_lines
from sklearn.metrics import roc_auc_score

from mim.evaluation import Detections, Lesions, Predictions, SegmentedImages
from mim.evaluation.coco import coco_values
from mim.evaluation.detections import join
from mim.stages import sweep as stage

SHORT = (*BRIEF, "training.max_steps=2", "masker.kind=none", "--bootstrap", "100")


@pytest.fixture
def sweep(labelled: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls the command as a new process would be."""
    monkeypatch.setattr(stage, "start_logging", lambda: None)

    def call(*arguments: object) -> Said:
        status = stage.main([*labelled, *SHORT, *map(str, arguments)])
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name.startswith(("model", "metrics"))}


def test_every_combination_is_trained_once_and_drawn(sweep: Any, pretrained: Path, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    asked = ("--fractions", "1", "0.5", "--seeds", "0", "1", "--inits", "scratch", pretrained, "--output", output)
    said = sweep(*asked)
    assert said.status == 0, said.err
    rows = table(output / "sweep.csv")
    kinds = {(row["init"], row["fraction"], row["seed"]) for row in rows}
    assert len(rows) == len(kinds) == 8
    assert {row["state"] for row in rows} == {"done"}
    for row in rows:
        films = Predictions.load(output / row["run"] / "predictions.csv").of("test")
        assert float(row["auroc"]) == pytest.approx(roc_auc_score(films.label, films.score))
        assert int(row["labels"]) == sum(own["split"] == "train" for own in table(output / row["run"] / "splits.csv"))
    half, whole = ([int(row["labels"]) for row in rows if row["fraction"] == share] for share in ("0.5", "1.0"))
    assert max(half) < min(whole)

    found = json.loads((output / "sweep.json").read_text())
    assert [(point["init"], point["fraction"]) for point in found["points"]] == [
        (init, fraction) for init in ("scratch", pretrained.name) for fraction in (0.5, 1.0)
    ]
    for point in found["points"]:
        aurocs = [
            float(row["auroc"])
            for row in rows
            if (row["init"], float(row["fraction"])) == (point["init"], point["fraction"])
        ]
        assert point["auroc"]["value"] == pytest.approx(sum(aurocs) / 2)
        assert point["auroc"]["low"] <= point["auroc"]["high"]
    scratch, other = (found["points"][place] for place in (1, 3))
    assert scratch["difference"] is None
    less = other["difference"]
    assert less["value"] == pytest.approx(other["auroc"]["value"] - scratch["auroc"]["value"])
    assert less["low"] <= less["high"]
    assert less["seeds"] == 2
    assert len(table(output / "label_efficiency.csv")) == 4
    drawing = ElementTree.parse(output / "label_efficiency.svg").getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    words = {text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"scratch", pretrained.name, "labelled films trained on"} <= words
    assert (output / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    page = (output / "report.html").read_text()
    assert page.count("<svg") == 1
    assert str(tmp_path) not in page

    before = times(output / "runs")
    again = sweep(*asked)
    assert again.status == 0, again.err
    assert times(output / "runs") == before, "what is finished is not done again"
    assert json.loads((output / "sweep.json").read_text()) == found
    other_settings = sweep(*asked, "optimizer.lr=0.5").error()
    assert "optimizer.lr is 0.001 in this run and 0.5 now" in other_settings


def test_a_run_that_fails_is_listed_and_the_others_go_on(sweep: Any, pretrained: Path, tmp_path: Path) -> None:
    broken, output = tmp_path / "broken", tmp_path / "sweep"
    shutil.copytree(pretrained, broken)
    (broken / "seen.csv").unlink()
    asked = ("--inits", broken, "scratch", "--output", output)
    assert "1 of 2 runs failed" in sweep(*asked).error()
    failed, done = table(output / "sweep.csv")
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert "seen.csv" in failed["reason"]
    assert failed["auroc"] == ""
    page = (output / "report.html").read_text()
    assert "1 of 2 runs failed" in page
    assert "failed (sweep.csv says why)" in page
    assert str(tmp_path) not in page
    before = times(output / "runs" / "scratch")

    shutil.copy(pretrained / "seen.csv", broken / "seen.csv")
    said = sweep(*asked)
    assert said.status == 0, said.err
    assert {row["state"] for row in table(output / "sweep.csv")} == {"done"}
    assert times(output / "runs" / "scratch") == before


def test_a_sweep_that_is_told_to_stop_goes_on_later(
    sweep: Any, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "sweep"
    settings = ("training.max_steps=40", "--inits", pretrained, "scratch", "--output", output)
    first = output / "runs" / pretrained.name / "labels-1" / "seed-0"

    def stop_in_training() -> None:
        until = time.monotonic() + 100
        while count_lines(first / "metrics.jsonl") < 3 and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    killer = threading.Thread(target=stop_in_training)
    killer.start()
    said = sweep(*settings)
    killer.join()
    assert said.status == 75, said.err
    assert "stopped at step" in said.err
    assert not (first / "finished.json").exists()

    def stop_in_evaluation(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with monkeypatch.context() as patch:
        patch.setattr(stage, "evaluate", stop_in_evaluation)
        said = sweep(*settings)
    assert said.status == 75, said.err
    assert "stopped at run 1 of 2, finished runs: 0; start the same command again" in said.err
    assert (first / "finished.json").exists()
    weights = times(first)
    said = sweep(*settings)
    assert said.status == 0, said.err
    assert {row["state"] for row in table(output / "sweep.csv")} == {"done"}
    assert weights.items() <= times(first).items(), "what is finished is not done again"


def test_detectors_are_drawn_by_ap50(boxed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "start_logging", lambda: None)
    output = tmp_path / "sweep"
    small = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "detect.channels=32")
    found = ("detect.convolutions=1", "detect.score_threshold=0.0", "detect.most=5")
    asked = ("--fractions", "0.5", "1", "--seeds", "0", "1", "--bootstrap", "100", "--output", str(output))
    file = str(CONFIGS / "finetune" / "detect_teeth.yaml")
    assert stage.main([file, *boxed, *small, *found, *BRIEF, "training.max_steps=2", *asked]) == 0
    rows = table(output / "sweep.csv")
    assert {"ap50", "ap", "ar", "froc"} < set(rows[0])
    for row in rows:
        run = output / row["run"]
        searched = join(Detections.load(run / "detections.csv"), Lesions.load(run / "lesions.csv")).of("test")
        assert float(row["ap50"]) == pytest.approx(coco_values(searched)["ap50"])
    points = json.loads((output / "sweep.json").read_text())["points"]
    drawn = [float(row["ap50"]) for row in rows if row["fraction"] == "1.0"]
    assert points[1]["ap50"]["value"] == pytest.approx(sum(drawn) / 2)
    assert table(output / "label_efficiency.csv")[1]["ap50"] == str(points[1]["ap50"]["value"])
    assert "AP50 on the test films" in (output / "report.html").read_text()


def test_segmenters_are_drawn_by_the_dice_of_lesions(
    boxed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "start_logging", lambda: None)
    output = tmp_path / "sweep"
    small = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
    asked = ("--fractions", "0.5", "1", "--bootstrap", "100", "--output", str(output))
    file = str(CONFIGS / "finetune" / "segment_caries.yaml")
    assert stage.main([file, *boxed, *small, *BRIEF, "training.max_steps=2", *asked]) == 0
    rows = table(output / "sweep.csv")
    points = json.loads((output / "sweep.json").read_text())["points"]
    for row, point in zip(rows, points, strict=True):
        images = SegmentedImages.load(output / row["run"] / "segmentation.csv").of("test")
        dice = [lesion.dice for own in images.overlaps for lesion in own.lesions]
        assert float(row["lesion_dice"]) == pytest.approx(sum(dice) / len(dice))
        assert point["lesion_dice"]["value"] == pytest.approx(sum(dice) / len(dice))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fractions", "0"), "--fractions: 0 must be above 0"),
        (("--seeds", "1", "1"), "--seeds: 1 is given twice"),
        (("--seeds", "-1"), "--seeds: -1 must be 0 or more"),
        (("--inits", "scratch", "nowhere"), "nowhere: no encoder.json in it"),
        (("seed=3",), "seed is set by the sweep for each run: give --seeds"),
        (("encoder.pretrained=true",), "encoder.pretrained starts every run from weights of others"),
        (("tuning=lora",), "--inits scratch: tuning=lora would leave fresh weights as they are"),
        (("bootstrp=3",), "unknown key bootstrp"),
        (("no.yaml",), "no.yaml does not exist"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: tuple[str, ...], said: str, sweep: Any, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    assert said in sweep(*arguments, "--output", output).error()
    assert not output.exists()
