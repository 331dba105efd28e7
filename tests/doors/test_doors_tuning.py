import csv
import json
from pathlib import Path

import pytest
import timm
import torch
from door_calls import BRIEF, NETWORK, call, losses, succeed
from safetensors.torch import load_file, save_file

from mim.models import create_encoder
from mim.models.timm_folder import export_for_timm
from mim.predict import main as predict

# a detector for the network of NETWORK, made small
DETECT = ("task=detect", "detect.channels=32", "detect.convolutions=1", "detect.most=5")
TINY = {"depth": 1, "embed_dim": 48, "num_heads": 3}  # as in NETWORK
STUDY = ("task=study", "study.hidden=8")
MEASURE = ("bootstrap=100", "accelerator=cpu")


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


def without_updates(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the weights were that low-rank updates were learnt beside, by timm's names."""
    names = {name.replace(".parametrizations.weight.original", ".weight"): name for name in state}
    return {name.removeprefix("encoder.backbone."): state[own] for name, own in names.items() if "encoder." in name}


def test_low_rank_updates_are_learnt_measured_predicted_and_exported(
    labelled: tuple[str, ...], pretrained: Path, phantom: Path, tmp_path: Path
) -> None:
    run = tmp_path / "lora"
    settings = (*BRIEF, *labelled, "masker.kind=learned", "masker.stages=[0.3,0.3,0.4]", f"init={pretrained}")
    lora = (*settings, "tuning=lora", "lora.rank=2", "optimizer.ema_decay=0.5")
    said = succeed("finetune", *lora, f"output={run}")
    assert "tuning=lora: " in said.err
    adapted = 2 * (48 + 144 + 48 + 48 + 48 + 192 + 192 + 48)  # qkv, proj, fc1, fc2 of the one block
    assert f", {adapted:,} of the " in said.err
    before, after = (load_file(folder / "encoder.safetensors") for folder in (pretrained, run))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"blocks.0.{part}.weight" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    kept = without_updates(load_file(run / "model.safetensors"))
    assert all(torch.equal(before[name], kept[name]) for name in before)
    succeed("evaluate", run, *MEASURE)
    with (run / "predictions.csv").open(newline="") as file:
        measured = [float(row["score"]) for row in csv.DictReader(file)]
    options = ("--accelerator", "cpu", "--workers", "1", "--no-overlays", "--output", str(tmp_path / "out"))
    predict([str(run), str(phantom / "labelled"), *options])
    found = [film["score"] for film in json.loads((tmp_path / "out" / "predictions.json").read_text())["films"]]
    assert measured
    assert all(min(abs(score - other) for other in found) < 1e-6 for score in measured)
    export_for_timm(run, tmp_path / "timm")
    backbone = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    assert all(torch.equal(value, after[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "tuning"),
    [
        (DETECT, ("tuning=probe",)),
        (DETECT, ("tuning=lora", "lora.rank=2", "lora.layers=attention")),
        (STUDY, ("tuning=lora", "lora.rank=2", "lora.norms=true")),
        (STUDY, ("tuning=last_blocks", "tuned_blocks=1")),
    ],
)
def test_less_of_the_encoder_learns_in_any_task(
    kind: tuple[str, ...],
    tuning: tuple[str, ...],
    boxed: tuple[str, ...],
    studies: tuple[str, ...],
    pretrained: Path,
    tmp_path: Path,
) -> None:
    data = boxed if kind == DETECT else studies
    run = tmp_path / "run"
    said = succeed("finetune", *BRIEF, *kind, *data, *tuning, "masker.kind=none", f"init={pretrained}", f"output={run}")
    before, after = (load_file(folder / "encoder.safetensors") for folder in (pretrained, run))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    wanted = {
        "tuning=probe": set(),
        "lora.layers=attention": {f"blocks.0.attn.{part}.weight" for part in ("qkv", "proj")},
        "lora.norms=true": {name for name in before if "norm" in name or (".0." in name and name.endswith("weight"))},
        "tuned_blocks=1": {name for name in before if name.startswith(("blocks.", "norm"))},
    }
    assert changed == wanted[tuning[-1]]
    assert f"{tuning[0]}: " in said.err
    succeed("evaluate", run, *MEASURE)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("tuning=lora", "encoder.name=resnet18"), "tuning=lora: a ResNet has no linear layer to adapt"),
        (("tuning=lora", "lora.rank=48"), "tuning=lora: rank 48 is no less than that of the weights of blocks.0"),
        (("tuning=last_blocks", "tuned_blocks=3"), "tuned_blocks: the backbone has 1 blocks"),
        (("tuning=probe", "lora.rank=4"), "lora.rank is read only with tuning=lora, and tuning is probe"),
        (("tuning=lora", *STUDY, "study.freeze_encoder=true"), "both say what of the encoder learns"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_films_are_read(
    settings: tuple[str, ...], said: str, labelled: tuple[str, ...], tmp_path: Path
) -> None:
    network = () if "resnet18" in settings[-1] else NETWORK
    weights = tmp_path / "weights.safetensors"
    encoder = create_encoder(
        "resnet18" if not network else "vit_tiny_patch16_224", (64, 64), 1, **TINY if network else {}
    )
    save_file(encoder.backbone.state_dict(), weights)
    data = ("data.path=nowhere", *labelled[2:])
    settings = (*BRIEF, *network, *settings, f"encoder.weights={weights}", "masker.kind=none")
    assert said in call("finetune", *settings, *data, f"output={tmp_path / 'run'}").error()
    assert not (tmp_path / "run").exists()
