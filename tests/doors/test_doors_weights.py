import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from door_calls import call, losses, succeed
from safetensors.torch import load_file
from torch import nn

from mim.errors import MimError
from mim.models import create_encoder, export_encoder
from mim.stages import pretrain as pretraining
from mim.stages import prove_loading as proof
from mim.stages.prove_loading import prove_encoder_loads
from mim.tasks import MaskedImageModel

TINY_VIT = {"depth": 1, "embed_dim": 48, "num_heads": 3}  # as in NETWORK of door_calls


def task_with(name: str = "vit_tiny_patch16_224", **args: object) -> MaskedImageModel:
    return MaskedImageModel(create_encoder(name, (64, 64), **args), mean=0.4, std=0.2)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """An encoder that somebody else pretrained on colour pictures of another size."""
    torch.manual_seed(5)
    model = timm.create_model("vit_tiny_patch16_224", img_size=96, num_classes=0, **TINY_VIT)
    path = tmp_path / "theirs.pth"
    torch.save({"model": {**model.state_dict(), "mask_token": torch.rand(1, 1, 8)}}, path)
    return path


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_the_proof_leaves_no_trace(name: str) -> None:
    task = task_with(name, **({"depth": 2} if name.startswith("vit") else {})).train()
    task.encoder.backbone.eval()
    modes = [module.training for module in task.modules()]
    before = {key: tensor.clone() for key, tensor in task.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    prove_encoder_loads(task)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    assert all(torch.equal(before[key], tensor) for key, tensor in task.state_dict().items())
    assert [module.training for module in task.modules()] == modes


def test_losses_are_those_of_a_run_without_the_proof(
    unlabelled: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    succeed("train", *unlabelled, f"output={tmp_path / 'with'}")
    monkeypatch.setattr(pretraining, "prove_encoder_loads", lambda task: None)
    succeed("train", *unlabelled, f"output={tmp_path / 'without'}")
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(first[key], second[key]) for key in first)


def misdescribed(task: MaskedImageModel) -> None:
    task.encoder.spec = dataclasses.replace(task.encoder.spec, timm_args={"depth": 3})


def changed_inside(task: MaskedImageModel) -> None:
    task.encoder.backbone.blocks[0].mlp.act = nn.ReLU()  # holds no weight: only features can tell


def another_norm(task: MaskedImageModel) -> None:
    task.encoder.backbone.norm = nn.Identity()


def not_finite(task: MaskedImageModel) -> None:
    nn.init.constant_(task.encoder.backbone.norm.weight, torch.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (misdescribed, "blocks.2."),
        (changed_inside, "features.pooled differs by up to"),
        (another_norm, "norm."),
        (not_finite, "norm.weight"),
    ],
)
def test_an_encoder_that_would_not_load_is_refused_in_one_line(change, message) -> None:
    task = task_with(depth=2)
    change(task)
    with pytest.raises(MimError, match="would not load after pretraining") as refused:
        prove_encoder_loads(task)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_refusal_comes_before_any_film_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build(config: object) -> MaskedImageModel:
        task = task_with(depth=2)
        changed_inside(task)
        return task

    monkeypatch.setattr(pretraining, "build_task", build)
    said = call("train", f"data.path={tmp_path / 'nothing'}", f"output={tmp_path / 'run'}")
    assert "would not load after pretraining" in said.error()
    assert not (tmp_path / "run").exists()


def test_other_ranks_do_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_with(depth=2)
    exported: list[object] = []
    monkeypatch.setattr(proof, "export_encoder", lambda *given: (exported.append(given), export_encoder(*given)))
    monkeypatch.setenv("RANK", "1")
    prove_encoder_loads(task)
    assert not exported, "rank 0 does it for all"
    monkeypatch.setenv("RANK", "0")
    prove_encoder_loads(task)
    assert len(exported) == 1


def test_both_trainings_start_from_a_file(
    unlabelled: tuple[str, ...], labelled: tuple[str, ...], theirs: Path, tmp_path: Path
) -> None:
    weights = f"encoder.weights={theirs}"
    said = succeed(
        "train", *unlabelled, weights, "optimizer.lr=1e-12", "optimizer.min_lr=0.0", f"output={tmp_path / 'run'}"
    )
    for part in (
        f"encoder from {theirs}",
        "pos_embed from 6x6 to 4x4 cells",
        "from 3 to 1 channels",
        "left out: mask_token",
    ):
        assert part in said.err
    found = load_file(tmp_path / "run" / "encoder.safetensors")["blocks.0.attn.qkv.weight"]
    torch.testing.assert_close(found, torch.load(theirs)["model"]["blocks.0.attn.qkv.weight"], atol=1e-6, rtol=0)
    theirs_gone = theirs.rename(tmp_path / "moved.pth")
    brief = [word for word in unlabelled if not word.startswith(("data.path", "decoder"))]
    again = f"encoder.weights={theirs_gone}"
    tuned = succeed("finetune", *brief, *labelled, again, "masker.kind=none", f"output={tmp_path / 'tuned'}")
    assert f"encoder from {theirs_gone}" in tuned.err
    theirs_gone.unlink()  # neither evaluating nor going on from a run asks for it again
    said = succeed("evaluate", f"run={tmp_path / 'tuned'}", "bootstrap=100", "accelerator=cpu")
    assert "report:" in said.out
    assert "published weights" in (tmp_path / "tuned" / "report.html").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("encoder.weights=nothing.pth",), "nothing.pth: is not there"),
        (("encoder.weights=damaged.pth",), "damaged.pth: cannot be read as weights"),
        (("encoder.weights={theirs}", "encoder.timm_args.depth=2"), "does not fit vit_tiny_patch16_224: blocks.1."),
        (("encoder.weights={theirs}", "encoder.pretrained=true"), "give one of them"),
    ],
)
def test_a_bad_file_of_weights_is_one_line_before_any_film_is_read(
    settings: tuple[str, ...], message: str, theirs: Path, tmp_path: Path
) -> None:
    Path("damaged.pth").write_bytes(theirs.read_bytes()[:5000])
    network = ("input.image_size=[64,64]", "encoder.timm_args={depth: 1, embed_dim: 48, num_heads: 3}")
    given = [setting.replace("{theirs}", str(theirs)) for setting in settings]
    said = call("train", *network, *given, f"data.path={tmp_path / 'none'}", f"output={tmp_path / 'run'}")
    assert message in said.error()
    assert not (tmp_path / "run").exists()


def test_a_run_and_a_file_to_start_from_are_one_too_many(pretrained: Path, theirs: Path, tmp_path: Path) -> None:
    said = call("finetune", f"init={pretrained}", f"encoder.weights={theirs}", f"output={tmp_path / 'run'}")
    assert "encoder.weights and init both say what to start from" in said.error()
