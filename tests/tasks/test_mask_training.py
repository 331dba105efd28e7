"""Masks that are learnt: in stages, with a frozen network, and with gates that mean what dropping means."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from test_tasks import batch_for, small
from torch import nn

from mim.config import RunConfig
from mim.errors import Interrupted
from mim.masking import Mask, PatchMasker
from mim.masking.scorers import TokenScorer
from mim.tasks import FrozenTokens, MaskedClassifier, MaskedImageModel, MaskTraining, RebuildingError
from mim.training import build_optimizer, make_fabric, open_run, train_task

STEPS = 8


class Fixed(nn.Module):
    """A masker that always gives the same mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, batch):
        return self.mask


def classifier(name="vit_tiny_patch16_224", size=(32, 48), masker=None, **recipe):
    encoder = small(name, size)
    made = masker or PatchMasker(encoder.patch_size)
    return MaskedClassifier(encoder, 2, made, mask_training=MaskTraining(**recipe))


def moved(task, before):
    now = task.state_dict()
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, now[name])}


def copy_of(task):
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize(
    ("stages", "wanted"),
    [
        ((0.5, 0.5, 0.0), "network network masker masker masker"),
        ((0.5, 0.25, 0.25), "network network masker joint joint"),
        ((0.0, 0.0, 1.0), "joint joint joint joint joint"),
        ((1.0, 0.0, 0.0), "network network network network network"),
        ((0.0, 1.0, 0.0), "masker masker masker masker masker"),
        ((0.25, 0.0, 0.75), "network joint joint joint joint"),
    ],
)
def test_the_stages_follow_the_progress(stages, wanted):
    recipe = MaskTraining(stages=stages)
    assert [recipe.stage(quarter / 4) for quarter in range(5)] == wanted.split()


def test_each_part_learns_in_its_stages():
    recipe = MaskTraining(stages=(0.5, 0.25, 0.25))
    assert recipe.spans("network") == ((0.0, 0.5), (0.75, 1.0))
    assert recipe.spans("masker") == ((0.5, 1.0),)
    assert MaskTraining(stages=(1.0, 0.0, 0.0)).spans("masker") == ()


def test_the_weight_of_the_budget_rises_and_is_never_nothing():
    recipe = MaskTraining(stages=(0.4, 0.4, 0.2), budget=2.0, budget_ramp=0.5)
    weights = [recipe.budget_weight(number / 100) for number in range(101)]
    assert weights[40] == pytest.approx(0.2)
    assert weights[50] == pytest.approx(1.1)
    assert weights[60:] == pytest.approx([2.0] * 41)
    assert weights == sorted(weights)
    assert MaskTraining(budget_ramp=0.0).budget_weight(0.5) == 1.0


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"stages": (0.5, 0.5, 0.5)}, "must sum to 1"),
        ({"task": 0.0}, "nothing to learn from"),
        ({"random_keep": (0.9, 0.1)}, "smaller share comes first"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(recipe, said):
    with pytest.raises(ValueError, match=said):
        MaskTraining(**recipe)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_only_the_part_whose_stage_it_is_moves(name):
    """With weight decay, momentum, and the statistics of batch norms: to the last bit."""
    task = classifier(name, (64, 96), stages=(0.25, 0.5, 0.25))
    run = tiny_run_config()
    optimizer = build_optimizer(task, run.optimizer)
    batch = batch_for(task.encoder, 4)
    task.train()
    for step, wanted in enumerate(["encoder head", "encoder head", *["masker"] * 4, *["encoder head masker"] * 2]):
        before = copy_of(task)
        task.set_progress(step / STEPS)
        optimizer.zero_grad()
        task(batch)["loss"].backward()
        optimizer.step()
        assert moved(task, before) == set(wanted.split()), step


def test_validation_between_the_stages_leaves_the_modes_as_they_were():
    task = classifier("resnet18", (64, 96), stages=(0.0, 1.0, 0.0)).train()
    task.set_progress(0.5)
    assert not any(part.training for part in task.encoder.modules())
    assert task.masker.training
    task.eval().set_progress(0.9)
    assert not any(part.training for part in task.modules()), "an average of weights is told, too, and is not trained"


def test_a_network_that_is_never_told_learns_with_its_masker():
    task = classifier().train()
    out = task(batch_for(task.encoder, 8))
    out["loss"].backward()
    assert [name for name, p in task.named_parameters() if p.grad is None] == []


def test_random_masks_and_no_gradient_for_the_masker_in_the_first_stage():
    task = classifier().train()
    task.set_progress(0.1)
    out = task(batch_for(task.encoder, 8))
    assert len(out["visible"].flatten(1).sum(1).unique()) == 1
    out["loss"].backward()
    assert all(p.grad is None for p in task.masker.parameters())
    assert all(p.grad is not None for p in task.head.parameters())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hiera_tiny_224", "resnet18"])
def test_a_hard_gate_gives_the_logits_of_dropping(name):
    task = classifier(name, (64, 96), masker=Fixed(None)).eval()
    visible = torch.rand(4, *task.encoder.grid(), generator=torch.Generator().manual_seed(1)) < 0.5
    visible[:, 0, 0] = True
    image = batch_for(task.encoder)["image"]
    task.masker.mask = Mask(visible)
    dropped = task({"image": image})["logits"]
    task.masker.mask = Mask(visible, visible.float())
    torch.testing.assert_close(task({"image": image})["logits"], dropped, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "hiera_tiny_224"])
def test_a_closed_gate_hears_what_is_in_its_cell(name):
    """A gate over a lesion that happens to be closed must learn that opening it pays, and others that it does not."""
    encoder = small(name, (64, 96))
    task = MaskedClassifier(encoder, 2).eval()
    with torch.no_grad():  # a head of places alone, which are given
        task.head.linear.weight.zero_()
    visible = torch.ones(1, *encoder.grid(), dtype=torch.bool)
    visible[0, 0, 0] = visible[0, 1, 2] = False
    gate = visible.float().requires_grad_()
    features = encoder(torch.rand(1, 1, 64, 96), gate)
    content = features.content.detach().clone()
    direction = task.head.place_linear.weight[1] - task.head.place_linear.weight[0]
    scale = content.shape[-1] // encoder.grid()[1]
    content[0, :, :scale, :scale] = 3 * direction.detach()[:, None, None]  # looks like a lesion
    features = type(features)(features.pooled.detach(), [m.detach() for m in features.maps], content=content)
    logits = task.head(features, gate)
    (logits[0, 1] - logits[0, 0]).backward()
    assert gate.grad[0, 0, 0] > 3 * gate.grad[0, 1, 2].abs()


def test_a_masker_that_follows_the_network_never_hears_of_the_label():
    gradients = {}
    for follow in ("network", "label"):
        for label in (0, 1):
            task = classifier(stages=(0.0, 1.0, 0.0), follow=follow).train()
            task.set_progress(0.5)
            torch.manual_seed(3)
            task({**batch_for(task.encoder, 4), "label": torch.full((4,), label)})["loss"].backward()
            gradients[follow, label] = task.masker.scorer.score.weight.grad
    assert torch.equal(gradients["network", 0], gradients["network", 1])
    assert not torch.equal(gradients["label", 0], gradients["label", 1])


def test_showing_the_whole_film_is_what_follows_the_network_best():
    task = classifier(stages=(0.0, 1.0, 0.0), follow="network", masker=PatchMasker(8, keep=1.0, gate="top_k")).train()
    task.set_progress(0.5)
    batch = batch_for(task.encoder, 4)
    whole = task.head(task.encoder(batch["image"])).softmax(1)
    entropy = -(whole * whole.log()).sum(1).mean()
    torch.testing.assert_close(task(batch)["loss_class"], entropy, atol=1e-5, rtol=1e-5)


def test_a_gate_of_another_grid_is_named():
    ones = torch.ones(4, 3, 3)
    task = classifier(masker=Fixed(Mask(ones.bool(), gate=ones))).eval()
    with pytest.raises(ValueError, match="a gate of 3x3 cells does not fit"):
        task(batch_for(task.encoder))


def test_a_mask_of_pixels_filters_the_image_and_hidden_pixels_are_not_met():
    visible = torch.ones(4, 32, 48, dtype=torch.bool)
    visible[:, 5:9, 10:20] = False
    task = classifier(masker=Fixed(Mask(visible))).eval()
    batch = batch_for(task.encoder)
    logits = task(batch)["logits"]
    shuffled = batch["image"].clone()
    hidden = shuffled[:, :, 5:9, 10:20]
    shuffled[:, :, 5:9, 10:20] = hidden.flip(2, 3)  # the film's mean stays
    torch.testing.assert_close(task({"image": shuffled})["logits"], logits)
    task.masker.mask = Mask(torch.ones_like(visible))
    torch.testing.assert_close(task(batch)["logits"], task.head(task.encoder(batch["image"])))


def test_an_encoder_whose_cells_are_pixels_takes_a_mask_of_pixels_as_it_is():
    encoder = small("resnet18", (64, 64), patch_size=1)
    task = MaskedClassifier(encoder, 2, PatchMasker(1, per="pixel")).eval()
    out = task({"image": torch.rand(2, 1, 64, 64)})
    assert out["visible"].shape == (2, 64, 64)
    seen = out["visible"]
    assert torch.equal(out["logits"], task.head(encoder(torch.rand(2, 1, 64, 64), seen), seen)) is False
    assert out["logits"].isfinite().all()


def test_lesions_alone_teach_a_masker_without_asking_the_network():
    task = classifier(stages=(0.0, 1.0, 0.0), task=0.0, supervised=1.0).train()
    task.set_progress(0.0)
    batch = batch_for(task.encoder, 4)
    with pytest.raises(ValueError, match=r"set data\.boxes"):
        task(batch)
    batch["lesion"] = torch.zeros(4, 1, 32, 48, dtype=torch.bool)
    batch["lesion"][:2, :, 8:12, 8:12] = True
    task.encoder.forward = None  # it would fail if it were called
    out = task(batch)
    assert "logits" not in out
    out["loss_supervised"].backward()
    assert all(p.grad is not None for p in task.masker.parameters())


# --- networks that help and are not trained ---


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_the_error_of_rebuilding_is_that_of_pretraining_and_reaches_every_gate(name):
    encoder = small(name, (64, 96))
    model = MaskedImageModel(encoder, mean=0.4, std=0.2)
    error = RebuildingError(model)
    batch = batch_for(encoder)
    gate = batch["visible"].float().requires_grad_()
    found = error(batch["image"], Mask(batch["visible"], gate))
    torch.testing.assert_close(found.detach(), model(batch)["loss"], atol=1e-5, rtol=1e-5)
    found.backward()
    assert all(p.grad is None for p in model.parameters())
    assert (gate.grad != 0).all()


def test_a_cell_that_is_hard_to_rebuild_is_to_be_opened():
    encoder = small("vit_tiny_patch16_224", (32, 48))
    error = RebuildingError(MaskedImageModel(encoder, normalize_pixels=False))
    batch = batch_for(encoder, 1)
    visible = torch.ones_like(batch["visible"])
    visible[0, 1, 1] = visible[0, 2, 4] = False
    batch["image"][..., 8:16, 8:16] += 20
    gate = visible.float().requires_grad_()
    error(batch["image"], Mask(visible, gate)).backward()
    assert gate.grad[0, 1, 1] < gate.grad[0, 2, 4]


def test_frozen_tokens_stay_as_they_are_and_are_kept_with_the_masker():
    encoder, other = small(), small()
    tokens = FrozenTokens(other, 0.4, 0.2)
    scorer = TokenScorer(tokens, other.map_channels[-1], encoder.grid())
    task = MaskedClassifier(encoder, 2, PatchMasker(8, scorer=scorer)).train()
    assert not any(part.training for part in tokens.modules())
    before = {name: value.clone() for name, value in other.state_dict().items()}
    optimizer = build_optimizer(task, tiny_run_config().optimizer)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in other.parameters()}
    for progress in (0.1, 0.9):
        task.set_progress(progress)
        task(batch_for(encoder))["loss"].backward()
        optimizer.step()
    assert not any(p.requires_grad for p in other.parameters())
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert any(name.startswith("masker.scorer.tokens.encoder.") for name in task.state_dict())
    assert task.encoder is encoder


# --- over the real loop ---


def tiny_run_config(**training) -> RunConfig:
    blocks = {
        "tracking": {"tensorboard": False, "wandb": "off"},
        "training": {"epochs": 2, "accelerator": "cpu", "checkpoint_every": 1, "keep_checkpoints": 99, **training},
        "optimizer": {"warmup": 0.2, "lr": 1e-2, "weight_decay": 0.5, "layer_decay": 0.8},
    }
    return RunConfig.model_validate_json(json.dumps(blocks))


def train(folder, stop_after=None, ema=None):
    config = tiny_run_config()
    fabric = make_fabric(config.training, find_unused_parameters=True)
    task = classifier("resnet18", (32, 32), stages=(0.375, 0.375, 0.25), random_share=0.5)

    def batches(step: int) -> Iterator[dict[str, torch.Tensor]]:
        while True:
            if stop_after is not None and step == stop_after:
                raise Interrupted(step)
            yield {key: batch_for(task.encoder, 4, seed=step)[key] for key in ("image", "label")}
            step += 1

    with open_run(fabric, folder, "seed: 0\n") as opened:
        train_task(fabric, task, batches, config=config, folder=opened, steps_per_epoch=4, fingerprint={})
    return [torch.load(path, weights_only=True) for path in sorted((folder / "checkpoints").glob("step-*.pt"))]


def test_the_loop_freezes_exactly_and_goes_on_exactly_across_the_borders(tmp_path):
    whole = train(tmp_path / "whole")
    assert len(whole) == STEPS
    tasks = [checkpoint["task"] for checkpoint in whole]
    for step, (before, after) in enumerate(pairwise(tasks), start=2):
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        wanted = {"encoder", "head"} if step <= 3 else {"masker"} if step <= 6 else {"encoder", "head", "masker"}
        assert changed == wanted, step
    for border in (3, 5):
        folder = tmp_path / f"broken-{border}"
        with pytest.raises(Interrupted):
            train(folder, stop_after=border)
        last = train(folder)[-1]
        assert last["step"] == STEPS
        for name, value in tasks[-1].items():
            assert torch.equal(last["task"][name], value), name
