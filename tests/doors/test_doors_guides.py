import shutil
from pathlib import Path

import pytest
from door_calls import losses, succeed


@pytest.mark.parametrize("pattern", ["hard", "attention"])
def test_a_guided_run_goes_on_with_the_same_masks(pattern: str, unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    settings = (*unlabelled, f"masking={{pattern: {pattern}, guided_share: 1.0}}", "training.checkpoint_every=4")
    settings = (*settings, "training.max_steps=8")
    succeed("train", *settings, f"output={whole}")
    assert list((whole / "pictures").glob("*.png")), "of random masks"

    shutil.copytree(whole, resumed)
    (resumed / "config.yaml").write_text((whole / "config.yaml").read_text().replace(str(whole), str(resumed)))
    for name in ("finished.json", "model.safetensors", "encoder.safetensors"):
        (resumed / name).unlink()
    *_, newest = sorted(path for path in (resumed / "checkpoints").iterdir() if "8" in path.name)
    newest.unlink()
    succeed("train", *settings, f"output={resumed}")
    assert len(losses(resumed)) == 8
    assert losses(resumed) == losses(whole)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_films_are_rebuilt_in_a_report_behind_a_guided_pretraining(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], tmp_path: Path
) -> None:
    brief = tuple(setting for setting in unlabelled if setting.partition(".")[0] in ("tracking", "training"))
    succeed("train", *unlabelled, "masking={pattern: hard}", f"output={tmp_path / 'first'}")
    succeed("finetune", *brief, *labelled, f"init={tmp_path / 'first'}", f"output={tmp_path / 'second'}")
    succeed("evaluate", tmp_path / "second", "bootstrap=100", "accelerator=cpu")
    report = (tmp_path / "second" / "report.html").read_text()
    assert "None are shown" not in report
