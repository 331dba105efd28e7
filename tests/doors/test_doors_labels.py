"""More than two classes, grades, and several labels: from the table of labels to the report."""

import csv
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib.resources import files
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, NETWORK, Said, call, own_logging, read_metrics, succeed
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

from mim.config import FinetuneConfig, load_config
from mim.errors import MimError
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import mean_auroc
from mim.masking.threshold.__main__ import main as choose_threshold
from mim.predict import main as predict
from mim.stages.measured_labels import read_labels
from mim.stages.measured_run import FinishedRun
from mim.stages.sweep import sweep
from mim.stages.sweep_plan import SweepRequest

KINDS = {
    "classes": ("data.target=kind",),
    "ordered": ("data.target=depth", "data.label_kind=ordered", "data.label_order=[none, enamel, dentine]"),
    "several": ("data.target=[sick, old, east]",),
}
SMALL = (*BRIEF, *NETWORK, "training.max_steps=2")
QUICK = ("bootstrap=100", "accelerator=cpu")
SCHEMA = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def labels(phantom: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name the drawn films with labels of every kind, each patient of a site and of a sex.

    A third of the cells under `old` are empty.
    """
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patients = sorted({row["patient_id"] for row in rows})
    table = tmp_path_factory.mktemp("labels") / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "patient_id", "split", "kind", "depth", "sick", "old", "east", "site", "sex"))
        for number, row in enumerate(rows):
            place = patients.index(row["patient_id"])
            split = ("train", "train", "val", "test")[place % 4]
            kind, depth = ("bone", "root", "crown")[number % 3], ("dentine", "none", "enamel")[number % 3]
            old = "" if number % 3 == 0 else number % 2
            told = (row["image"], row["patient_id"], split, kind, depth, row["caries"], old, number // 2 % 2)
            writer.writerow((*told, f"{('Zebra', 'Aardvark')[place % 2]} clinic", "fm"[place // 4 % 2]))
    return (cache, f"data.path={phantom / 'labelled'}", f"data.labels={table}")


@pytest.fixture(scope="session")
def runs(labels: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind; that of several labels is behind a learned masker."""
    found = {}
    for kind, settings in KINDS.items():
        masker = ("masker.kind=learned", "masker.follow=network") if kind == "several" else ("masker.kind=none",)
        found[kind] = tmp_path_factory.mktemp("labels") / kind
        succeed("finetune", *SMALL, *labels, *settings, *masker, f"output={found[kind]}")
    return found


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def asked(*arguments: object) -> Said:
    """What `python -m mim.predict ARGUMENTS` does."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), own_logging():
        try:
            status = predict([*map(str, arguments), "--accelerator", "cpu", "--workers", "1"]) or 0
        except MimError as error:
            return Said(2, out.getvalue(), f"{err.getvalue()}error: {error}\n")
    return Said(status, out.getvalue(), err.getvalue())


def test_a_run_is_trained_watched_and_measured(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    run, output = runs[kind], tmp_path / "report"
    assert any(0 <= record.get("val/auroc", -1) <= 1 for record in read_metrics(run))
    said = succeed("evaluate", run, f"output={output}", *QUICK)
    assert "test mean AUROC" in said.out
    assert said.out.splitlines()[-1] == f"report: {output / 'report.html'}"
    content = json.loads((output / "metrics.json").read_text())
    Draft202012Validator(SCHEMA).validate(content)
    table = LabelPredictions.load(output / "predictions.csv", kind)
    with (run / "splits.csv").open(newline="") as file:
        measured = {row["image_id"]: row["split"] for row in csv.DictReader(file) if row["split"] != "train"}
    assert dict(zip(table.image_id, table.split, strict=True)) == measured
    block = content["blocks"]["labels"]
    assert block["films"] == list(measured.values()).count("test")
    assert list(table.names) == block["names"]
    assert (
        block["names"]
        == {
            "classes": ["bone", "crown", "root"],
            "ordered": ["none", "enamel", "dentine"],
            "several": ["sick", "old", "east"],
        }[kind]
    )
    if kind == "several":
        assert table.label[:, 1].min() == -1
        assert block["questions"][1]["unknown"] == (table.of("test").label[:, 1] == -1).sum() > 0
    else:
        np.testing.assert_allclose(table.score.sum(axis=1), 1)
    assert {"site", "sex"} <= set(table.columns), "films are measured by group"
    groups = content["blocks"]["strata"]["sex"]
    assert sum(group["counts"]["films"] for group in groups) == block["films"]
    assert set(content["blocks"]["strata_by_question"]) == {question["name"] for question in block["questions"]}
    for name in ("label_operating_points", "label_calibration", "label_usefulness"):
        assert name in content["blocks"]
    page = (output / "report.html").read_text()
    assert "By sex, worst first" in page
    assert "Zebra" not in page + (output / "predictions.csv").read_text(), "a site is a number"
    assert "Near copies of test films" in page
    assert "Only of two classes there are: AUROC behind other masks" in page
    assert page.count("data:image/png;base64,") >= 2
    assert ("mask" in content["blocks"]) == (kind == "several"), "what the mask hides of lesions stands first"
    card = (output / "model_card.md").read_text()
    assert block["names"][1] in card
    assert "mean AUROC" in card


def test_films_are_predicted_with_a_score_for_each_class(
    kind: str, runs: dict[str, Path], labels: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    succeed("evaluate", runs[kind], *QUICK)
    table = LabelPredictions.load(runs[kind] / "predictions.csv", kind)
    with Path(labels[2].partition("=")[2]).open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file) if row["split"] == "test"]
    films = [phantom / "labelled" / name for name in names[:3]]
    said = asked(runs[kind], *films, "--output", tmp_path / "out", "--allow", "brightness", "--no-overlays")
    assert said.status == 0, said.err
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["model"]["positive"] is None
    assert [tuple(film["scores"]) for film in content["films"]] == [table.names] * 3
    for film in content["films"]:
        own = np.array(list(film["scores"].values()))
        assert np.isclose(table.of("test").score, own, atol=1e-6).all(axis=1).any(), "as evaluate.py scored the film"
    assert "--threshold calls films" in asked(runs[kind], *films, "--json", "-", "--threshold", "0.5").err
    dicom = asked(runs[kind], *films, "--output", tmp_path / "other", "--dicom")
    assert "--dicom writes the score of one finding" in dicom.err


@pytest.mark.parametrize("block", ["missingness.films=3", "explanations.films=3", "faithfulness.films=3"])
def test_blocks_of_two_classes_are_refused_in_a_line(kind: str, block: str, runs: dict[str, Path]) -> None:
    error = call("evaluate", runs[kind], block, *QUICK).error()
    assert f"{block.split('.')[0]} is measured only of runs with task=classify and two classes" in error


def test_two_runs_are_compared_on_the_same_films(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    succeed("evaluate", runs[kind], *QUICK)
    other, output = tmp_path / "other", tmp_path / "out"
    shutil.copytree(runs[kind], other)
    weights = load_file(other / "model.safetensors")
    save_file({name: -own if name.startswith("head.") else own for name, own in weights.items()},
              other / "model.safetensors")  # fmt: skip
    said = succeed("evaluate", runs[kind], other, *QUICK, f"output={output}")
    assert "other: its evaluation is of other weights or of another split and is made again" in said.err
    assert "difference of mean AUROC" in said.out
    content = json.loads((output / "metrics.json").read_text())
    Draft202012Validator(SCHEMA).validate(content)
    with (output / "comparison.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    one, two = (LabelPredictions.load(output / f"predictions_{name}.csv", kind).of("test")
                for name in ("first", "second"))  # fmt: skip
    row = rows["mean_auroc"]
    areas = [mean_auroc(own.score, own.label, kind) for own in (one, two)]
    assert [float(row["first"]), float(row["second"])] == pytest.approx(areas)
    assert float(row["difference"]) == pytest.approx(areas[1] - areas[0])
    assert content["blocks"]["comparison"]["mean_auroc"]["p"] == pytest.approx(float(row["p"]))
    assert {f"auroc: {name}" for name in one.questions} <= set(rows)
    assert ("kappa" in rows) == (kind == "ordered")
    page = (output / "report.html").read_text()
    assert "AUROC of " in page
    assert str(tmp_path) not in page


def test_a_table_that_is_not_of_the_figures_beside_it_is_made_again(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs["classes"], run)
    succeed("evaluate", run, *QUICK)
    assert read_labels(FinishedRun.read(run)) is not None
    table = LabelPredictions.load(run / "predictions.csv", "classes")
    replace(table, score=table.score[:, ::-1]).save(run / "predictions.csv")
    assert read_labels(FinishedRun.read(run)) is None


def test_runs_that_take_their_labels_otherwise_are_not_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs["ordered"], other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("label_kind: ordered", "label_kind: classes"))
    error = call("evaluate", runs["ordered"], other, f"output={tmp_path / 'out'}").error()
    assert "was trained with data.label_kind=classes" in error


def test_a_sweep_draws_the_mean_auroc(kind: str, labels: tuple[str, ...], tmp_path: Path) -> None:
    config = load_config(FinetuneConfig, None, [*SMALL, *labels, *KINDS[kind], "masker.kind=none"])
    output = sweep(SweepRequest(config, (0.5, 1.0), (0,), ("scratch",), tmp_path / "sweep", bootstrap=100))
    with (output / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = json.loads((output / "sweep.json").read_text())["points"]
    for row, point in zip(rows, points, strict=True):
        table = LabelPredictions.load(output / row["run"] / "predictions.csv", kind).of("test")
        expected = mean_auroc(table.score, table.label, kind)
        assert float(row["mean_auroc"]) == pytest.approx(expected)
        assert point["mean_auroc"]["value"] == pytest.approx(expected)
    assert "Mean AUROC on the test films" in (output / "report.html").read_text()


def test_a_threshold_is_chosen_on_films_of_several_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    status = choose_threshold(
        [*labels, *KINDS["ordered"], *NETWORK, "data.boxes=lesions.coco.json", "--output", str(tmp_path), "--recall",
         "0.5", "--resamples", "100"]
    )  # fmt: skip
    assert status == 0
    assert json.loads((tmp_path / "threshold.json").read_text())["wanted_lesion_recall"] == 0.5


def test_labels_that_changed_since_the_training_stop_the_evaluation(
    labels: tuple[str, ...], runs: dict[str, Path], tmp_path: Path
) -> None:
    table = Path(labels[2].partition("=")[2])
    before = table.read_text()
    lines = before.splitlines()
    changed = next(n for n, line in enumerate(lines) if line.split(",")[2:3] == ["test"] and line.split(",")[6] == "")
    cells = lines[changed].split(",")
    lines[changed] = ",".join([*cells[:6], "1", *cells[7:]])
    try:
        table.write_text("\n".join(lines) + "\n")
        error = call("evaluate", runs["several"], f"output={tmp_path}", *QUICK).error()
    finally:
        table.write_text(before)
    assert "labels or splits of" in error


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("data.target=[kind, sick]",), "stands under 'kind': each of several labels is 0 or 1"),
        (("data.target=[sick]",), "give data.target=sick"),
        (("data.target=[sick, nobody]",), "has no column 'nobody' (data.target)"),
        (("data.target=kind", "data.label_kind=ordered"), "which of the grades under 'kind'"),
        (("data.target=sick", "data.label_kind=ordered"), "2 grades under 'sick'"),
        (("data.target=image",), "no training film is of class"),
        (("data.target=kind", "task=study"), "exactly two are supported (data.target)"),
    ],
)
def test_labels_that_cannot_be_learnt_are_told_in_a_line(
    changed: tuple[str, ...], said: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    output = tmp_path / "none"
    error = call("finetune", *SMALL, *labels, "masker.kind=none", *changed, f"output={output}").error()
    assert said in error
    assert not (output / "checkpoints").exists()


def test_balanced_sampling_and_focal_loss_go_with_classes(labels: tuple[str, ...], tmp_path: Path) -> None:
    settings = ("sampling=balanced", "class_weights=false", "loss=focal", "smoothing=0.0", "masker.kind=none")
    succeed("finetune", *SMALL, *labels, *KINDS["classes"], *settings, f"output={tmp_path}")
    assert (tmp_path / "finished.json").is_file()
