import json
from pathlib import Path

import torch
from door_calls import BRIEF, NETWORK, call, losses, succeed
from safetensors.torch import load_file


def test_a_probe_leaves_the_encoder_of_its_run_as_it_is(
    labelled: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    probe = tmp_path / "probe"
    settings = (*BRIEF, *labelled, "masker.kind=none", "tuning=probe")
    succeed("finetune", *settings, f"init={pretrained}", f"output={probe}")
    before, after = (load_file(run / "encoder.safetensors") for run in (pretrained, probe))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    fresh = call("finetune", *settings, *NETWORK, f"output={tmp_path / 'fresh'}")
    assert "tuning=probe would leave fresh weights as they are" in fresh.error()


def test_focal_loss_and_balanced_sampling_train_and_can_be_evaluated(labelled: tuple[str, ...], tmp_path: Path) -> None:
    settings = (*BRIEF, *NETWORK, *labelled, "masker.kind=none", "class_weights=false")
    plain, balanced, focal = (tmp_path / name for name in ("plain", "balanced", "focal"))
    succeed("finetune", *settings, f"output={plain}")
    succeed("finetune", *settings, "sampling=balanced", f"output={balanced}")
    succeed("finetune", *settings, "sampling=balanced", "loss=focal", f"output={focal}")
    assert losses(plain)[0] != losses(balanced)[0], "other films are met"
    assert losses(focal)[0] < losses(balanced)[0], "the same films weigh less"
    succeed("evaluate", focal, "bootstrap=100", "worst=0", "faithfulness.enabled=false")
    assert json.loads((focal / "metrics.json").read_text())["test"]["films"] > 0
