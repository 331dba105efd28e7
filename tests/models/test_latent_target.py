import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mim.config import OptimizerConfig
from mim.errors import MimError
from mim.models import MaskedImageModel, create_decoder, create_encoder
from mim.models.targets import CollapseGuard, LatentTarget, PixelTarget, VisibleDistillation
from mim.models.targets.collapse import effective_rank
from mim.training.optimizer import build_average, build_optimizer

SIZE = (64, 64)


def small(name="vit_tiny_patch16_224", **args):
    torch.manual_seed(0)
    if "vit" in name:
        args = {"depth": 3, "embed_dim": 48, "num_heads": 3, **args}
    return create_encoder(name, SIZE, **args)


def latent_task(encoder=None, decay=0.9, distill=0.0, pixels=0.0, **args):
    encoder = encoder or small()
    target = LatentTarget(encoder, decay, **args)
    targets = [(target, 1.0)] + ([(PixelTarget(encoder), pixels)] if pixels else [])
    decoder = create_decoder(encoder, sum(one.size for one, _ in targets), width=48, depth=1, heads=3)
    distillation = (VisibleDistillation(encoder, target), distill) if distill else None
    return MaskedImageModel(encoder, decoder, targets, distillation=distillation)


def batch_for(encoder, seed=0, count=8):
    """Smooth blobs: something that can be guessed."""
    generator = torch.Generator().manual_seed(seed)
    image = F.interpolate(torch.randn(count, 1, 6, 6, generator=generator), size=SIZE, mode="bicubic")
    order = torch.rand(count, math.prod(encoder.grid()), generator=generator).argsort(1)
    return {"image": image, "visible": (order < max(order.shape[1] // 3, 1)).view(count, *encoder.grid())}


def train(task, optimizer, steps, since=0, total=1000):
    losses = []
    for step in range(since, since + steps):
        torch.manual_seed(step)
        task.set_progress(step / total)
        loss = task(batch_for(task.encoder, step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        task.after_step()
        losses.append(loss.item())
    return losses


def adam(task, lr=1e-3):
    return build_optimizer(task, OptimizerConfig(lr=lr))


def test_the_target_is_the_layer_norm_of_the_last_blocks_averaged():
    encoder = small().eval()
    image = batch_for(encoder)["image"]
    kept = []
    hooks = [block.register_forward_hook(lambda *args: kept.append(args[2])) for block in encoder.backbone.blocks]
    encoder(image)
    for hook in hooks:
        hook.remove()
    normal = [(x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() for x in kept]
    for blocks, expected in {1: normal[2], 2: (normal[1] + normal[2]) / 2, 3: sum(normal) / 3}.items():
        torch.testing.assert_close(LatentTarget(encoder, blocks=blocks)(image), expected[:, 1:], atol=1e-5, rtol=1e-4)
    assert LatentTarget(small(depth=4)).blocks == 2


@pytest.mark.parametrize(("patch_size", "channels"), [(32, 512), (16, 256)])
def test_a_cnn_gives_the_coarsest_map_that_is_no_coarser_than_the_cells(patch_size, channels):
    encoder = small("resnet18", patch_size=patch_size).eval()
    image = batch_for(encoder)["image"]
    target = LatentTarget(encoder)
    level = {map_.shape[1]: map_ for map_ in encoder(image).maps}[channels]
    assert target.size == channels
    expected = F.layer_norm(level.flatten(2).transpose(1, 2), (channels,))
    torch.testing.assert_close(target(image), expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_a_latent_task_can_be_learnt_with_distillation_on_visible_cells(name):
    task = latent_task(small(name), decay=1.0, distill=0.5, pixels=0.5)
    batch = batch_for(task.encoder)
    optimizer = adam(task, 3e-3)
    first = None
    for _ in range(10):
        out = task(batch)
        first = first or {key: value.item() for key, value in out.items()}
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    names = {"loss", "loss_latent", "loss_pixels", "loss_distill_visible", "latent_deviation", "latent_rank"}
    assert set(out) == names
    parts = out["loss_latent"] + 0.5 * out["loss_pixels"] + 0.5 * out["loss_distill_visible"]
    torch.testing.assert_close(out["loss"], parts)
    assert out["loss_latent"] < first["loss_latent"]
    assert out["loss_distill_visible"] < 0.9 * first["loss_distill_visible"]


def test_only_hidden_cells_count_for_the_loss_and_only_visible_ones_for_distillation():
    task = latent_task(distill=1.0).eval()
    batch = batch_for(task.encoder)
    visible = batch["visible"].flatten(1)
    right = task.targets[0](batch["image"])
    prediction = task.predict(batch)
    error = F.smooth_l1_loss(prediction.values, prediction.take(right), reduction="none").mean(-1)
    out = task(batch)
    torch.testing.assert_close(out["loss_latent"], error[prediction.counted(batch["visible"])].mean())
    features = task.encoder(batch["image"], batch["visible"])
    laid = task.distillation.project(features.maps[-1].flatten(2).transpose(1, 2))
    error = F.smooth_l1_loss(laid, right, reduction="none").mean(-1)
    torch.testing.assert_close(out["loss_distill_visible"], error[visible].mean())


def test_images_with_different_numbers_of_visible_cells_count_alike_in_distillation():
    task = latent_task(distill=1.0).eval()
    batch = batch_for(task.encoder, count=2)
    batch["visible"][0, 0] = True
    assert len(batch["visible"].flatten(1).sum(1).unique()) == 2
    alone = [task({name: value[place : place + 1] for name, value in batch.items()}) for place in range(2)]
    expected = (alone[0]["loss_distill_visible"] + alone[1]["loss_distill_visible"]) / 2
    torch.testing.assert_close(task(batch)["loss_distill_visible"], expected)


def test_the_teacher_is_the_moving_average_of_the_encoder():
    task = latent_task(decay=0.8)
    teacher = task.targets[0].teacher
    expected = {name: value.double() for name, value in task.encoder.named_parameters()}
    assert all(torch.equal(value, expected[name].float()) for name, value in teacher.named_parameters())
    optimizer = adam(task, 1e-2)
    for step in range(4):
        train(task, optimizer, 1, since=step, total=8)
        decay = 1 - 0.2 * (math.cos(math.pi * step / 8) + 1) / 2
        for name, value in task.encoder.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value.detach().double()
    for name, value in teacher.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=1e-5)
        assert not torch.equal(value, task.encoder.get_parameter(name))


def test_the_decay_rises_to_1_or_stays():
    rising, fixed = LatentTarget(small(), 0.9), LatentTarget(small(), 0.9, "fixed")
    assert [rising.decay_at(at) for at in (0.0, 0.5, 1.0)] == pytest.approx([0.9, 0.95, 1.0])
    assert fixed.decay_at(0.0) == fixed.decay_at(1.0) == 0.9


def test_the_teacher_takes_over_the_statistics_of_batch_norm():
    task = latent_task(small("resnet18"), decay=0.5)
    train(task, adam(task), 2)
    teacher = dict(task.targets[0].teacher.named_buffers())
    assert any("running_var" in name for name in teacher)
    assert all(torch.equal(value, teacher[name]) for name, value in task.encoder.named_buffers())


def test_the_teacher_is_never_trained_and_never_random():
    encoder = small(drop_path_rate=0.5, proj_drop_rate=0.3)
    task = latent_task(encoder, distill=1.0).train()
    assert task.encoder.training
    assert not any(part.training for part in task.targets[0].teacher.modules())
    batch = batch_for(encoder)
    assert torch.equal(task.targets[0](batch["image"]), task.targets[0](batch["image"]))
    task(batch)["loss"].backward()
    teacher = list(task.targets[0].teacher.parameters())
    assert all(not one.requires_grad and one.grad is None for one in teacher)
    stepped = {id(one) for group in adam(task).param_groups for one in group["params"]}
    assert not stepped & {id(one) for one in teacher}
    assert {id(one) for one in task.parameters() if one.requires_grad} == stepped


def test_the_teacher_is_in_checkpoints_and_not_in_the_encoder():
    task = latent_task()
    assert any(name.startswith("targets.0.teacher.") for name in task.state_dict())
    assert not any("teacher" in name for name in task.encoder.state_dict())


def test_a_task_with_a_teacher_goes_on_as_if_it_had_never_stopped():
    task = latent_task(distill=0.5)
    optimizer = adam(task)
    train(task, optimizer, 13)
    saved = copy.deepcopy((task.state_dict(), optimizer.state_dict()))
    expected = train(task, optimizer, 9, since=13)
    again = latent_task(distill=0.5)
    optimizer = adam(again)
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    assert train(again, optimizer, 9, since=13) == expected
    ours, theirs = again.state_dict(), task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert again.targets[0].guard.steps == 22


def test_the_average_of_a_run_can_follow_a_task_with_a_teacher():
    task = latent_task()
    average = build_average(task, OptimizerConfig(ema_decay=0.5))
    optimizer = adam(task)
    for step in range(3):
        train(task, optimizer, 1, since=step)
        average.update(task, step=step + 1)
    batch = batch_for(task.encoder)
    task.load_state_dict(average.module.state_dict())
    assert torch.equal(task.eval()(batch)["loss"], average.module.eval()(batch)["loss"])


def test_half_precision_leaves_the_target_close_and_the_teacher_in_full_precision():
    task = latent_task()
    batch = batch_for(task.encoder)
    exact = task.targets[0](batch["image"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = task.targets[0](batch["image"])
        loss = task(batch)["loss"]
    assert rough.dtype == loss.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0)
    task.after_step()
    assert {one.dtype for one in task.targets[0].teacher.parameters()} == {torch.float32}


@pytest.mark.parametrize(("name", "blocks", "said"), [("vit_tiny_patch16_224", 4, "3 blocks"), ("resnet18", 1, "maps")])
def test_blocks_that_are_not_there_are_refused(name, blocks, said):
    with pytest.raises(MimError, match=rf"target\.teacher_blocks={blocks}: {name} has {said}"):
        LatentTarget(small(name), blocks=blocks)


def test_distillation_without_a_teacher_is_refused():
    encoder = small()
    distillation = VisibleDistillation(encoder, LatentTarget(encoder))
    with pytest.raises(ValueError, match="needs the teacher"):
        MaskedImageModel(encoder, distillation=(distillation, 1.0))


@pytest.mark.parametrize("rank", [1, 5, 40])
def test_the_effective_rank_is_the_number_of_equal_directions(rank):
    generator = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(torch.randn(200, rank, generator=generator))[0]
    columns = torch.linalg.qr(torch.randn(64, rank, generator=generator))[0]
    assert float(effective_rank((rows @ columns.T)[None])) == pytest.approx(rank, rel=1e-3)
    assert float(effective_rank((columns @ rows.T)[None])) == pytest.approx(rank, rel=1e-3)


def test_the_effective_rank_equals_its_definition_by_singular_values():
    vectors = torch.randn(4, 20, 48, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.logspace(0, -3, 48))
    share = torch.linalg.svdvals(vectors.flatten(0, 1).double())
    share = share / share.sum()
    expected = math.exp(-float((share * share.log()).sum()))
    assert float(effective_rank(vectors)) == pytest.approx(expected, rel=1e-5)


def guarded(**args):
    return latent_task(guard=CollapseGuard(every=1, patience=5), **args)


def test_a_healthy_run_is_left_alone():
    task = guarded(decay=0.99)
    losses = train(task, adam(task), 60)
    assert losses[-1] < losses[0]
    assert task.targets[0].guard.low == 0


def test_a_run_that_collapses_is_stopped_with_advice():
    """Without a slow teacher and with far too long steps, one vector for all cells is soon found."""
    task = guarded(decay=0.0)
    with pytest.raises(MimError, match=r"target\.latent: .* collapsed: .* target\.teacher_decay, lower optimizer\.lr"):
        train(task, adam(task, 0.3), 60)
    assert task.targets[0].guard.steps >= 5, "it must have been low for long enough"


def test_targets_that_are_one_vector_are_noticed_and_only_after_a_while():
    guard = CollapseGuard(every=2, patience=3)
    various = torch.randn(4, 30, 16, generator=torch.Generator().manual_seed(0))
    same = various[:1, :1].expand(4, 30, 16) + 1e-4 * various
    for tokens in (various, various, same, same, same, same, various, various, same, same, same, same):
        guard.watch(tokens)
        guard.after_step()
    assert guard.low == 2
    guard.watch(same)
    with pytest.raises(MimError, match=r"effective rank of 1\.0"):
        guard.after_step()


def test_targets_that_are_not_finite_are_left_for_the_loop_to_report():
    guard = CollapseGuard()
    guard.watch(torch.full((2, 4, 8), math.nan))
    guard.after_step()
    assert guard.now.isfinite().all()
