import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from door_calls import BRIEF, NETWORK, call, succeed
from jsonschema import Draft202012Validator
from sklearn.metrics import roc_auc_score

from mim.evaluation import Predictions

QUICK = ("bootstrap=100", "faithfulness.enabled=false", "worst=0")
SHORT = (*BRIEF, *NETWORK, "training.max_steps=2", "masker.kind=none")


@pytest.fixture(scope="module")
def runs(labelled: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two short runs of other seeds."""
    folder = tmp_path_factory.mktemp("compare")
    for seed in (0, 1):
        succeed("finetune", *SHORT, *labelled, f"seed={seed}", f"output={folder / f'seed{seed}'}")
    return folder / "seed0", folder / "seed1"


def change_task(run: Path, copy: Path, **changes: object) -> Path:
    shutil.copytree(run, copy)
    described = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**described, **changes}))
    return copy


def test_two_runs_are_compared_on_the_same_films(runs: tuple[Path, Path]) -> None:
    said = succeed("evaluate", *runs, *QUICK)
    output = runs[1].parent / "seed1-against-seed0"
    tables = [Predictions.load(output / f"predictions_{name}.csv").of("test") for name in ("first", "second")]
    areas = [float(roc_auc_score(table.label, table.score)) for table in tables]
    with (output / "comparison.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    written = rows["auroc"]
    assert [float(written[name]) for name in ("first", "second")] == pytest.approx(areas)
    assert float(written["difference"]) == pytest.approx(areas[1] - areas[0])
    assert float(written["low"]) <= float(written["difference"]) <= float(written["high"])
    metrics = json.loads((output / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(metrics)
    assert metrics["blocks"]["comparison"]["auroc"]["p"] == float(written["p"])
    assert metrics["test"]["auroc"]["value"] == pytest.approx(areas[1])
    page = (output / "report.html").read_text()
    assert "seed1 against seed0" in page
    assert str(runs[0].parent) not in page
    assert f"Measured on {len(tables[0])} test films of {len(set(tables[0].patient_id))} patients" in page
    assert "difference of AUC" in said.out

    before = [(run / "predictions.csv").stat().st_mtime_ns for run in runs]
    succeed("evaluate", runs[1], runs[0], *QUICK, "output=turned")
    assert [(run / "predictions.csv").stat().st_mtime_ns for run in runs] == before, "what was there is read"
    back = json.loads(Path("turned/metrics.json").read_text())["blocks"]["comparison"]["auroc"]
    assert back["difference"] == pytest.approx(areas[0] - areas[1])
    assert back["p"] == pytest.approx(float(written["p"]))


def test_predictions_of_other_weights_are_made_again(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    succeed("evaluate", runs[0], *QUICK)
    succeed("evaluate", runs[1], *QUICK)
    for name in ("predictions.csv", "metrics.json"):
        shutil.copy(runs[1] / name, copy / name)
    said = succeed("evaluate", copy, runs[1], *QUICK, f"output={tmp_path / 'out'}")
    assert "made again" in said.err
    for name in ("predictions.csv", "metrics.json"):
        assert (copy / name).read_bytes() == (runs[0] / name).read_bytes()


def test_scores_of_another_run_are_not_taken_for_its_own(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    for run in (copy, runs[1]):
        succeed("evaluate", run, *QUICK)
    own = (copy / "predictions.csv").read_bytes()
    shutil.copy(runs[1] / "predictions.csv", copy / "predictions.csv")
    said = succeed("evaluate", copy, runs[1], *QUICK, f"output={tmp_path / 'out'}")
    assert "is not of its predictions.csv" in said.err
    assert (copy / "predictions.csv").read_bytes() == own


def test_a_comparison_of_few_patients_says_so_once(runs: tuple[Path, Path], tmp_path: Path) -> None:
    said = succeed("evaluate", *runs, *QUICK, f"output={tmp_path / 'out'}")
    told = "have a positive film: the intervals are rough."
    assert said.err.count(told) >= 1
    assert (tmp_path / "out" / "report.html").read_text().count(told) == 1
    warnings = json.loads((tmp_path / "out" / "metrics.json").read_text())["warnings"]
    assert sum(told in line for line in warnings) == 1


def test_what_cannot_be_compared_is_told_in_one_line(runs: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = runs
    assert "compared with itself" in call("evaluate", first, first).error()
    assert "nowhere: there is no such run" in call("evaluate", first, "nowhere").error()
    assert "is a run, whose report" in call("evaluate", first, second, f"output={first}").error()
    assert "is a run, whose report" in call("evaluate", first, f"output={second}").error()
    (tmp_path / "file").write_text("")
    assert "file is a file" in call("evaluate", first, f"output={tmp_path / 'file' / 'out'}").error()
    assert "given already, as a and b" in call("evaluate", "a", "b", "c").error()
    classes = change_task(second, tmp_path / "classes", classes=["sound", "carious"])
    assert "its classes are of caries (sound, carious)" in call("evaluate", first, classes).error()

    split = tmp_path / "split"
    shutil.copytree(second, split)
    lines = (split / "splits.csv").read_text().splitlines()
    test = next(place for place, line in enumerate(lines) if ",test," in line)
    (split / "splits.csv").write_text("\n".join([*lines[:test], *lines[test + 1 :]]) + "\n")
    assert "is of another split than" in call("evaluate", first, split).error()
    cells = lines[test].split(",")
    lines[test] = ",".join([cells[0], "ffff", *cells[2:]])
    (split / "splits.csv").write_text("\n".join(lines) + "\n")
    assert "1 of its" in call("evaluate", first, split).error()


def test_other_pixels_under_the_same_names_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    for run in runs:
        succeed("evaluate", run, *QUICK)
    copy = tmp_path / "copy"
    shutil.copytree(runs[1], copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["header"]["data"] = "0" * 16
    (copy / "metrics.json").write_text(json.dumps(metrics))
    output = tmp_path / "out"
    assert "other pixels" in call("evaluate", runs[0], copy, f"output={output}").error()
    assert not output.exists()
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("bits: 8", "bits: 16"))
    said = succeed("evaluate", runs[0], copy, *QUICK, f"output={output}")
    assert "data.bits 8 and 16" in said.err
