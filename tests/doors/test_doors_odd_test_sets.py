"""Test sets of which not everything can be measured: a line says what is wrong, and what can be computed is."""

import csv
import itertools
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from door_calls import BRIEF, CONFIGS, NETWORK, Said, call, succeed
from safetensors.torch import load_file, save_file
from test_doors_predict import call as predict

SHORT = (*BRIEF, "training.max_steps=1")
QUICK = ("bootstrap=100", "worst=2", "accelerator=cpu")
SMALL = (
    "input.image_size=[64,96]",
    "encoder.timm_args={layers: [1, 1, 1, 1]}",
    "detect.channels=32",
    "detect.convolutions=1",
    "detect.score_threshold=0.0",
    "detect.most=5",
)
TASKS = ("classify", "study", "detect")


@dataclass(frozen=True)
class Made:
    """A finished run whose test films are all negative, and where its films and labels are."""

    task: str
    run: Path
    films: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.films / "labels.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    def evaluate(self, run: Path, output: Path, *more: str) -> Said:
        quick = QUICK if self.task != "classify" else (*QUICK, "faithfulness.enabled=false")
        return call("evaluate", run, *quick, *more, f"output={output}")

    def with_labels(self, folder: Path, rows: list[dict[str, str]]) -> Path:
        """The films with another table of labels."""
        shutil.copytree(self.films, folder)
        write(folder / "labels.csv", rows)
        return folder


def write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def lay_out(phantom: Path, folder: Path) -> None:
    """The labelled films in a split whose test films are of patients without any caries."""
    shutil.copytree(phantom / "labelled", folder)
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    sick = {row["patient_id"] for row in rows if row["caries"] == "1"}
    films = Counter(row["patient_id"] for row in rows)
    healthy = sorted(films.keys() - sick, key=lambda patient: -films[patient])
    of_healthy = dict(zip(healthy, itertools.cycle(("test", "train", "val")), strict=False))
    of_sick = dict(zip(sorted(sick), itertools.cycle(("train", "val")), strict=False))
    for row in rows:
        row["split"] = (of_healthy | of_sick)[row["patient_id"]]
        row["sick"] = str(int(row["patient_id"] in sick))
    write(folder / "labels.csv", rows)


@pytest.fixture(scope="module", params=TASKS)
def made(request: pytest.FixtureRequest, phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp(request.param)
    lay_out(phantom, folder / "films")
    data = (f"data.path={folder / 'films'}", f"data.cache={folder / 'prepared'}", "data.labels=labels.csv")
    of_task: dict[str, tuple[Any, ...]] = {
        "classify": (*NETWORK, "data.target=caries", "masker.kind=none"),
        "study": (*NETWORK, "data.target=sick", "masker.kind=none", "task=study", "study.hidden=8"),
        "detect": (CONFIGS / "finetune" / "detect_teeth.yaml", *SMALL, "data.boxes=lesions.coco.json"),
    }
    succeed("finetune", *of_task[request.param], *SHORT, *data, f"output={folder / 'run'}")
    return Made(request.param, folder / "run", folder / "films")


def test_a_test_set_of_one_class_is_said_so_and_measured_as_far_as_it_goes(made: Made, tmp_path: Path) -> None:
    moved = shutil.copytree(made.films, tmp_path / "moved")
    said = made.evaluate(made.run, tmp_path / "out", f"data_path={moved}")
    assert said.status == 0, said.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    if made.task == "detect":
        assert sum("hold no lesion" in line for line in metrics["warnings"]) == 1
        assert "hold no lesion" in said.err
        own = metrics["blocks"]["detection"]
        assert (own["lesions"], own["coco"]["ap50"]["value"]) == (0, None)
        assert own["coco"]["ap50"]["reason"]
        assert own["at_threshold"]["false_positives_per_image"]["value"] is not None
    else:
        assert any("one class" in line or "no positive" in line for line in metrics["warnings"])
        assert "one class" in said.err
        assert metrics["test"]["auroc"]["value"] is None
        assert metrics["test"]["auroc"]["reason"]
        # scores after so few steps may tie, and then there is no threshold
        called = metrics["threshold"]["value"] is not None
        assert (metrics["test"]["specificity"]["value"] is not None) == called
        assert metrics["test"]["brier"]["value"] is not None
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_patient_of_the_test_who_is_trained_on_stops_the_evaluation(made: Made, tmp_path: Path) -> None:
    rows = made.rows
    several = next(row["patient_id"] for row in rows if row["split"] == "test" and
                   sum(other["patient_id"] == row["patient_id"] for other in rows) > 1)  # fmt: skip
    next(row for row in rows if row["patient_id"] == several)["split"] = "train"
    error = made.evaluate(made.run, tmp_path / "out", f"data_path={made.with_labels(tmp_path / 'films', rows)}").error()
    assert "a patient belongs to one split" in error
    assert several not in error
    assert not (tmp_path / "out").exists()


def test_a_split_that_is_not_that_of_the_run_stops_the_evaluation(made: Made, tmp_path: Path) -> None:
    rows = made.rows
    patient = next(row["patient_id"] for row in rows if row["split"] == "train" and row["sick"] == "1")
    for row in rows:
        row["split"] = "test" if row["patient_id"] == patient else row["split"]
    error = made.evaluate(made.run, tmp_path / "out", f"data_path={made.with_labels(tmp_path / 'films', rows)}").error()
    assert "have changed since the run was trained" in error
    assert not (tmp_path / "out").exists()


def test_scores_that_are_no_numbers_are_left_out_and_said_so(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made.run, run, ignore=shutil.ignore_patterns("checkpoints"))
    weights = load_file(run / "model.safetensors")
    heads = [name for name in weights if name.startswith("head.") and weights[name].is_floating_point()]
    save_file(
        {name: w * float("nan") if name in heads else w for name, w in weights.items()}, run / "model.safetensors"
    )
    said = made.evaluate(run, tmp_path / "out")
    assert said.status == 0, said.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    if made.task == "detect":
        assert sum("its weights are no numbers" in line for line in metrics["warnings"]) == 1
        film = next(made.films.glob("*.dcm"))
        assert "its weights are no numbers" in predict(run, film, "--json", "-").error()
    else:
        for split in ("validation", "test"):
            assert sum(f"{split} films have no score" in line for line in metrics["warnings"]) == 1
        with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
            assert {row["score"] for row in csv.DictReader(file)} == {""}
    assert (tmp_path / "out" / "report.html").is_file()
