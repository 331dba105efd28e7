import csv
import json
import shutil
from pathlib import Path

import pytest
from door_calls import BRIEF, CONFIGS, NETWORK, call, run, succeed

from mim.evaluation import Predictions

SMALL = (*BRIEF, "data.long_side=128")
TEST_FILMS = 8


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which the doors use their own defaults for output and cache."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(autouse=True)
def _work_there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)


@pytest.fixture(scope="module")
def pretrained(workplace: Path, panoramics: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        images = f"data.path={panoramics / 'images'}"
        succeed("train", CONFIGS / "pretrain" / "mae_vit_tiny.yaml", images, *SMALL, *NETWORK)
    return workplace / "runs" / "mae_vit_tiny"


def finetune_line(panoramics: Path, init: Path) -> tuple[object, ...]:
    """The arguments of the line in the documentation, made brief."""
    films = (f"data.path={panoramics}", "data.labels=labels.csv", "data.target=restoration")
    return CONFIGS / "finetune" / "classify.yaml", *films, f"init={init}", *SMALL


@pytest.fixture(scope="module")
def finetuned(workplace: Path, panoramics: Path, pretrained: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        succeed("finetune", *finetune_line(panoramics, pretrained.relative_to(workplace)))
    return workplace / "runs" / "classify"


def test_pretraining_leaves_an_encoder(pretrained: Path) -> None:
    described = json.loads((pretrained / "encoder.json").read_text())
    assert described["name"] == "vit_tiny_patch16_224"
    assert described["image_size"] == [64, 64]
    assert (pretrained / "encoder.safetensors").stat().st_size > 0
    assert list((pretrained / "pictures").glob("*.png"))


def test_pretraining_does_not_meet_the_test_films(pretrained: Path, panoramics: Path, workplace: Path) -> None:
    with (panoramics / "labels.csv").open() as file:
        test = {Path(row["image"]).name for row in csv.DictReader(file) if row["split"] == "test"}
    (manifest,) = workplace.glob("data/prepared/images-*/manifest.csv")
    with manifest.open() as file:
        contents = {row["image"]: row["content"] for row in csv.DictReader(file)}
    with (pretrained / "seen.csv").open() as file:
        seen = {row["content"] for row in csv.DictReader(file)}
    assert len(test) == TEST_FILMS
    assert seen == {content for image, content in contents.items() if image not in test}


def test_fine_tuning_takes_the_encoder_and_keeps_the_splits(finetuned: Path, pretrained: Path) -> None:
    with (finetuned / "splits.csv").open() as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert {name: splits.count(name) for name in set(splits)} == {"train": 24, "val": 8, "test": TEST_FILMS}
    assert json.loads((finetuned / "task.json").read_text())["met_in_pretraining"] == 0
    assert json.loads((finetuned / "encoder.json").read_text())["image_size"] == [64, 64], "as in init"


def test_evaluation_writes_its_three_files_and_says_so(finetuned: Path, workplace: Path) -> None:
    said = run("evaluate", "runs/classify", "bootstrap=200", cwd=workplace)
    assert said.status == 0, said.err
    assert "Traceback" not in said.err

    figures = json.loads((finetuned / "metrics.json").read_text())
    auroc = figures["test"]["auroc"]
    assert figures["test"]["films"] == TEST_FILMS
    assert 0 <= auroc["value"] <= 1
    assert auroc["reason"] or auroc["low"] <= auroc["value"] <= auroc["high"]

    predictions = Predictions.load(finetuned / "predictions.csv")
    assert [predictions.split.count(name) for name in ("val", "test")] == [8, TEST_FILMS]
    assert len(predictions.score) == 8 + TEST_FILMS

    report = (finetuned / "report.html").read_text()
    assert "restoration: 1 against 0" in report
    assert f"{auroc['value']:.3f}" in report
    lines = said.out.splitlines()
    assert any(line.startswith(f"test AUC {auroc['value']:.3f} (") for line in lines), said.out
    assert lines[-1] == "report: runs/classify/report.html"


def test_evaluation_gives_the_same_figures_again(finetuned: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        succeed("evaluate", finetuned, "bootstrap=100", f"output={tmp_path / name}")
    for file in ("predictions.csv", "metrics.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_test_films_met_in_pretraining_stop_fine_tuning_or_are_reported(
    panoramics: Path, workplace: Path, tmp_path: Path
) -> None:
    met_all, output = tmp_path / "met-all", tmp_path / "finetuned"
    images = f"data.path={panoramics / 'images'}"
    succeed("train", images, "data.exclude=none", f"output={met_all}", *SMALL, *NETWORK)
    line = (*finetune_line(panoramics, met_all), f"output={output}")

    error = call("finetune", *line).error()
    assert f"{TEST_FILMS} of {TEST_FILMS} test films" in error
    assert "data.exclude" in error
    assert "data.seen_in_pretraining=report" in error
    assert not output.exists()

    succeed("finetune", *line, "data.seen_in_pretraining=report")
    said = succeed("evaluate", output, "bootstrap=100")
    warning = f"{TEST_FILMS} of {TEST_FILMS} test films, or other films of their patients, were met in pretraining"
    assert warning in said.err
    assert warning in (output / "report.html").read_text()
    assert warning in (output / "metrics.json").read_text()


def test_what_is_no_xray_in_a_folder_of_dicom_is_skipped_counted_and_listed(
    shared_data: Path, workplace: Path, tmp_path: Path
) -> None:
    films = {"fo_CR-ModalitySequenceLUT.dcm", "CR_tiny_6154.dcm", "CR_tiny_6247.dcm", "CR_tiny_6278.dcm"}
    others = {
        "SC_rgb_16bit.dcm": "colour",
        "examples_palette.dcm": "colour",
        "reportsi.dcm": "unsupported-object",
        "rtplan.dcm": "unsupported-object",
        "MR_truncated.dcm": "truncated",
        "manifest.csv": "not-an-image",
    }
    folder = tmp_path / "dicom"
    folder.mkdir()
    for name in (*films, *others):
        shutil.copyfile(shared_data / "dicom" / name, folder / name)
    said = succeed("train", f"data.path={folder}", f"output={tmp_path / 'run'}", *SMALL, *NETWORK)

    (path,) = workplace.glob("data/prepared/dicom-*/report.json")
    report = json.loads(path.read_text())
    assert (report["files"], report["films"]) == (len(films) + len(others), len(films))
    assert {entry["image"]: entry["reason"] for entry in report["skipped"]} == others
    assert report["skipped_by_reason"] == {"colour": 2, "unsupported-object": 2, "not-an-image": 1, "truncated": 1}
    assert "4 films from 10 files; 6 skipped (colour: 2" in said.err
    assert str(path) in said.err
