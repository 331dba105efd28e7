import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, NETWORK, Said, succeed
from PIL import Image

from mim.config import door
from mim.stages import select_features

QUICK = ("masker.steps=5", "folds=2", "repeats=1", "bootstrap=100", "accelerator=cpu")


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Said:
    monkeypatch.setattr(sys, "argv", ["select_features", *map(str, arguments)])
    monkeypatch.setattr(select_features, "start_logging", lambda: None)
    status = door(select_features.main)
    said = capsys.readouterr()
    return Said(status, said.out, said.err)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty patients with a film each, and what is known of them."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "patient_id", "split", "sick", "age", "site", "same"))
        for place in range(40):
            blobs = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
            blobs.resize((72, 64), Image.Resampling.BICUBIC).save(folder / f"{place}.png")
            split = "test" if place % 4 == 3 else "train"
            age = "" if place % 7 == 6 else 20 + place % 9
            site = f"Saint Nobody {place % 3}"
            writer.writerow((f"{place}.png", f"P{place}", split, place // 2 % 2, age, site, 1))
    return folder


@pytest.fixture(scope="module")
def settings(films: Path, cache: str) -> tuple[str, ...]:
    return (*QUICK, cache, f"data.path={films}", "data.labels=labels.csv", "data.target=sick")


def patients(films: Path, wanted: str) -> set[str]:
    return {row["patient_id"] for row in rows(films) if row["split"] == wanted}


def test_columns_and_embeddings_are_chosen_from(
    settings: tuple[str, ...],
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    said = call(capsys, monkeypatch, pretrained, *settings, "data.clinical=[age,site]", f"output={output}")
    assert said.status == 0, said.err
    features = rows(output / "features.csv")
    names = {row["feature"] for row in features}
    assert {"age", "site 1", "site 2", "site 3", "embedding 0", "embedding 47"} <= names
    assert len(names) == 4 + 48
    assert float(next(row["missing"] for row in features if row["feature"] == "age")) > 0
    found = json.loads((output / "selection.json").read_text())
    assert found["features"] == 52
    assert found["selections"] == 2
    assert found["rows"] == 30  # those of the test are left out
    assert set(found["auroc"]) == {"masker", "all", "l1"}
    assert "AUC, feature masker: " in said.out
    assert "stability over 2 training sets" in said.out or found["stability"]["value"] is None
    written = "".join(path.read_text() for path in output.iterdir())
    assert "Nobody" not in written
    assert "<svg" in (output / "selection.svg").read_text()


def test_patients_that_the_encoder_was_fine_tuned_on_are_left_out(
    settings: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    films = settings[len(QUICK) :]
    succeed("finetune", *BRIEF, *NETWORK, "masker.kind=none", "data.val_fraction=0.5", *films, f"output={run}")
    asked = (run, *settings, f"output={tmp_path / 'out'}")
    said = call(capsys, monkeypatch, *asked, "data.include_test=true")
    assert said.status == 0, said.err
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    splits = rows(run / "splits.csv")
    assert found["rows"] == sum(row["patient_id"] not in patients(run / "splits.csv", "train") for row in splits)
    few = call(capsys, monkeypatch, *asked, "folds=9").error()
    assert "too few for 9 folds" in few


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ((), "there are no features"),
        (("data.clinical=[agee]",), "did you mean 'age'?"),
        (("data.clinical=[same]",), "feature same is the same in every row"),
        (("data.clinical=[sick]",), "is the label to learn"),
        (("data.clinical=[age]", "folds=20"), "too few for 20 folds"),
        (("data.clinical=[age]", "data.train_limit=3"), "data.train_limit"),
        (("data.clinical=[age]", "data.target=null"), "data.target is not set"),
        (("run=nowhere",), "nowhere"),
    ],
)
def test_bad_input_is_told_in_one_line(
    changes: tuple[str, ...],
    said: str,
    settings: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out"
    assert said in call(capsys, monkeypatch, *settings, *changes, f"output={output}").error()
    assert not output.exists()


def test_help_names_the_settings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = call(capsys, monkeypatch, "--help")
    assert said.status == 0
    assert "data.clinical" in said.out
    assert "masker.keep" in said.out
