"""Prediction by a detector as a user runs it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from door_calls import BRIEF, CONFIGS, succeed
from PIL import Image
from test_doors_predict import call, results_in

from mim.data import PreparedDataset
from mim.evaluation import Detections

SMALL = (
    *BRIEF,
    "input.image_size=[64,96]",
    "encoder.timm_args={layers: [1, 1, 1, 1]}",
    "detect.channels=32",
    "detect.convolutions=1",
    "detect.score_threshold=0.0",
    "detect.most=5",
    "masker.kind=threshold",
    "masker.score=variance",
    "masker.threshold=quantile:0.2",
)


class Detector:
    """A finished and evaluated detector, and its films as files."""

    def __init__(self, phantom: Path, folder: Path, *further: str) -> None:
        self.run, self.films = folder / "run", phantom / "labelled"
        data = (f"data.path={self.films}", f"data.cache={folder / 'prepared'}")
        boxes = ("data.labels=labels.csv", "data.boxes=lesions.coco.json")
        file = CONFIGS / "finetune" / "detect_teeth.yaml"
        succeed("finetune", file, *SMALL, *data, *boxes, *further, f"output={self.run}")
        succeed("evaluate", self.run, "bootstrap=100", "accelerator=cpu")
        (prepared,) = (path for path in (folder / "prepared").iterdir() if path.is_dir())
        self.names = {row.image_id: row.image for row in PreparedDataset.open(prepared).rows}
        self.detections = Detections.load(self.run / "detections.csv")

    @property
    def files(self) -> list[Path]:
        """The films that evaluate.py searched, in its order."""
        return [self.films / self.names[image] for image in self.detections.image_id]

    def with_threshold(self, folder: Path, value: float) -> Path:
        """A copy whose evaluation came to this threshold."""
        shutil.copytree(self.run, folder, ignore=shutil.ignore_patterns("checkpoints"))
        metrics = json.loads((folder / "metrics.json").read_text())
        metrics["blocks"]["detection"]["threshold"]["value"] = value
        (folder / "metrics.json").write_text(json.dumps(metrics))
        return folder


@pytest.fixture(scope="module")
def detector(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return Detector(phantom, tmp_path_factory.mktemp("boxes"))


def test_boxes_are_those_of_the_evaluation_in_pixels_of_the_file(detector: Detector, tmp_path: Path) -> None:
    said = call(detector.run, *detector.files, "--output", tmp_path / "out", "--no-overlays")
    assert said.status == 0, said.err
    content = results_in(tmp_path / "out")
    assert content["model"]["task"] == "detect"
    found = [box for film in content["films"] for box in film["parts"][0]["boxes"]]
    assert np.allclose([box["box"] for box in found], detector.detections.boxes, atol=1e-9)
    assert [box["score"] for box in found] == detector.detections.score.tolist()
    assert [box["label"] for box in found] == list(detector.detections.label)
    for film in content["films"]:
        own = film["parts"][0]["boxes"]
        best = {name: max((b["score"] for b in own if b["label"] == name), default=0) for name in film["scores"]}
        assert film["scores"] == best
        assert film["keep_rate"] < 1, "a masker hides a part of it"
    assert content["model"]["threshold"]["source"] in ("validation", "none")


def test_films_are_searched_in_windows_as_in_the_evaluation(phantom: Path, tmp_path: Path) -> None:
    windows = ("detect.window=[64,64]", "detect.windows_per_film=1", "input.image_size=[64,64]")
    detector = Detector(phantom, tmp_path, *windows)
    said = call(detector.run, *detector.files, "--output", tmp_path / "out", "--no-overlays")
    assert said.status == 0, said.err
    found = [box for film in results_in(tmp_path / "out")["films"] for box in film["parts"][0]["boxes"]]
    assert np.allclose([box["score"] for box in found], detector.detections.score, atol=1e-5)
    assert np.allclose([box["box"] for box in found], detector.detections.boxes, atol=1e-2)


def test_the_threshold_of_the_evaluation_decides_which_boxes_are_called_and_drawn(
    detector: Detector, tmp_path: Path
) -> None:
    middle = float(np.median(detector.detections.score))
    run = detector.with_threshold(tmp_path / "run", middle)
    assert call(run, *detector.files[:3], "--output", tmp_path / "out").status == 0
    films = results_in(tmp_path / "out")["films"]
    boxes = [box for film in films for box in film["parts"][0]["boxes"]]
    assert [box["called"] for box in boxes] == [box["score"] >= middle for box in boxes]
    pictures = []
    for threshold in ("0", "1"):
        output = tmp_path / threshold
        assert call(run, detector.files[0], "--output", output, "--threshold", threshold).status == 0
        with Image.open(output / results_in(output)["films"][0]["parts"][0]["overlay"]) as picture:
            pictures.append(np.asarray(picture).astype(int))
    yellow = [((picture - (255, 213, 0)) ** 2).sum(axis=2) == 0 for picture in pictures]
    assert yellow[0].sum() > 100
    assert yellow[1].sum() == 0, "no box reaches a score of 1"


def test_a_detector_without_a_threshold_finds_boxes_and_calls_none(detector: Detector, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(detector.run, run, ignore=shutil.ignore_patterns("checkpoints", "metrics.json"))
    said = call(run, detector.files[0], "--json", "-")
    assert "evaluate.py was not run" in said.err
    assert {box["called"] for box in json.loads(said.out)["films"][0]["parts"][0]["boxes"]} == {None}


def test_films_that_a_detector_was_not_made_for_are_refused(detector: Detector, tmp_path: Path) -> None:
    film = pydicom.dcmread(detector.files[0])
    film.Modality = "CT"
    film.save_as(tmp_path / "ct.dcm")
    assert "CT, the run was trained on IO" in call(detector.run, tmp_path / "ct.dcm", "--json", "-").error()
    assert call(detector.run, tmp_path / "ct.dcm", "--json", "-", "--allow", "modality").status == 0


def test_each_called_box_is_a_region_of_the_report(detector: Detector, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="the extra mim[dicom] is not installed")
    run = detector.with_threshold(tmp_path / "run", float(np.median(detector.detections.score)))
    said = call(run, *detector.files[:4], "--output", tmp_path / "out", "--dicom")
    assert said.status == 0, said.err
    counts = []
    for film in results_in(tmp_path / "out")["films"]:
        path = tmp_path / "out" / "dicom" / f"{film['sha256'][:16]}.sr.dcm"
        regions = highdicom.sr.srread(path).content.get_planar_roi_measurement_groups()
        called = [box for box in film["parts"][0]["boxes"] if box["called"]]
        corners = [region.roi.value[[0, 2]].reshape(-1) for region in regions]
        assert np.allclose(np.array(corners).reshape(-1, 4), np.array([b["box"] for b in called]).reshape(-1, 4))
        certain = [next(m.value for m in region.get_measurements() if m.name.value == "111012") for region in regions]
        assert certain == pytest.approx([100 * box["score"] for box in called], abs=1e-5)
        counts.append(len(called))
        for tool in ("dsrdump", "dcmdump"):
            if shutil.which(tool):
                done = subprocess.run([tool, path], capture_output=True, text=True, timeout=60)
                assert done.returncode == 0, done.stderr
    assert 0 < sum(counts) < sum(len(film["parts"][0]["boxes"]) for film in results_in(tmp_path / "out")["films"])
