"""Prediction by a run on pixels."""

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from door_calls import BRIEF, CONFIGS, Said, own_logging, succeed

from mim.config import door
from mim.data import PreparedDataset
from mim.evaluation import SegmentedImages
from mim.evaluation.runs_of_cells import from_runs
from mim.predict import main

FILE = CONFIGS / "finetune" / "segment_caries.yaml"
SMALL = (*BRIEF, "input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
ENOUGH = ("training.max_steps=20", "optimizer.lr=5e-3", "optimizer.ema_decay=null", "masker.kind=threshold")


def call(*arguments: object) -> Said:
    """What `python -m mim.predict ARGUMENTS` does."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), own_logging():
        status = door(lambda: main([*map(str, arguments), "--accelerator", "cpu", "--workers", "1"]))
    return Said(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def run(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict") / "run"
    cache = f"data.cache={folder.parent / 'prepared'}"
    succeed("finetune", FILE, *SMALL, *boxed, *ENOUGH, cache, "masker.threshold=quantile:0.4", f"output={folder}")
    return folder


def test_pixels_are_those_of_the_evaluation_and_a_film_is_called_by_them(
    run: Path, phantom: Path, tmp_path: Path
) -> None:
    said = call(run, phantom / "labelled" / "film-000013.dcm", "--output", tmp_path / "before")
    assert said.status == 0, said.err
    (film,) = json.loads((tmp_path / "before" / "predictions.json").read_text())["films"]
    assert "not called positive or negative" in said.err
    assert (film["call"], film["parts"][0]["pixels"]) == (None, {}), "without a threshold nothing is drawn"

    succeed("evaluate", run, "bootstrap=100", "worst=0", "accelerator=cpu")
    images = SegmentedImages.load(run / "segmentation.csv").of("val")
    (prepared,) = (path for path in (run.parent / "prepared").iterdir() if path.is_dir())
    names = {row.image_id: row.image for row in PreparedDataset.open(prepared).rows}
    files = [phantom / "labelled" / names[image] for image in images.image_id]
    output = tmp_path / "after"
    said = call(run, *files, "--output", output)
    assert said.status == 0, said.err
    content = json.loads((output / "predictions.json").read_text())
    (name,) = content["model"]["classes"]
    drawn = []
    for own, film in zip(images.overlaps, content["films"], strict=True):
        pixels = from_runs(film["parts"][0]["pixels"][name])
        assert pixels.shape == (film["height"], film["width"])
        assert pixels.sum() == pytest.approx(own.drawn, abs=2), "batches of another size round otherwise"
        assert film["call"] == ("positive" if pixels.any() else "negative")
        drawn.append(bool(pixels.any()))
        assert film["keep_rate"] < 1
    assert any(drawn)

    given = call(run, files[0], "--threshold", "0.0", "--output", tmp_path / "given")
    assert given.status == 0, given.err
    (film,) = json.loads((tmp_path / "given" / "predictions.json").read_text())["films"]
    assert from_runs(film["parts"][0]["pixels"][name]).all(), "a threshold that is given is that of pixels"


def test_pixels_become_a_dicom_segmentation(run: Path, phantom: Path, tmp_path: Path) -> None:
    seg = pytest.importorskip("highdicom", reason="highdicom is not installed (extra dicom)").seg
    said = call(run, phantom / "labelled" / "film-000013.dcm", "--threshold", "0.0", "--output", tmp_path, "--dicom")
    assert said.status == 0, said.err
    (file,) = (tmp_path / "dicom").glob("*.seg.dcm")
    made = seg.segread(file)
    labels = {made.get_segment_description(number).segment_label: number for number in made.segment_numbers}
    (pixels,) = (number for label, number in labels.items() if label.endswith("pixels"))
    assert "seen by the network" in labels
    source = pydicom.dcmread(phantom / "labelled" / "film-000013.dcm", stop_before_pixels=True)
    planes = made.get_pixels_by_source_instance([source.SOPInstanceUID], segment_numbers=[pixels])
    assert planes.shape[1:3] == (source.Rows, source.Columns)
    assert np.all(planes == 1), "at a threshold of 0 every pixel is drawn"
