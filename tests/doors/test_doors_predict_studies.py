"""Prediction by a classifier of studies as a user runs it."""

import csv
import json
import shutil
from collections import defaultdict
from pathlib import Path

import pydicom
import pytest
from door_calls import BRIEF, NETWORK, succeed
from PIL import Image
from test_doors_predict import call, results_in

from mim.data import PreparedDataset

STUDIES = (*BRIEF, *NETWORK, "task=study", "study.hidden=8", "masker.kind=threshold")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class StudyRun:
    """A finished and evaluated run on studies, and the files of each study in its order."""

    def __init__(self, studies: tuple[str, ...], phantom: Path, folder: Path) -> None:
        self.run, self.films = folder / "run", phantom / "labelled"
        cache = f"data.cache={folder / 'prepared'}"
        masker = ("masker.score=variance", "masker.threshold=quantile:0.3")
        succeed("finetune", *STUDIES, *masker, *studies, cache, f"output={self.run}")
        succeed("evaluate", self.run, "bootstrap=100", "accelerator=cpu")
        (prepared,) = (path for path in (folder / "prepared").iterdir() if path.is_dir())
        names = {row.image_id: row.image for row in PreparedDataset.open(prepared).rows}
        self.files: dict[str, list[Path]] = defaultdict(list)
        self.shares: dict[str, list[float]] = defaultdict(list)
        for row in rows(self.run / "film_weights.csv"):
            self.files[row["study_id"]].append(self.films / names[row["image_id"]])
            self.shares[row["study_id"]].append(float(row["share"]))
        self.measured = {row["image_id"]: row for row in rows(self.run / "predictions.csv")}


@pytest.fixture(scope="module")
def made(studies: tuple[str, ...], phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    return StudyRun(studies, phantom, tmp_path_factory.mktemp("predict-studies"))


def test_dicom_files_are_scored_by_study_as_the_evaluation_does(made: StudyRun, tmp_path: Path) -> None:
    files = [file for own in made.files.values() for file in own]
    said = call(made.run, *files[::-1], "--output", tmp_path / "out")
    assert said.status == 0, said.err
    content = results_in(tmp_path / "out")
    assert content["counts"]["studies"] == len(made.files)
    by_files = {frozenset(study["files"]): study for study in content["studies"]}
    for name, own in made.files.items():
        study, measured = by_files[frozenset(map(str, own))], made.measured[name]
        assert study["score"] == pytest.approx(float(measured["score"]), abs=1e-6)
        assert study["keep_rate"] == pytest.approx(float(measured["keep_rate"]), abs=1e-6)
        films = sorted((f for f in content["films"] if f["study"] == study["study"]), key=lambda f: f["position"])
        assert [film["file"] for film in films] == [str(file) for file in own], "in the order of the study"
        assert [film["share"] for film in films] == pytest.approx(made.shares[name], abs=1e-5)
        assert {film["score"] for film in films} == {None}, "a film of a study has no score of its own"
        assert all(0.6 < film["keep_rate"] < 0.8 for film in films)
    with Image.open(tmp_path / "out" / content["films"][0]["parts"][0]["overlay"]) as picture:
        assert picture.size == (768, 576)
    threshold = content["model"]["threshold"]["value"]
    if threshold is not None:
        assert [study["call"] == "positive" for study in content["studies"]] == [
            study["score"] >= threshold for study in content["studies"]
        ]
    again = call(made.run, *files[::-1], "--output", tmp_path / "out")
    assert f"({len(files)} of them were there already)" in again.err
    assert results_in(tmp_path / "out") == content


def test_a_table_or_folders_group_films_that_are_no_dicom(made: StudyRun, tmp_path: Path) -> None:
    source = next(own for own in made.files.values() if len(own) > 1)
    films = []
    for number in range(4):
        folder = tmp_path / "films" / ("a" if number < 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        film = pydicom.dcmread(source[0])
        pixels = (film.pixel_array >> 4).astype("uint8")
        films.append(folder / f"{number}.png")
        Image.fromarray(pixels[:, ::-1] if number % 2 else pixels).save(films[-1])
    allowed = [word for what in ("brightness", "aspect") for word in ("--allow", what)]
    assert call(made.run, tmp_path / "films", "--output", tmp_path / "folders", *allowed).status == 0
    found = results_in(tmp_path / "folders")
    assert [[Path(file).name for file in s["files"]] for s in found["studies"]] == [
        ["0.png", "1.png"],
        ["2.png", "3.png"],
    ]
    table = tmp_path / "studies.csv"
    table.write_text("image,study_id,series_order\na/0.png,x,2\nb/2.png,x,1\n1.png,y,\n")
    arguments = (made.run, tmp_path / "films", "--studies", table, *allowed)
    assert call(*arguments, "--output", tmp_path / "table").status == 0
    content = results_in(tmp_path / "table")
    assert [[Path(file).name for file in s["files"]] for s in content["studies"]] == [["0.png", "2.png"], ["1.png"]]
    places = {Path(film["file"]).name: film["position"] for film in content["films"]}
    assert places == {"0.png": 2, "2.png": 1, "1.png": 1}
    (left,) = content["skipped"]
    assert (Path(left["file"]).name, left["reason"]) == ("3.png", "no-study")
    assert call(*arguments, "--output", tmp_path / "folders").status == 0
    assert results_in(tmp_path / "folders")["studies"] == content["studies"], "other groups are not mixed with these"


def test_a_film_that_cannot_be_used_is_left_out_and_its_study_is_scored_without_it(
    made: StudyRun, tmp_path: Path
) -> None:
    own = next(own for own in made.files.values() if len(own) > 1)
    folder = tmp_path / "films"
    folder.mkdir()
    for file in own:
        shutil.copy(file, folder)
    film = pydicom.dcmread(folder / own[0].name)
    film.Modality = "CT"
    film.save_as(folder / own[0].name)
    assert call(made.run, folder, "--output", tmp_path / "out").status == 0
    content = results_in(tmp_path / "out")
    (study,) = content["studies"]
    assert (study["films"], study["left_out"]) == (len(own) - 1, 1)
    assert [item["reason"] for item in content["skipped"]] == ["modality"]
    rest = call(made.run, *[folder / file.name for file in own[1:]], "--json", "-")
    assert json.loads(rest.out)["studies"][0]["score"] == pytest.approx(study["score"], abs=1e-6)


def test_nothing_that_names_patient_or_study_is_written(made: StudyRun, tmp_path: Path) -> None:
    own = next(iter(made.files.values()))
    header = pydicom.dcmread(own[0], stop_before_pixels=True)
    call(made.run, *own, "--output", tmp_path / "out", "--hide-names")
    text = (tmp_path / "out" / "predictions.json").read_text()
    assert not [word for word in (header.StudyInstanceUID, header.PatientID, str(own[0].parent)) if word in text]


def test_what_cannot_be_asked_of_studies_is_told_in_a_line(made: StudyRun, tmp_path: Path) -> None:
    film = next(iter(made.files.values()))[0]
    assert "--dicom reports on single films" in call(made.run, film, "--output", tmp_path / "x", "--dicom").error()
    table = tmp_path / "studies.csv"
    for text, said in (
        ("image,study\na,b\n", "no column 'study_id' (--studies)"),
        ("image,study_id\nnever.dcm,1\n", "names none of the 1 files"),
        (f"image,study_id\n{film},\n", "the cell under 'study_id' is empty"),
        (f"image,study_id\n{film},1\n{film},2\n", "another study or place"),
        (f"image,study_id,series_order\n{film},1,first\n", "under 'series_order' is no whole number"),
    ):
        table.write_text(text)
        assert said in call(made.run, film, "--json", "-", "--studies", table).error()
