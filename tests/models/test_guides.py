import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.config import MaskingConfig
from mim.errors import MimError
from mim.models import create_encoder
from mim.models.attention import attention_paid
from mim.models.guides import AttentionGuide, HardPatchGuide, hide_by_score, ranking_loss
from mim.stages.pretrain_masking import build_guide
from mim.tasks import MaskedImageModel

VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def tiny_vit(**args):
    torch.manual_seed(0)
    return create_encoder("vit_tiny_patch16_224", (64, 64), patch_size=8, **VIT, **args)


def tiny_cnn():
    torch.manual_seed(0)
    return create_encoder("resnet18", (64, 64), patch_size=16, layers=[1, 1, 1, 1])


def random_batch(grid, batch=4, size=64, ratio=0.75):
    generator = torch.Generator().manual_seed(1)
    cells = grid[0] * grid[1]
    order = torch.rand(batch, cells, generator=generator).argsort(dim=1)
    return {
        "image": torch.rand(batch, 1, size, size, generator=generator),
        "visible": (order >= round(ratio * cells)).view(batch, *grid),
        "mask_noise": torch.rand(batch, *grid, generator=generator),
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 4), st.integers(1, 7), st.integers(2, 7), st.floats(0, 1), st.integers(0, 999))
def test_as_many_are_hidden_and_the_share_of_them_by_score(batch, rows, columns, share, seed):
    generator = torch.Generator().manual_seed(seed)
    visible = torch.rand(batch, rows, columns, generator=generator) > 0.6  # another count in each image
    scores = torch.rand(batch, rows * columns, generator=generator)
    noise = torch.rand(batch, rows, columns, generator=generator)
    chosen = hide_by_score(scores, visible, noise, share)
    count = (~visible).flatten(1).sum(1)
    assert (~chosen).flatten(1).sum(1).tolist() == count.tolist()
    for own, hidden, drawn, many in zip(scores, (~chosen).flatten(1), noise.flatten(1), count.tolist(), strict=True):
        guided = round(many * share)
        best = own.argsort(descending=True)[:guided]
        assert hidden[best].all()
        by_chance = hidden.clone()
        by_chance[best] = False
        left = ~hidden
        if by_chance.any() and left.any():
            assert drawn[by_chance].max() < drawn[left].min()


def test_attention_is_that_of_timm_and_the_most_attended_are_hidden():
    encoder = tiny_vit().train()
    guide, batch = AttentionGuide(encoder, share=1.0), random_batch((8, 8))
    seen = {}
    last = encoder.backbone.blocks[-1].attn
    last.fused_attn = False  # then its weights pass through a module that can be listened to
    handle = last.attn_drop.register_forward_hook(lambda module, given, out: seen.update(weights=out))
    with torch.no_grad():
        encoder.eval()(batch["image"])
    handle.remove()
    expected = seen["weights"][:, :, 0, 1:].mean(dim=1)
    encoder.train()
    choice = guide.choose(encoder, batch["image"], batch["visible"], batch["mask_noise"], progress=1.0)
    torch.testing.assert_close(choice.scores, expected)
    hidden = (~choice.visible).flatten(1)
    assert hidden.sum(1).tolist() == [48] * 4
    for attended, own in zip(expected, hidden, strict=True):
        assert attended[own].min() >= attended[~own].max()
    assert encoder.training
    assert all(module.training for module in encoder.modules())


def test_without_a_class_token_the_mean_query_asks():
    encoder = tiny_vit(class_token=False, global_pool="avg")
    image = torch.rand(2, 1, 64, 64)
    scores = AttentionGuide(encoder).scores(encoder, image)
    assert scores.shape == (2, 64)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))
    tokens = torch.rand(2, 64, 48)
    attention = encoder.backbone.blocks[-1].attn
    turned = attention_paid(attention, tokens.flip(1), prefix=0, has_class_token=False)
    torch.testing.assert_close(turned.flip(1), attention_paid(attention, tokens, prefix=0, has_class_token=False))


def test_attention_of_a_cnn_is_refused_by_the_setting():
    with pytest.raises(MimError, match=r"^masking.pattern=attention: a ResNet has no attention"):
        build_guide(MaskingConfig(pattern="attention"), tiny_cnn())
    assert isinstance(build_guide(MaskingConfig(pattern="hard"), tiny_cnn()), HardPatchGuide)
    assert build_guide(MaskingConfig(), tiny_cnn()) is None


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(0, 99))
def test_the_ranking_loss_is_the_mean_over_pairs(cells, seed):
    generator = torch.Generator().manual_seed(seed)
    scores, errors = torch.randn(2, cells, generator=generator), torch.rand(2, cells, generator=generator)
    counted = torch.rand(2, cells, generator=generator) > 0.3
    terms = [
        -torch.nn.functional.logsigmoid(scores[image, i] - scores[image, j])
        for image in range(2)
        for i in range(cells)
        for j in range(cells)
        if counted[image, i] and counted[image, j] and errors[image, i] > errors[image, j]
    ]
    expected = torch.stack(terms).mean() if terms else torch.tensor(0.0)
    torch.testing.assert_close(ranking_loss(scores, errors, counted), expected)


@pytest.mark.parametrize("make", [tiny_vit, tiny_cnn])
def test_ranking_teaches_the_head_and_nothing_else(make):
    encoder = make()
    guide = HardPatchGuide(encoder)
    task = MaskedImageModel(encoder, guide=guide)
    batch = random_batch(encoder.grid())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    choice = guide.choose(encoder, batch["image"], batch["visible"], batch["mask_noise"], 0.5)
    errors = torch.rand(choice.scores.shape)
    guide.loss(choice.scores, errors, torch.ones_like(errors, dtype=torch.bool)).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in guide.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items()), "norms count nothing"

    plain = MaskedImageModel(copy.deepcopy(encoder), copy.deepcopy(task.decoder))
    chosen = guide.choose(encoder, batch["image"], batch["visible"], batch["mask_noise"], task.progress).visible
    guided_out, plain_out = task(batch), plain({"image": batch["image"], "visible": chosen})
    torch.testing.assert_close(guided_out["loss"] - guided_out["loss_guide"], plain_out["loss"])
    torch.testing.assert_close(guided_out["loss_pixels"], plain_out["loss"].detach())
    guided_out["loss"].backward()
    plain_out["loss"].backward()
    for ours, theirs in zip(encoder.parameters(), plain.encoder.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_looking_first_costs_the_encoder_no_gradient_under_autocast():
    encoder = tiny_vit()
    task = MaskedImageModel(encoder, guide=AttentionGuide(encoder, share=1.0))
    task.set_progress(0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task(random_batch((8, 8)))["loss"].backward()
    weight = encoder.backbone.blocks[0].attn.qkv.weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("guide", [HardPatchGuide, AttentionGuide])
def test_the_same_weights_give_the_same_masks_and_the_share_grows(guide):
    encoder = tiny_vit()
    task = MaskedImageModel(encoder, guide=guide(encoder, share=0.5))
    batch = random_batch((8, 8))
    losses = []
    for progress in (0.0, 1.0, 1.0):
        task.set_progress(progress)
        losses.append(float(task(batch)["loss"].detach()))
    assert losses[0] != losses[1] == losses[2]
    again = MaskedImageModel(tiny_vit(), guide=guide(encoder, share=0.5))
    again.load_state_dict(task.state_dict())
    again.set_progress(1.0)
    assert float(again(batch)["loss"].detach()) == losses[2]
    unguided = {name: batch[name] for name in ("image", "visible")}
    assert "loss_guide" not in task(unguided)
    assert task.reconstruct(unguided).shape == batch["image"].shape


def test_a_guide_learns_which_half_of_an_image_is_noise():
    """The left half is flat and easily rebuilt, the right half is noise, which nobody can rebuild."""
    torch.manual_seed(0)
    encoder = tiny_vit()
    task = MaskedImageModel(encoder, normalize_pixels=False, guide=HardPatchGuide(encoder, share=1.0))
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(2)
    for step in range(40):
        image = torch.full((8, 1, 64, 64), 0.5)
        image[..., 32:] = torch.rand(8, 1, 64, 32, generator=generator)
        batch = {**random_batch((8, 8), batch=8, ratio=0.5), "image": image}
        task.set_progress(step / 40)
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    choice = task.guide.choose(encoder, image, batch["visible"], batch["mask_noise"], progress=1.0)
    hidden = (~choice.visible).float()
    assert hidden[..., 4:].mean() > 0.9 > 0.1 > hidden[..., :4].mean()
