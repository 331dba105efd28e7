import csv
import shutil
from pathlib import Path

import pytest
from door_calls import TINY, call, run, succeed


@pytest.fixture(scope="module")
def brief(cache: str) -> tuple[str, ...]:
    """Settings of fine-tuning in which only the films and labels may be wrong."""
    return (*(setting for setting in TINY if not setting.startswith("decoder")), cache)


@pytest.fixture
def films(phantom: Path, tmp_path: Path) -> Path:
    """A folder of a few good films."""
    folder = tmp_path / "films"
    folder.mkdir()
    for film in sorted((phantom / "unlabelled").iterdir())[:5]:
        shutil.copyfile(film, folder / film.name)
    return folder


def relabel(phantom: Path, path: Path, change: dict[str, dict[str, str]]) -> str:
    """Writes the phantom's labels with some cells changed, by film and column; `*` stands for all films."""
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, **change.get("*", {}), **change.get(row["image"], {})} for row in rows)
    return f"data.labels={path}"


def test_a_missing_folder_as_a_process_of_its_own(tmp_path: Path) -> None:
    said = run("train", f"data.path={tmp_path / 'nowhere'}", *TINY, f"output={tmp_path / 'run'}", cwd=tmp_path)
    assert said.error() == f"error: {tmp_path / 'nowhere'}: there is no such folder (data.path)"
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "run").exists()


def test_no_folder_at_all(cache: str) -> None:
    assert "data.path is not set: give data.path=" in call("train", *TINY, cache).error()


def test_an_empty_folder(cache: str, tmp_path: Path) -> None:
    error = call("train", f"data.path={tmp_path}", *TINY, cache).error()
    assert f"{tmp_path} holds no files" in error
    assert "data.path must be a folder of films" in error


def test_a_folder_with_only_unreadable_files(cache: str, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "notes.dcm").write_text("not a film")
    (tmp_path / "films" / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    error = call("train", f"data.path={tmp_path / 'films'}", *TINY, cache).error()
    assert "no film could be read" in error
    assert "not-an-image: 1" in error
    assert "DICOM, PNG, JPEG, TIFF or NIfTI" in error


def test_one_unreadable_file_among_good_ones_is_skipped(cache: str, films: Path, tmp_path: Path) -> None:
    good = (films / "film-000001.dcm").read_bytes()
    (films / "cut.dcm").write_bytes(good[: len(good) // 2])
    said = succeed("train", f"data.path={films}", *TINY, cache, f"output={tmp_path / 'run'}")
    assert "5 films from 6 files; 1 skipped (truncated: 1), listed in " in said.err


def test_a_wrong_label_column_and_the_right_one(labelled: tuple[str, ...], brief: tuple[str, ...]) -> None:
    error = call("finetune", *brief, *labelled, "data.target=carries").error()
    assert "has no column 'carries' (data.target): did you mean 'caries'?" in error


@pytest.mark.parametrize("key", ["labels", "boxes", "crops"])
def test_a_table_that_is_missing_is_told_before_films_are_prepared(
    key: str, films: Path, brief: tuple[str, ...], tmp_path: Path
) -> None:
    (films / "labels.csv").write_text("image,caries\n")
    data = (f"data.cache={tmp_path / 'cache'}", f"data.path={films}", "data.labels=labels.csv", "data.target=caries")
    said = call("finetune", *brief, *data, f"data.{key}=nothing.csv")
    assert f"nothing.csv: there is no such file (data.{key} is relative to data.path)" in said.error()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("data.labels=null", "data.labels is not set"),
        ("data.target=null", "data.target is not set"),
        ("data.labels=label.csv", "label.csv: there is no such file (data.labels is relative to data.path)"),
        ("data.target=image", "no training film is of class"),
        ("data.train_limit=1", "data.train_limit 1 is too small"),
        ("data.boxes=boxes.json", "boxes.json"),
        ("masker={kind: learned, random_keep: [0.9, 0.2]}", "masker.random_keep [0.9, 0.2]: the smaller share comes"),
        ("masker={kind: learned, stages: [0.5, 0.5, 0.5]}", "masker.stages [0.5, 0.5, 0.5]: the shares of A, B and C"),
        ("masker={kind: learned, keep: 0.0}", "masker.keep"),
        ("masker={kind: learned, keep: 1.2}", "masker.keep"),
        ("masker={kind: learned, task: 0.0}", "masker.task, supervised and reconstruction are all 0"),
        (
            "masker={kind: learned, supervised: 1.0}",
            "learns from lesions, and data.boxes is not set",
        ),
        ("masker={kind: learned, scorer: tokens}", "masker.scorer=tokens: reads a pretrained encoder; give init="),
        (
            "masker={kind: learned, reconstruction: 1.0}",
            "rebuilds with a pretrained model; give init=",
        ),
        ("data.split_by=site", "its split column decides, so data.split_by=site has nothing to draw"),
        ("data.fold=2", "data.fold 2 says nothing without data.folds"),
    ],
)
def test_labels_that_cannot_be_used(
    setting: str, wanted: str, labelled: tuple[str, ...], brief: tuple[str, ...]
) -> None:
    assert wanted in call("finetune", *brief, *labelled, setting).error()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (
            ("masker={kind: learned, reconstruction: 1.0, gate: soft}",),
            "a gate other than soft",
        ),
        (
            ("masker={kind: learned, reconstruction: 1.0}", "input.image_size=[96,64]"),
            "a grid of (4, 4) cells",
        ),
    ],
)
def test_a_masker_that_the_pretrained_model_cannot_teach(
    settings: tuple[str, ...], wanted: str, labelled: tuple[str, ...], brief: tuple[str, ...], pretrained: Path
) -> None:
    error = call("finetune", *brief, *labelled, f"init={pretrained}", *settings).error()
    assert wanted in error


def test_a_patient_in_two_splits(
    phantom: Path, labelled: tuple[str, ...], brief: tuple[str, ...], tmp_path: Path
) -> None:
    labels = relabel(phantom, tmp_path / "labels.csv", {"film-000014.dcm": {"split": "test"}})
    error = call("finetune", *brief, *labelled, labels).error()
    assert "in train in row 2 and in test in row 3: a patient belongs to one split" in error
    assert "PHANTOM" not in error, "a patient is named by a hash only"


def test_one_class_only_in_the_training_labels(
    phantom: Path, labelled: tuple[str, ...], brief: tuple[str, ...], tmp_path: Path
) -> None:
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        training = [row["image"] for row in csv.DictReader(file) if row["split"] == "train"]
    labels = relabel(phantom, tmp_path / "labels.csv", {image: {"caries": "0"} for image in training})
    error = call("finetune", *brief, *labelled, labels).error()
    assert "the training films have only one class under 'caries' (0)" in error


@pytest.mark.parametrize("encoder", ["{name: vit_small_patch16_224}", "{name: vit_tiny_patch16_224}"])
def test_a_checkpoint_of_another_architecture(
    encoder: str, labelled: tuple[str, ...], brief: tuple[str, ...], pretrained: Path
) -> None:
    error = call("finetune", *brief, *labelled, f"init={pretrained}", f"encoder={encoder}").error()
    assert str(pretrained) in error
    assert ("holds a vit_tiny_patch16_224" if "small" in encoder else "of another architecture") in error


def test_init_that_is_a_run_of_fine_tuning(labelled: tuple[str, ...], brief: tuple[str, ...], tmp_path: Path) -> None:
    succeed("finetune", *brief, *labelled, f"output={tmp_path / 'first'}")
    error = call("finetune", *brief, *labelled, f"init={tmp_path / 'first'}", "encoder=null").error()
    assert "seen.csv: is not there" in error
    assert "init must be a run of train.py" in error


def test_init_that_is_no_run(labelled: tuple[str, ...], brief: tuple[str, ...], tmp_path: Path) -> None:
    error = call("finetune", *brief, *labelled, f"init={tmp_path / 'nowhere'}", "encoder=null").error()
    assert f"{tmp_path / 'nowhere'}" in error


@pytest.mark.parametrize("name", ["train", "finetune"])
def test_an_image_size_that_is_no_whole_number_of_patches(
    name: str, unlabelled: tuple[str, ...], labelled: tuple[str, ...], brief: tuple[str, ...]
) -> None:
    settings = unlabelled if name == "train" else (*brief, *labelled)
    error = call(name, *settings, "input.image_size=[70,64]").error()
    assert "70x64 is not divisible by the patch size 16; the nearest that is: 64x64" in error


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("optimizer.learning_rate=1", "optimizer.lr"),
        ("training.epoch=3", "training.epochs"),
        ("encoder.name=vit_tyni_patch16_224", "did you mean 'vit_tiny_patch16_224'?"),
        ("masking.ratio=1.5", "masking.ratio"),
        ("masking.ratio=0.01", "masking.ratio: 0.01 hides none of the 4 x 4 cells of an image; from 0.062 to 0.9375"),
        ("masking.ratio=[0.5,0.98]", "masking.ratio: 0.98 leaves none visible of the 4 x 4 cells of an image"),
        ("masking.ratio=[0.8,0.5]", "masking.ratio [0.8, 0.5]: the smaller must come first"),
        ("masking={pattern: block, unit: 2}", "masking.unit is not read where masking.pattern is block"),
        ("masking={pattern: foreground, exact: true, ratio: [0.5, 0.6]}", "masking.exact asks for equal counts"),
        ("masking.pattern=blok", 'masking.pattern is "blok", wanted one of random, block'),
        ("masking.exact=true", "masking.exact is not read where masking.pattern is random"),
        ("input.image_size=[16,16]", "input.image_size"),
        ("encoder.timm_args={depht: 1}", "unexpected keyword argument 'depht'"),
        ("encoder.timm_args={num_heads: 5}", "dim should be divisible by num_heads"),
        ("encoder.timm_args={in_chans: 3}", "encoder.timm_args.in_chans"),
        ("encoder={name: mixer_b16_224}", "cells cannot be hidden in it"),
        ("decoder.heads=5", "decoder"),
        ("encoder={name: resnet18}", "decoder.heads is not read by decoder.kind=fcmae"),
        ("probe.neighbours=5", "probe.neighbours is read only with probe.labels"),
        ("training.accelerator=cuda", "training.accelerator=cuda: PyTorch sees no GPU"),
        ("data.exclude=nothing.csv", "nothing.csv: there is no such CSV (data.exclude)"),
        ("output=/dev/null/run", "/dev/null/run"),
    ],
)
def test_a_wrong_setting_of_pretraining(
    setting: str, wanted: str, unlabelled: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert wanted in call("train", *unlabelled, setting).error()


def test_a_folder_of_other_things_is_no_output(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("precious")
    error = call("train", *unlabelled, f"output={tmp_path}").error()
    assert "is not a run (it has thesis.doc and no config.yaml)" in error


def test_evaluating_what_is_not_a_finished_run_of_fine_tuning(
    labelled: tuple[str, ...], brief: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    assert "which run?" in call("evaluate").error()
    assert f"{tmp_path / 'nowhere'}: there is no such run" in call("evaluate", tmp_path / "nowhere").error()
    assert f"{tmp_path}: is not a run: it has no config.yaml" in call("evaluate", tmp_path).error()
    assert "it is not a run of finetune.py" in call("evaluate", pretrained).error()

    finetuned = tmp_path / "run"
    succeed("finetune", *brief, *labelled, f"output={finetuned}")
    (finetuned / "finished.json").rename(tmp_path / "finished.json")
    error = call("evaluate", finetuned).error()
    assert f"{finetuned}: is not finished; start the command that began it again" in error

    (tmp_path / "finished.json").rename(finetuned / "finished.json")
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}" in call("evaluate", finetuned, f"output={tmp_path / 'file' / 'report'}").error()
    weights = finetuned / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert f"{weights}" in call("evaluate", finetuned).error()


def test_labels_that_changed_after_fine_tuning(
    phantom: Path, labelled: tuple[str, ...], brief: tuple[str, ...], tmp_path: Path
) -> None:
    labels = relabel(phantom, tmp_path / "labels.csv", {})
    succeed("finetune", *brief, *labelled, labels, f"output={tmp_path / 'run'}")
    relabel(phantom, tmp_path / "labels.csv", {"film-000014.dcm": {"caries": "1"}})
    assert "labels or splits of " in call("evaluate", tmp_path / "run").error()
