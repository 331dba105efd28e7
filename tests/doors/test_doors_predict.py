"""Prediction as a user runs it: a run, and films from anywhere."""

import csv
import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from door_calls import BRIEF, NETWORK, Said, own_logging, succeed
from PIL import Image
from planting import FILE_NAMES, SECRETS, plant_folder
from searching import found_in, spoken_in

from mim.config import door
from mim.data import PreparedDataset
from mim.predict import main
from mim.stages.predict_table import Results

LABELS = ("data.labels=labels.csv", "data.target=caries")


def call(*arguments: object) -> Said:
    """What `python -m mim.predict ARGUMENTS` does."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), own_logging():
        status = door(lambda: main([*map(str, arguments), "--accelerator", "cpu", "--workers", "1"]))
    return Said(status, out.getvalue(), err.getvalue())


def results_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "predictions.json").read_text())


@dataclass(frozen=True)
class Tuned:
    """A finished and evaluated run, and where its films have been moved since."""

    run: Path
    films: Path
    names: dict[str, str]  # of files, by image_id

    @property
    def measured(self) -> list[dict[str, str]]:
        with (self.run / "predictions.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    @property
    def files(self) -> list[Path]:
        """The films that evaluate.py scored, in its order."""
        return [self.films / self.names[row["image_id"]] for row in self.measured]


@pytest.fixture(scope="module")
def tuned(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("predict")
    shutil.copytree(phantom / "labelled", folder / "films")
    data = (f"data.path={folder / 'films'}", f"data.cache={folder / 'prepared'}", *LABELS)
    masker = ("masker.kind=threshold", "masker.score=variance", "masker.threshold=quantile:0.4")
    succeed("finetune", *BRIEF, *NETWORK, *data, *masker, f"output={folder / 'run'}")
    succeed("evaluate", folder / "run", "bootstrap=100", "faithfulness.enabled=false", "accelerator=cpu")
    (prepared,) = (path for path in (folder / "prepared").iterdir() if path.is_dir())
    names = {row.image_id: row.image for row in PreparedDataset.open(prepared).rows}
    shutil.rmtree(folder / "prepared")
    (folder / "films").rename(folder / "moved")
    return Tuned(folder / "run", folder / "moved", names)


def test_scores_are_those_of_the_evaluation_to_the_last_bit(tuned: Tuned, tmp_path: Path) -> None:
    said = call(tuned.run, *tuned.files, "--output", tmp_path / "out")
    assert said.status == 0, said.err
    content = results_in(tmp_path / "out")
    measured = tuned.measured
    assert [film["score"] for film in content["films"]] == [float(row["score"]) for row in measured]
    assert [film["keep_rate"] for film in content["films"]] == [float(row["keep_rate"]) for row in measured]
    metrics = json.loads((tuned.run / "metrics.json").read_text())
    threshold = metrics["threshold"]["value"]
    assert content["model"]["threshold"] == {"value": threshold, "source": "validation", "reason": ""}
    assert content["model"]["checkpoint"] == metrics["header"]["checkpoint"]
    calls = ["positive" if float(row["score"]) >= threshold else "negative" for row in measured]
    assert [film["call"] for film in content["films"]] == calls
    for film in content["films"]:
        assert sum(film["scores"].values()) == pytest.approx(1)
        with Image.open(tmp_path / "out" / film["parts"][0]["overlay"]) as picture:
            assert picture.size == (768, 576)
    other = call(tuned.run, *tuned.files[:5], "--json", "-", "--batch-size", "2")
    alone = [film["score"] for film in json.loads(other.out)["films"]]
    assert alone == pytest.approx([float(row["score"]) for row in measured[:5]], abs=1e-6)


def test_json_on_standard_output_writes_nothing_else(tuned: Tuned, tmp_path: Path) -> None:
    said = call(tuned.run, tuned.files[0], "--json", "-")
    assert json.loads(said.out)["counts"]["films"] == 1
    assert list(tmp_path.iterdir()) == []


def test_a_threshold_may_be_given_and_is_missing_where_the_run_was_not_evaluated(tuned: Tuned, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tuned.run, run, ignore=shutil.ignore_patterns("checkpoints", "metrics.json"))
    said = call(run, tuned.files[0], "--json", "-")
    assert "evaluate.py was not run" in said.err
    assert json.loads(said.out)["films"][0]["call"] is None
    metrics = json.loads((tuned.run / "metrics.json").read_text())
    metrics["header"]["checkpoint"] = "of other weights"
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "of other weights" in call(run, tuned.files[0], "--json", "-").err
    given = json.loads(call(run, tuned.files[0], "--json", "-", "--threshold", "0").out)
    assert given["films"][0]["call"] == "positive"
    assert given["model"]["threshold"]["source"] == "given"


@pytest.fixture
def odd_films(tuned: Tuned, tmp_path: Path) -> Path:
    """A good film, and others that the run was not made for."""
    folder = tmp_path / "odd"
    folder.mkdir()
    shutil.copy(tuned.files[0], folder / "good.dcm")
    film = pydicom.dcmread(tuned.files[0])
    film.Modality = "CT"
    film.save_as(folder / "modality.dcm")
    pixels = np.asarray(Image.fromarray((film.pixel_array >> 4).astype(np.uint8)))
    if film.PhotometricInterpretation == "MONOCHROME1":
        pixels = 255 - pixels
    Image.fromarray(pixels).resize((512, 384)).save(folder / "size.png")
    Image.fromarray(pixels).resize((128, 40)).save(folder / "aspect.png")
    Image.fromarray(np.full_like(pixels, 255)).save(folder / "brightness.png")
    Image.fromarray(np.stack([pixels, 255 - pixels, pixels], axis=2)).save(folder / "colour.png")
    (folder / "broken.dcm").write_bytes(tuned.files[0].read_bytes()[:2000])
    (folder / "notes.txt").write_text("not a film")
    return folder


def test_films_that_a_run_was_not_made_for_are_refused_and_counted(
    tuned: Tuned, odd_films: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    said = call(tuned.run, odd_films, "--output", output)
    assert said.status == 0, said.err
    content = results_in(output)
    assert [Path(film["file"]).name for film in content["films"]] == ["good.dcm"]
    reasons = {Path(item["file"]).name: item["reason"] for item in content["skipped"]}
    expected = {f"{name}.png": name for name in ("size", "aspect", "brightness", "colour")}
    assert reasons == {**expected, "modality.dcm": "modality", "broken.dcm": "truncated"}
    assert "CT, the run was trained on IO" in json.dumps(content["skipped"])
    assert content["counts"] == {
        "files": 7,
        "films": 1,
        "skipped": 6,
        "reasons": dict.fromkeys(sorted(reasons.values()), 1),
    }
    assert "6 skipped" in said.err
    assert "--allow" in said.err
    said = call(tuned.run, odd_films, "--output", output, "--allow", "modality", "--allow", "colour", "--allow", "size")
    assert said.status == 0, said.err
    assert "(1 of them were there already)" in said.err
    found = {Path(film["file"]).name: film["differs"] for film in results_in(output)["films"]}
    assert {name: list(differs) for name, differs in found.items()} == {
        "good.dcm": [],
        "modality.dcm": ["modality"],
        "size.png": ["size"],
        "colour.png": [],
    }


def test_where_nothing_can_be_predicted_the_end_is_an_error(tuned: Tuned, odd_films: Path, tmp_path: Path) -> None:
    said = call(tuned.run, odd_films / "broken.dcm", odd_films / "modality.dcm", "--output", tmp_path / "out")
    error = said.error()
    assert "none of 2 files could be predicted (modality: 1, truncated: 1)" in error
    assert "--allow modality" in error
    assert results_in(tmp_path / "out")["counts"]["skipped"] == 2


def test_what_was_cut_off_goes_on_and_comes_out_the_same(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = (tuned.run, tuned.films, "--batch-size", "4", "--no-overlays")
    assert call(*arguments, "--output", whole).status == 0
    add, seen = Results.add, []

    def stop_after_nine(results: Results, entry: dict[str, Any]) -> None:
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(entry)
        add(results, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Results, "add", stop_after_nine)
        assert call(*arguments, "--output", cut).status == 130
    assert not (cut / "predictions.json").exists()
    with (cut / ".predictions.jsonl").open("a") as journal:
        journal.write('{"name": "torn')
    said = call(*arguments, "--output", cut)
    assert "(9 of them were there already)" in said.err
    first, second = results_in(whole), results_in(cut)
    assert [film["file"] for film in second["films"]] == [film["file"] for film in first["films"]]
    scores = [[film.pop("score") for film in content["films"]] for content in (first, second)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)  # other films met in a batch
    assert sorted(path.name for path in cut.iterdir()) == [".lock", "predictions.json"]
    again = call(*arguments, "--output", cut)
    assert "(40 of them were there already)" in again.err
    assert [film["file"] for film in results_in(cut)["films"]] == [film["file"] for film in first["films"]]
    error = call(*arguments, "--output", cut, "--threshold", "0.25").error()
    assert "(threshold); give another --output, or --overwrite" in error
    assert call(*arguments, "--output", cut, "--threshold", "0.25", "--overwrite").status == 0


def test_nothing_of_a_patient_is_written(tuned: Tuned, tmp_path: Path) -> None:
    films, output = tmp_path / "films", tmp_path / "out"
    films.mkdir()
    plant_folder(tuned.films, films)
    allowed = [word for what in ("size", "aspect", "brightness", "modality") for word in ("--allow", what)]
    said = call(tuned.run, films, "--output", output, "--no-overlays", *allowed)
    assert said.status == 0, said.err
    content = results_in(output)
    assert content["counts"]["skipped"] > 0
    drawn = call(tuned.run, content["films"][0]["file"], "--output", tmp_path / "drawn", *allowed)
    assert drawn.status == 0, drawn.err
    assert len(list((tmp_path / "drawn" / "overlays").iterdir())) == 1
    assert found_in(tmp_path / "drawn", SECRETS, skip=["predictions.json"]) == []
    assert found_in(output, SECRETS, skip=["predictions.json"]) == []
    assert {word for _, word in found_in(output, SECRETS)} <= {"Lovelace", "Augusta", "18151210"}, "names of files"
    assert spoken_in(said.out + said.err, [*SECRETS, *FILE_NAMES]) == []
    hidden = tmp_path / "hidden"
    said = call(tuned.run, films, "--output", hidden, "--hide-names", "--no-overlays", *allowed)
    assert said.status == 0, said.err
    assert found_in(hidden, [*SECRETS, *FILE_NAMES]) == []


def test_what_the_run_says_of_its_films_is_no_data_of_a_patient(tuned: Tuned) -> None:
    made_for = json.loads((tuned.run / "films.json").read_text())
    assert set(made_for) == {
        "format", "preparation", "films", "modalities", "long_side", "aspect", "edge_brightness", "salt_check"
    }  # fmt: skip
    assert made_for["modalities"] == ["IO"]
    assert made_for["long_side"] == [128, 128]


def test_reports_are_written_beside_the_results(tuned: Tuned, tmp_path: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="the extra mim[dicom] is not installed")
    said = call(tuned.run, *tuned.files[:2], "--output", tmp_path / "out", "--dicom")
    assert said.status == 0, said.err
    assert "2 reports, 2 segmentations" in said.err
    source = pydicom.dcmread(tuned.files[0])
    film = results_in(tmp_path / "out")["films"][0]
    report = highdicom.sr.srread(tmp_path / "out" / "dicom" / f"{film['sha256'][:16]}.sr.dcm")
    assert report.PatientID == source.PatientID
    (group,) = report.content.get_image_measurement_groups()
    certainty = next(item.value for item in group.get_measurements() if item.name.value == "111012")
    assert certainty == pytest.approx(100 * film["score"], abs=1e-5)
    segments = highdicom.seg.segread(tmp_path / "out" / "dicom" / f"{film['sha256'][:16]}.seg.dcm")
    assert segments.pixel_array.mean() == pytest.approx(film["keep_rate"], abs=1e-3)


def bad_calls(tuned: Tuned, tmp_path: Path) -> Iterator[tuple[list[object], str]]:
    film = tuned.files[0]
    yield [tmp_path / "no-run", film], "there is no such run"
    yield [tmp_path, film], "is not a run"
    yield [tuned.run, tmp_path / "no-film.dcm"], "there is no such file or folder"
    (tmp_path / "empty").mkdir()
    yield [tuned.run, tmp_path / "empty"], "no file in it can be listed"
    yield [tuned.run, film, "--batch-size", "0"], "must be at least 1"
    yield [tuned.run, film, "--threshold", "2"], "from 0 to 1"
    yield [tuned.run, film, "--json", "-", "--dicom"], "--dicom writes files"
    old = tmp_path / "old"
    shutil.copytree(tuned.run, old, ignore=shutil.ignore_patterns("checkpoints", "films.json"))
    yield [old, film], "--allow unknown"
    yield [tuned.run, film, "--studies", tmp_path / "studies.csv"], "--studies groups films for runs of task=study"
    listed = tmp_path / "listed"
    shutil.copytree(tuned.run, listed, ignore=shutil.ignore_patterns("checkpoints"))
    (listed / "metrics.json").write_text("[]")
    yield [listed, film], "metrics.json: cannot be understood"
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "predictions.json").write_text("{")
    yield [tuned.run, film, "--output", tmp_path / "torn"], "cannot be understood"


def test_bad_input_is_told_in_one_line(tuned: Tuned, tmp_path: Path) -> None:
    for arguments, said in bad_calls(tuned, tmp_path):
        assert said in call(*arguments).error(), arguments
    assert call(tmp_path / "old", tuned.files[0], "--json", "-", "--allow", "unknown").status == 0
