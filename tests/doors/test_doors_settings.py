import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from door_calls import TINY, call, losses, succeed


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tuning(cache: str) -> tuple[str, ...]:
    return (*(setting for setting in TINY if not setting.startswith(("decoder", "encoder", "input"))), cache)


def test_a_limit_on_pretraining_keeps_whole_patients_drawn_by_seed(
    unlabelled: tuple[str, ...], cache: str, tmp_path: Path
) -> None:
    seen: dict[int, set[str]] = {}
    for limit in (5, 8, 100):
        folder = tmp_path / str(limit)
        succeed("train", *unlabelled, "training.max_steps=1", f"data.train_limit={limit}", f"output={folder}")
        rows = read_csv(folder / "seen.csv")
        assert len(rows) <= limit
        seen[limit] = {row["sha256"] for row in rows}
        patients = Counter(row["patient_id"] for row in rows)
        if limit == 100:
            assert len(rows) == 12
        else:
            whole = Counter(row["patient_id"] for row in manifest_of(cache, "unlabelled"))
            assert patients == Counter({patient: whole[patient] for patient in patients})
    assert seen[5] < seen[8] < seen[100]
    assert "too small to hold a patient" in call("train", *unlabelled, "data.train_limit=1").error()


def manifest_of(cache: str, name: str) -> list[dict[str, str]]:
    (path,) = Path(cache.removeprefix("data.cache=")).glob(f"{name}-*/manifest.csv")
    return read_csv(path)


def test_a_limit_on_fine_tuning_leaves_validation_and_test_alone(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path: Path
) -> None:
    counts = {}
    for limit in (8, 100):
        folder = tmp_path / str(limit)
        settings = (*tuning(cache), *labelled, f"init={pretrained}", f"data.train_limit={limit}", f"output={folder}")
        succeed("finetune", *settings)
        succeed("evaluate", folder, "bootstrap=100")
        counts[limit] = Counter(row["split"] for row in read_csv(folder / "splits.csv"))
    assert 2 <= counts[8]["train"] <= 8 < counts[100]["train"]
    assert counts[8]["val"] == counts[100]["val"]
    assert counts[8]["test"] == counts[100]["test"]


def test_a_share_of_the_labels_and_a_fold_are_drawn_written_and_drawn_again(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path: Path
) -> None:
    chosen: dict[str, set[str]] = {}
    for share in ("0.2", "0.6"):
        settings = (f"init={pretrained}", f"data.label_fraction={share}", "data.folds=3", "data.fold=1")
        succeed("finetune", *tuning(cache), *labelled, *settings, f"output={tmp_path / share}")
        succeed("evaluate", tmp_path / share, "bootstrap=100")
        rows = read_csv(tmp_path / share / "splits.csv")
        assert {row["split"] for row in rows} == {"train", "val", "test", "unused"}
        chosen[share] = {row["image_id"] for row in rows if row["split"] == "train"}
        chosen[f"val of {share}"] = {row["image_id"] for row in rows if row["split"] == "val"}
    assert chosen["0.2"] < chosen["0.6"]
    assert chosen["val of 0.2"] == chosen["val of 0.6"]


def test_only_the_architecture_of_init_is_taken_where_weights_are_not_wanted(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path: Path
) -> None:
    for name, settings in (("with", ()), ("without", ("init_weights=false",))):
        succeed("finetune", *tuning(cache), *labelled, f"init={pretrained}", *settings, f"output={tmp_path / name}")
        succeed("evaluate", tmp_path / name, "bootstrap=100")
    assert losses(tmp_path / "with") != losses(tmp_path / "without")
    started = {name: json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("with", "without")}
    assert started["with"]["header"]["more"]["Started from"] == "the pretrained encoder"
    assert started["without"]["header"]["more"]["Started from"] == "fresh weights"
    assert (tmp_path / "with" / "encoder.json").read_bytes() == (tmp_path / "without" / "encoder.json").read_bytes()


def test_a_report_without_the_pretraining_run(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path: Path
) -> None:
    init, folder = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(pretrained, init)
    succeed("finetune", *tuning(cache), *labelled, f"init={init}", f"output={folder}")
    shutil.rmtree(init)
    said = succeed("evaluate", folder, "bootstrap=100")
    assert "no reconstructions: " in said.err
    assert "is no longer at hand" in (folder / "report.html").read_text()


def test_films_of_another_size_go_into_the_same_encoder(
    labelled: tuple[str, ...], pretrained: Path, cache: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    size = "input.image_size=[64,96]"
    said = succeed("finetune", *tuning(cache), *labelled, f"init={pretrained}", size, f"output={folder}")
    assert "pos_embed from 4x4 to 4x6 cells" in said.err
    succeed("evaluate", folder, "bootstrap=100")
    assert json.loads((folder / "metrics.json").read_text())["header"]["image_size"] == [64, 96]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_moving_average_and_accumulation(precision: str, unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    settings = (f"training.precision={precision}", "optimizer.ema_decay=0.5", "training.accumulate=2")
    succeed("train", *unlabelled, *settings, "training.batch_size=2", f"output={tmp_path / 'two'}")
    assert len(losses(tmp_path / "two")) == 3
    if precision == "32-true":
        succeed("train", *unlabelled, "optimizer.ema_decay=0.5", f"output={tmp_path / 'one'}")
        assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)


def test_a_prepared_dataset_is_taken_as_it_is(unlabelled: tuple[str, ...], cache: str, tmp_path: Path) -> None:
    succeed("train", *unlabelled, f"output={tmp_path / 'raw'}")
    (prepared,) = Path(cache.removeprefix("data.cache=")).glob("unlabelled-*/report.json")
    succeed("train", *unlabelled, f"data.path={prepared.parent}", f"output={tmp_path / 'prepared'}")
    assert losses(tmp_path / "raw") == losses(tmp_path / "prepared")


def test_films_that_moved_after_the_training(phantom: Path, cache: str, tmp_path: Path) -> None:
    first, second, run = tmp_path / "films", tmp_path / "moved", tmp_path / "run"
    shutil.copytree(phantom / "labelled", first)
    named = (cache, f"data.path={first}", "data.labels=labels.csv", "data.target=caries")
    succeed("finetune", *tuning(cache), *named, "masker.kind=none", f"output={run}")
    succeed("evaluate", run, "bootstrap=100")
    first.rename(second)
    assert f"{first}" in call("evaluate", run, "bootstrap=100").error()
    succeed("evaluate", run, f"data_path={second}", f"output={tmp_path / 'again'}", "bootstrap=100")
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()
