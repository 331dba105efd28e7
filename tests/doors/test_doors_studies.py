import csv
import json
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, NETWORK, call, losses, read_metrics, succeed

from mim.stages.replay import replay

STUDIES = (*BRIEF, *NETWORK, "task=study", "masker.kind=none", "study.hidden=8")


@pytest.fixture(scope="module")
def trained(studies: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "run"
    succeed("finetune", *STUDIES, *studies, "training.max_steps=4", "training.epochs=2", f"output={folder}")
    return folder


@pytest.fixture(scope="module")
def evaluated(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "evaluation"
    said = succeed("evaluate", trained, f"output={folder}", "bootstrap=100", "accelerator=cpu")
    assert "studies of" in said.out
    assert str(folder / "film_weights.csv") in said.out
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table_of(studies: tuple[str, ...]) -> Path:
    return Path(next(setting.partition("=")[2] for setting in studies if setting.startswith("data.labels=")))


def write(path: Path, table: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def test_a_run_on_studies_trains_and_validates(trained: Path) -> None:
    assert len(losses(trained)) == 4
    assert np.isfinite(losses(trained)).all()
    assert any("val/auroc" in record for record in read_metrics(trained))
    assert (trained / "model.safetensors").is_file()
    assert (trained / "encoder.safetensors").is_file()


def test_the_evaluation_says_how_much_each_film_counted(studies: tuple[str, ...], evaluated: Path) -> None:
    labels = rows(table_of(studies))
    predictions = rows(evaluated / "predictions.csv")
    weights = rows(evaluated / "film_weights.csv")
    patients = {row["patient_id"]: row["split"] for row in labels}
    assert len(predictions) == sum(split in ("val", "test") for split in patients.values())
    assert {row["study_id"] for row in weights} == {row["image_id"] for row in predictions}
    films = sum(row["split"] in ("val", "test") for row in labels)
    assert len(weights) == films
    for study in predictions:
        own = [row for row in weights if row["study_id"] == study["image_id"]]
        assert [int(row["position"]) for row in own] == list(range(1, len(own) + 1))
        assert sum(float(row["share"]) for row in own) == pytest.approx(1, abs=1e-4)
        assert all(0 < float(row["weight"]) < 1 and row["present"] == "1" and row["image_id"] for row in own)
        assert {row["patient_id"] for row in own} == {study["patient_id"]}
    assert "read study" in (evaluated / "report.html").read_text()
    written = "".join(path.read_text() for path in evaluated.iterdir())
    assert not [patient for patient in patients if patient in written]  # hashes alone


@pytest.mark.parametrize(
    "asked",
    ["missingness.films=8", "explanations.films=8", "faithfulness.films=8"],
    ids=lambda asked: asked.split(".")[0],
)
def test_a_block_that_only_films_have_is_refused_not_passed_over(trained: Path, tmp_path: Path, asked: str) -> None:
    error = call("evaluate", trained, "accelerator=cpu", asked, f"output={tmp_path}").error()
    assert f"{asked.split('.')[0]} is measured only of runs with task=classify" in error
    assert not list(tmp_path.iterdir())


def test_films_that_are_gone_are_absent_and_weigh_nothing(studies: tuple[str, ...], tmp_path: Path) -> None:
    table = rows(table_of(studies))
    place = next(number for number, row in enumerate(table) if row["split"] == "test")
    table.insert(place, {**table[place], "image": "never-there.dcm"})
    write(tmp_path / "labels.csv", table)
    run = tmp_path / "run"
    succeed("finetune", *STUDIES, *studies, f"data.labels={tmp_path / 'labels.csv'}", f"output={run}")
    succeed("evaluate", run, "bootstrap=100", "accelerator=cpu")
    weights = rows(run / "film_weights.csv")
    absent = [row for row in weights if row["present"] == "0"]
    assert [(float(row["weight"]), float(row["share"]), row["image_id"]) for row in absent] == [(0, 0, "")]
    beside = [row for row in weights if row["study_id"] == absent[0]["study_id"] and row["present"] == "1"]
    assert sum(float(row["share"]) for row in beside) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("score", ["intensity", "reconstruction_error"])
def test_a_threshold_in_front_of_each_film_and_a_frozen_pretrained_encoder(
    score: str, studies: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    masking = (
        "masker.kind=threshold",
        "masker.threshold=quantile:0.5",
        f"masker.score={score}",
        "study.cell=gru",
        "study.keep=1",
    )
    frozen = ("study.freeze_encoder=true", f"init={pretrained}")
    succeed("finetune", *BRIEF, "task=study", *masking, *frozen, *studies, f"output={run}")
    assert (run / "encoder.safetensors").read_bytes() == (pretrained / "encoder.safetensors").read_bytes()
    succeed("evaluate", run, "bootstrap=100", "accelerator=cpu")
    weights = rows(run / "film_weights.csv")
    studies = {row["study_id"] for row in weights}
    assert sum(float(row["weight"]) > 0 for row in weights) == len(studies)
    kept = [float(row["keep_rate"]) for row in rows(run / "predictions.csv")]
    assert max(kept) < 0.7


def test_a_learned_masker_in_front_of_each_film(studies: tuple[str, ...], pretrained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    masker = ("masker.kind=learned", "masker.supervised=1.0", "masker.reconstruction=0.5", "masker.scorer=tokens")
    recipe = ("masker.stages=[0.3,0.4,0.3]", "masker.follow=network", "masker.width=4", "study.hidden=8")
    boxes = ("data.boxes=lesions.coco.json", f"init={pretrained}")
    succeed("finetune", *BRIEF, "task=study", *masker, *recipe, *boxes, *studies, f"output={run}")
    records = read_metrics(run)
    assert any({"val/auroc", "val/lesion_shown", "val/mask_rate"} <= set(record) for record in records)
    assert {"train/loss_class", "train/loss_reconstruction"} <= set(records[1])
    said = succeed("evaluate", run, "bootstrap=100", "accelerator=cpu")
    assert "lesion recall (at least half of a lesion visible" in said.out
    mask = json.loads((run / "metrics.json").read_text())["blocks"]["mask"]
    films = [row for row in rows(run / "film_weights.csv") if row["split"] == "test"]
    assert mask["films"] == len(films)
    assert mask["share"] == pytest.approx(0.5)
    assert {float(row["keep_rate"]) for row in rows(run / "predictions.csv")} == {0.5}
    assert "What does the mask hide?" in (run / "report.html").read_text()


def test_a_run_that_is_done_is_not_done_again_and_a_broken_step_can_be_replayed(
    trained: Path, studies: tuple[str, ...], tmp_path: Path
) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    again = succeed("finetune", *STUDIES, *studies, "training.max_steps=4", "training.epochs=2", f"output={trained}")
    assert "is finished" in again.err
    assert (trained / "metrics.jsonl").read_bytes() == before
    broken = tmp_path / "broken"
    said = call("finetune", *STUDIES, *studies, "optimizer.lr=1e30", "training.max_skipped=0", f"output={broken}")
    assert "mim.stages.replay" in said.error()
    assert "first not finite in" in replay(broken)


def test_changed_studies_are_noticed(studies: tuple[str, ...], tmp_path: Path) -> None:
    labels, run = tmp_path / "labels.csv", tmp_path / "run"
    table = rows(table_of(studies))
    write(labels, table)
    succeed("finetune", *STUDIES, *studies, f"data.labels={labels}", f"output={run}")
    write(labels, [{**row, "study_id": row["image"]} for row in table])
    assert "labels, studies or splits" in call("evaluate", run, "accelerator=cpu").error()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("masker.kind=learned", "masker.supervised=1.0"), "masker.supervised: learns from lesions"),
        (("masker.kind=learned", "masker.stages=[1.0,0.5,0.0]"), "masker.stages [1.0, 0.5, 0.0]"),
        (("study.masker=none", "study.keep=2"), "study.keep"),
        (("study.freeze_encoder=true",), "study.freeze_encoder"),
        (("task=classify", "study.hidden=9"), "study.hidden is read only with task=study"),
        (("task=classify", "study.hidden=64", "data.max_films=3"), "data.max_films is read only with task=study"),
    ],
)
def test_bad_settings_are_told_in_one_line(
    settings: tuple[str, ...], said: str, studies: tuple[str, ...], tmp_path: Path
) -> None:
    assert said in call("finetune", *STUDIES, *studies, *settings, f"output={tmp_path / 'run'}").error()
    assert not (tmp_path / "run" / "checkpoints").exists()
