import pytest
import torch

from mim.masking import PatchMasker, ThresholdMasker
from mim.models import create_decoder, create_encoder
from mim.models.targets import normalize_cells, patchify
from mim.tasks import MaskedClassifier, MaskedImageModel, MaskTraining
from mim.tasks.staged import round_at_random


def small(name="vit_tiny_patch16_224", size=(32, 48), **args):
    torch.manual_seed(0)
    if "vit" in name:
        args = {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3, **args}
    return create_encoder(name, size, **args)


def batch_for(encoder, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(count, encoder.grid()[0] * encoder.grid()[1], generator=generator).argsort(1)
    return {
        "image": torch.rand(count, 1, *encoder.image_size, generator=generator),
        "visible": (order < order.shape[1] // 4).view(count, *encoder.grid()),
        "label": torch.arange(count) % 2,
    }


@pytest.mark.parametrize("normalize", [True, False])
def test_the_loss_is_the_error_over_hidden_cells_only(normalize):
    encoder = small()
    task = MaskedImageModel(encoder, normalize_pixels=normalize, mean=0.4, std=0.2).eval()
    batch = batch_for(encoder)
    out = task(batch)
    target = patchify((batch["image"] - 0.4) / 0.2, 8)
    target = normalize_cells(target)[0] if normalize else target
    prediction = task.predict(batch)
    hidden = prediction.counted(batch["visible"])
    assert hidden.sum() == (~batch["visible"]).sum()
    expected = (prediction.values - prediction.take(target))[hidden].square().mean()
    torch.testing.assert_close(out["loss"], expected)
    other = {**batch, "image": torch.where(batch["visible"][:, None].repeat_interleave(8, 2).repeat_interleave(8, 3),
                                          batch["image"], torch.rand_like(batch["image"]))}  # fmt: skip
    assert torch.equal(task.predict(other).values, task.predict(batch).values)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnextv2_atto"])
def test_one_batch_can_be_learnt(name):
    encoder = small(name, (64, 96))
    task = MaskedImageModel(encoder, create_decoder(encoder, width=48, depth=1, heads=3))
    batch = batch_for(encoder)
    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    losses = []
    for _ in range(50):
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_reconstruction_keeps_visible_pixels_and_is_an_image():
    encoder = small()
    batch = batch_for(encoder)
    rebuilt = MaskedImageModel(encoder, mean=0.45, std=0.225).eval().reconstruct(batch)
    seen = batch["visible"][:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(rebuilt[seen], batch["image"][seen])
    assert rebuilt.min() >= 0
    assert rebuilt.max() <= 1
    assert not torch.allclose(rebuilt[~seen], batch["image"][~seen])


@pytest.mark.parametrize("masker", [None, "threshold", "learned"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_what_the_masker_hides_cannot_reach_the_head(name, masker):
    encoder = small(name, (64, 96))
    made = {
        None: lambda: None,
        "threshold": lambda: ThresholdMasker(0.5, patch_size=encoder.patch_size),
        "learned": lambda: PatchMasker(encoder.patch_size),
    }[masker]()
    task = MaskedClassifier(encoder, 2, made).eval()
    batch = batch_for(encoder)
    out = task(batch)
    assert out["logits"].shape == (4, 2)
    seen = out["visible"] if masker else None
    expected = task.head(encoder(batch["image"], seen), seen)
    assert torch.equal(out["logits"], expected)
    if masker:
        assert torch.equal(out["visible"], made(batch).visible)
    cell = encoder.patch_size
    hidden = ~out["visible"][:, None].repeat_interleave(cell, 2).repeat_interleave(cell, 3)
    image = batch["image"].masked_fill(hidden, torch.nan)
    assert torch.equal(task.head(encoder(image, out["visible"]), out["visible"]), expected)


def test_without_labels_there_is_no_loss():
    encoder = small()
    out = MaskedClassifier(encoder).eval()({"image": torch.rand(2, 1, 32, 48)})
    assert set(out) == {"logits", "visible"}
    assert out["visible"].all()


def test_class_weights_and_smoothing_change_the_training_loss_only_as_they_should():
    encoder = small()
    batch = batch_for(encoder)
    plain = MaskedClassifier(encoder, 2).eval()
    torch.nn.init.normal_(plain.head.linear.weight)
    weighted = MaskedClassifier(encoder, 2, class_weights=torch.tensor([0.5, 1.5]), smoothing=0.1).eval()
    weighted.load_state_dict(plain.state_dict() | {"class_weights": weighted.class_weights})
    logits = plain(batch)["logits"]
    expected = torch.nn.functional.cross_entropy(logits, batch["label"], torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(weighted(batch)["loss"], expected)
    assert not torch.isclose(weighted.train()(batch)["loss"], expected)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_a_classifier_with_a_learned_masker_learns_one_batch(name):
    encoder = small(name, (64, 96))
    task = MaskedClassifier(
        encoder, 2, PatchMasker(encoder.patch_size), mask_training=MaskTraining(stages=(0.2, 0.0, 0.8))
    )
    batch = batch_for(encoder, 8)
    optimizer = torch.optim.AdamW(task.parameters(), 1e-3)
    losses = []
    for step in range(40):
        torch.manual_seed(step)
        task.set_progress(step / 40)
        loss = task(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < 0.9 * losses[0]


def test_half_a_film_meets_random_masks_in_every_second_batch():
    torch.manual_seed(0)
    assert {round_at_random(0.5) for _ in range(50)} == {0, 1}
    assert sum(round_at_random(2.25) for _ in range(2000)) / 2000 == pytest.approx(2.25, abs=0.05)
    state = torch.get_rng_state()
    assert round_at_random(4.0) == 4
    assert torch.equal(torch.get_rng_state(), state), "a whole number needs no chance"
