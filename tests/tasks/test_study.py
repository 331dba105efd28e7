import pytest
import torch

from mim.masking import Mask, SequenceMasker, ThresholdMasker
from mim.models import create_encoder
from mim.tasks import MaskedClassifier, MaskedStudyClassifier


def small(name="vit_tiny_patch16_224", size=(32, 48)):
    torch.manual_seed(0)
    args = {"patch_size": 8, "depth": 1, "embed_dim": 48, "num_heads": 3} if "vit" in name else {}
    return create_encoder(name, size, **args)


def classifier(encoder=None, seed=0, **args):
    encoder = encoder or small()
    torch.manual_seed(seed)
    masker = SequenceMasker(encoder.width, hidden=8)
    return MaskedStudyClassifier(encoder, **{"masker": masker, "mean": 0.4, "std": 0.2, **args}).eval()


def studies(encoder, present, seed=0):
    present = torch.tensor(present, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(*present.shape, 1, *encoder.image_size, generator=generator)
    return {"image": image, "present": present, "label": torch.arange(len(present)) % 2}


THREE = [[True, False, True, True], [False, True, False, False], [True, True, True, True]]


@pytest.mark.parametrize("film_masker", [None, "threshold"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_absent_films_change_nothing_whatever_stands_there_and_however_many(name, film_masker):
    encoder = small(name, (64, 96))
    mask = ThresholdMasker("quantile:0.4", patch_size=encoder.patch_size) if film_masker else None
    task = classifier(encoder, film_masker=mask)
    batch = studies(encoder, THREE)
    out = task(batch)
    assert out["weight"].shape == (3, 4)
    assert out["weight"][~batch["present"]].eq(0).all()
    assert (out["weight"] > 0)[batch["present"]].all()
    for filling in (torch.nan, 1e30):
        image = torch.where(batch["present"][..., None, None, None], batch["image"], filling)
        room = torch.full_like(image[:, :2], filling)
        present = torch.cat([batch["present"], torch.zeros(3, 2, dtype=torch.bool)], dim=1)
        other = task({**batch, "image": torch.cat([image, room], dim=1), "present": present})
        assert torch.equal(other["logits"], out["logits"])
        assert torch.equal(other["weight"][:, :4], out["weight"])
        assert torch.equal(other["loss"], out["loss"])


def test_absent_films_are_not_computed():
    encoder = small()
    met = []
    encoder.register_forward_pre_hook(lambda _, args: met.append(args[0].shape[0]))
    classifier(encoder)(studies(encoder, THREE))
    assert met == [8]


@pytest.mark.parametrize("masker", [True, False])
def test_a_study_of_one_film_is_judged_as_the_film(masker):
    encoder = small()
    task = classifier(encoder, **({} if masker else {"masker": None}))
    film = MaskedClassifier(encoder, mean=0.4, std=0.2).eval()
    film.head.load_state_dict(task.head.state_dict())
    batch = studies(encoder, [[False, True], [True, False]])
    expected = film({"image": batch["image"][batch["present"]]})["logits"]
    torch.testing.assert_close(task(batch)["logits"], expected, rtol=0, atol=1e-6)


def test_without_a_masker_the_order_of_the_films_does_not_count_and_with_one_it_does():
    encoder = small()
    batch = studies(encoder, [[True] * 4])
    turned = {**batch, "image": batch["image"].flip(1)}
    plain, weighed = classifier(encoder, masker=None), classifier(encoder)
    torch.testing.assert_close(plain(turned)["logits"], plain(batch)["logits"])
    assert not torch.allclose(weighed(turned)["weight"].flip(1), weighed(batch)["weight"], atol=1e-6)


class Fixed(torch.nn.Module):
    def __init__(self, *weight):
        super().__init__()
        self.weight = torch.tensor([weight])

    def forward(self, _):
        return Mask(visible=self.weight > 0, gate=self.weight)


def test_a_film_counts_as_much_as_its_weight_says():
    encoder = small()
    batch = studies(encoder, [[True, True, True]])

    def logits(masker, films=slice(None)):
        given = {"image": batch["image"][:, films], "present": batch["present"][:, films]}
        return classifier(encoder, masker=masker)(given)["logits"]

    torch.testing.assert_close(logits(Fixed(0.3, 0.0, 0.0)), logits(None, slice(0, 1)))
    even = logits(None)
    torch.testing.assert_close(logits(Fixed(1e-30, 1e-30, 1e-30)), even)  # ratios alone count
    assert not torch.allclose(logits(Fixed(1.0, 0.1, 0.1)), even, atol=1e-6)


def test_a_frozen_encoder_stays_as_it_is_and_a_free_one_does_not():
    for freeze in (True, False):
        encoder = small("resnet18", (64, 96))  # with batch norm, whose statistics must not move either
        task = classifier(encoder, freeze_encoder=freeze).train()
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 0.1)
        task(studies(encoder, THREE))["loss"].backward()
        optimizer.step()
        same = all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
        assert same == freeze
        assert all(p.grad is not None and p.grad.isfinite().all() for p in task.masker.parameters())


def test_which_film_matters_can_be_learnt():
    """One film of a study is bright where the label is 1; the others are noise. Its weight must come out on top."""
    encoder = small(size=(16, 16))
    task = classifier(encoder).train()
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        image = torch.rand(count, 5, 1, 16, 16, generator=generator) * 0.5
        label = torch.arange(count) % 2
        place = torch.randint(5, (count,), generator=generator)
        image[torch.arange(count), place] += 0.3 * label.float()[:, None, None, None]
        present = torch.ones(count, 5, dtype=torch.bool)
        present[torch.arange(count), (place + 1) % 5] = False
        return {"image": image, "present": present, "label": label}, place

    optimizer = torch.optim.AdamW(task.parameters(), 3e-3)
    for _ in range(60):
        loss = task(draw(16)[0])["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch, place = draw(64)
    out = task.eval()(batch)
    assert (out["logits"].argmax(1) == batch["label"]).float().mean() > 0.9
    positive = batch["label"] == 1
    assert (out["weight"].argmax(1) == place)[positive].float().mean() > 0.8


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_bfloat16_where_it_is_safe_gives_about_the_same(name):
    encoder = small(name, (64, 96))
    task = classifier(encoder, film_masker=ThresholdMasker("quantile:0.5", patch_size=encoder.patch_size))
    batch = studies(encoder, THREE)
    expected = task(batch)
    with torch.autocast("cpu", torch.bfloat16):
        out = task(batch)
    out["loss"].backward()
    torch.testing.assert_close(out["logits"].float(), expected["logits"], rtol=0.1, atol=0.05)
    torch.testing.assert_close(out["weight"].float(), expected["weight"], rtol=0.1, atol=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in task.masker.parameters())


def test_the_share_looked_at_counts_films_and_cells():
    encoder = small()
    task = classifier(encoder, film_masker=ThresholdMasker("quantile:0.5", patch_size=8))
    task.masker.keep = 1
    out = task(studies(encoder, [[True, True, False]]))
    assert (out["weight"] > 0).sum() == 1
    torch.testing.assert_close(out["keep_rate"], torch.tensor([0.25]), rtol=0, atol=0.03)
    torch.testing.assert_close(out["keep"], out["keep_rate"].mean())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"present": torch.zeros(3, 4, dtype=torch.bool)}, "study 0 of the batch has no film"),
        ({"present": torch.ones(3, 3, dtype=torch.bool)}, "image must be"),
        ({"image": torch.zeros(3, 4, 32, 48)}, "image must be"),
    ],
)
def test_bad_studies_are_told_in_one_line(change, said):
    task = classifier()
    with pytest.raises(ValueError, match=said) as caught:
        task({**studies(task.encoder, THREE), **change})
    assert "\n" not in str(caught.value)
