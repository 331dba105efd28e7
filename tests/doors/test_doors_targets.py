import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from door_calls import ROOT, call, losses, read_metrics, succeed
from test_doors_ranks import torchrun

LATENT = "target={pixels: 0.5, latent: 1, distill_visible: 0.5, teacher_decay: 0.9}"


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("target.pixels=0", "error: target: there is nothing to find, as pixels, hog, spectral and latent are all 0"),
        ("target.hog=-1", "target.hog is -1, wanted number, at least 0"),
        ("target.distill_visible=1", "target.distill_visible: is of a teacher without latent target"),
        ("target.teacher_decay=0.9", "target.teacher_decay: is of a teacher without latent target"),
        ("target.teacher_schedule=fixed", "target.teacher_schedule: is of a teacher without latent target"),
        ("target.teacher_blocks=2", "target.teacher_blocks: is of a teacher without latent target"),
        ("target={latent: 1, teacher_blocks: 2}", "target.teacher_blocks=2: vit_tiny_patch16_224 has 1 blocks"),
        ("target={pixels: 0, hog: 1, normalize_pixels: false}", "target.normalize_pixels=false: is of pixels"),
    ],
)
def test_targets_that_cannot_be_are_refused_before_any_film_is_read(
    setting: str, wanted: str, unlabelled: tuple[str, ...], tmp_path: Path
) -> None:
    nowhere = f"data.path={tmp_path / 'nowhere'}"
    assert wanted in call("train", *unlabelled, nowhere, setting, f"output={tmp_path / 'run'}").error()
    assert not (tmp_path / "run").exists()


def test_histograms_that_do_not_fit_the_cells_are_refused(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    settings = ("target.hog=1", "encoder.patch_size=14", "input.image_size=[28,28]", f"output={tmp_path / 'run'}")
    assert "target.hog: histograms are of 8 by 8 pixels" in call("train", *unlabelled, *settings).error()


def test_without_pixels_nothing_is_drawn_and_the_log_and_the_report_say_so_once(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    said = succeed("train", *unlabelled, "target={pixels: 0, hog: 1}", "watch.looks=2", f"output={folder}")
    assert said.err.count("no reconstructions are drawn") == 1
    assert [path.name for path in (folder / "pictures").glob("*.png")] == ["loss.png"]
    brief = tuple(setting for setting in unlabelled if setting.startswith(("tracking", "training")))
    succeed("finetune", *brief, *labelled, f"init={folder}", f"output={tmp_path / 'tuned'}")
    succeed("evaluate", tmp_path / "tuned", "bootstrap=100")
    assert (tmp_path / "tuned" / "report.html").read_text().count("pixels were not among the targets") == 1


def test_a_run_with_a_teacher_goes_on_exactly_and_exports_the_encoder_alone(
    unlabelled: tuple[str, ...], tmp_path: Path
) -> None:
    settings = (*unlabelled, LATENT, "training.max_steps=6", "optimizer.ema_decay=0.5", "training.precision=bf16-mixed")
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    succeed("train", *settings, "training.checkpoint_every=4", f"output={whole}")
    succeed("train", *settings, "training.checkpoint_every=4", f"output={parted}")
    (parted / "finished.json").unlink()
    (parted / "checkpoints" / "step-00000006.pt").unlink()
    succeed("train", *settings, "training.checkpoint_every=4", f"output={parted}")
    assert losses(parted) == losses(whole)
    assert (parted / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    names = safetensors.torch.load_file(whole / "encoder.safetensors").keys()
    assert not [name for name in names if "teacher" in name]
    figures = [record for record in read_metrics(whole) if "train/loss" in record]
    parts = ("loss_pixels", "loss_latent", "loss_distill_visible", "latent_deviation", "latent_rank")
    assert all(record[f"train/{part}"] > 0 for record in figures for part in parts)


def test_two_ranks_with_a_teacher_train_as_one_with_twice_the_batch(
    unlabelled: tuple[str, ...], tmp_path: Path
) -> None:
    settings = (*unlabelled, LATENT, "training.max_steps=4")
    done = torchrun(ROOT / "train.py", *settings, "training.batch_size=3", f"output={tmp_path / 'two'}")
    assert done.returncode == 0, done.stderr
    succeed("train", *settings, "training.batch_size=6", f"output={tmp_path / 'one'}")
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "two" / "finished.json").read_text())["steps"] == 4
