import numpy as np
import pytest
import torch

from mim.config import ExplanationsConfig, MissingnessConfig
from mim.data.annotations import Lesion
from mim.evaluation.explain import area_under
from mim.evaluation.mask_shape import roll_mask
from mim.evaluation.mean_figure import Resampling
from mim.evaluation.removal import removed_at, to_cells
from mim.masking import PatchMasker
from mim.models import create_encoder
from mim.stages.explain import curves_of, measure_film
from mim.stages.explainers import Answer, can_explain, explain_positive
from mim.stages.hidings import available, free_cell, own_hiding, patch_side, with_hiding
from mim.stages.mask_shape import score_outlines
from mim.stages.missingness import make_plans, remove, score_visible
from mim.stages.some_films import SomeFilms, lesion_cells
from mim.tasks import MaskedClassifier

SPOT = (1, 2)
CONFIG = ExplanationsConfig(superpixels=16, samples=60)
ALL = MissingnessConfig().hiding


def spot_classifier(**args) -> MaskedClassifier:
    """A ViT whose positive log-odds come from bright cells and from nothing else."""
    encoder = create_encoder("vit_tiny_patch16_224", (64, 64), depth=1, embed_dim=48, num_heads=3, **args)
    task = MaskedClassifier(encoder, 2)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.zero_()
        encoder.backbone.patch_embed.proj.weight[0] = 1.0
        encoder.backbone.norm.weight.fill_(1.0)
        task.head.place_norm.weight.fill_(1.0)
        task.head.place_linear.weight[1, 0] = 1.0
        task.head.place_linear.bias[1] = -3.0
    return task.eval()


def one_bright_cell() -> torch.Tensor:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 16:32, 32:48] = 1
    return image


def answer_of(task: MaskedClassifier, image: torch.Tensor, visible: torch.Tensor | None = None) -> Answer:
    shown = torch.ones(1, *task.encoder.grid(), dtype=torch.bool) if visible is None else visible
    return Answer(task, image, shown, seed=3, batch_size=16)


def small_task(name: str, **args) -> MaskedClassifier:
    torch.manual_seed(0)
    if "vit" in name:
        args = {"depth": 1, "embed_dim": 48, "num_heads": 3, **args}
    elif "patch_size" not in args:
        args["patch_size"] = 16
    task = MaskedClassifier(create_encoder(name, (64, 64), **args), 2, mean=0.45, std=0.25)
    torch.nn.init.normal_(task.head.linear.weight)  # fresh heads say almost the same of everything
    return task.eval()


@pytest.mark.parametrize("name", ["occlusion", "lime", "integrated_gradients"])
def test_an_explanation_finds_the_only_cell_that_the_network_looks_at(name: str) -> None:
    answer = answer_of(spot_classifier(), one_bright_cell())
    scores = explain_positive(name, answer, CONFIG)
    assert np.unravel_index(scores.argmax(), scores.shape) == SPOT
    assert scores[SPOT] > 3 * np.abs(np.delete(scores.ravel(), 4 * SPOT[0] + SPOT[1])).max()
    assert np.array_equal(explain_positive(name, answer, CONFIG), scores), "draws follow from the seed"


def test_what_the_masker_hides_is_not_explained_and_its_content_changes_nothing() -> None:
    visible = torch.ones(1, 4, 4, dtype=torch.bool)
    visible[0, 0] = visible[0, 2, :2] = False
    image = one_bright_cell() * 0.5 + 0.2 * torch.rand(1, 1, 64, 64)
    task = small_task("vit_tiny_patch16_224")
    other = torch.where(task.encoder.upsample(visible, (64, 64)), image, torch.rand_like(image))
    for name in ("occlusion", "integrated_gradients", "attention_rollout"):
        scores = explain_positive(name, answer_of(task, image, visible), CONFIG)
        assert np.array_equal(np.isnan(scores), ~visible[0].numpy())
        assert np.array_equal(scores, explain_positive(name, answer_of(task, other, visible), CONFIG), equal_nan=True)


def test_deletion_in_the_order_of_an_oracle_falls_faster_than_at_random_and_insertion_rises_faster() -> None:
    answer = answer_of(spot_classifier(), one_bright_cell())
    oracle = np.zeros((4, 4))
    oracle[SPOT] = 1
    deletion, insertion = curves_of(answer, oracle, 17, 1, np.random.default_rng(0))
    assert deletion[0] > 0.7
    assert (deletion[1:-1] < 0.06).all()
    assert deletion[-1] == pytest.approx(0.5), "where nothing is seen no place speaks for either class"
    assert (insertion[1:] > 0.7).all()
    random = [curves_of(answer, np.zeros((4, 4)), 17, 1, np.random.default_rng(seed)) for seed in range(1, 9)]
    assert area_under(deletion) < 0.5 * np.mean([area_under(pair[0]) for pair in random])
    assert area_under(insertion) > 1.3 * np.mean([area_under(pair[1]) for pair in random])


def test_a_film_is_measured_by_each_explanation_and_by_chance() -> None:
    lesion = np.zeros((4, 4), dtype=bool)
    lesion[SPOT] = True
    answer = answer_of(spot_classifier(), one_bright_cell())
    measured = measure_film(answer, ["occlusion", "attention_rollout"], CONFIG, 1, lesion)
    assert set(measured) == {"occlusion", "attention rollout", "random order"}
    assert measured["occlusion"][2] == 1
    assert measured["random order"][2] == 1 / 16
    assert area_under(measured["occlusion"][0]) < area_under(measured["random order"][0])
    assert np.isnan(measure_film(answer, ["occlusion"], CONFIG, 1, None)["occlusion"][2])


def test_explanations_that_a_network_cannot_give_are_known() -> None:
    vit, cnn = small_task("vit_tiny_patch16_224"), small_task("resnet10t", hidden="sparse")
    image = torch.rand(1, 1, 64, 64)
    assert can_explain(answer_of(vit, image), "attention_rollout")
    assert not can_explain(answer_of(cnn, image), "attention_rollout")
    assert not can_explain(answer_of(vit, image), "masker")
    vit.masker = PatchMasker(16).eval()
    assert can_explain(answer_of(vit, image), "masker")
    assert np.isfinite(explain_positive("masker", answer_of(vit, image), CONFIG)).all()


@pytest.mark.parametrize("hidden", ["sparse", "layer"])
def test_convolutional_networks_are_explained_through_their_own_hiding(hidden: str) -> None:
    answer = answer_of(small_task("resnet10t", hidden=hidden), torch.rand(1, 1, 64, 64))
    for name in ("occlusion", "lime", "integrated_gradients"):
        scores = explain_positive(name, answer, ExplanationsConfig(superpixels=16, samples=20, steps=4))
        assert np.isfinite(scores).all()
        assert np.ptp(scores) > 0


def test_the_same_weights_stand_behind_each_hiding_and_what_cannot_be_done_is_named() -> None:
    image = torch.rand(3, 1, 64, 64)
    cases = (("vit_tiny_patch16_224", "drop", "token sparse layer"), ("resnet10t", "sparse", "drop token"))
    for name, hidden, impossible in cases:
        task = small_task(name, hidden=hidden)
        can, left_out = available(task, ALL)
        assert can[0] == hidden == own_hiding(task)
        assert left_out == impossible.split()
        whole = score_visible(task, image, None, 2)
        for other in can:
            hiding = with_hiding(task, other, free_cell(task, other))
            np.testing.assert_allclose(score_visible(hiding.task, image, None, 2), whole, atol=1e-6)
    assert "token" in available(small_task("vit_tiny_patch16_224", hidden="token"), ALL)[0]


@pytest.mark.parametrize(
    ("name", "own", "hidings"),
    [
        ("vit_tiny_patch16_224", "drop", ["drop", "grey", "black", "mean", "blur"]),
        ("resnet10t", "sparse", ["sparse", "layer", "grey", "black", "mean", "blur"]),
    ],
)
@pytest.mark.parametrize("unit", ["patch", "superpixel"])
def test_hidden_content_changes_no_score(name: str, own: str, hidings: list[str], unit: str) -> None:
    task = small_task(name, hidden=own)
    image = torch.rand(2, 1, 64, 64)
    films = SomeFilms([0, 1], image, np.array([0, 1]), Resampling(["a", "b"]))
    config = MissingnessConfig(unit=(unit,), order=("random",), superpixels=20)
    plans = make_plans(task, films, config, 0)[unit, "random"]
    for hiding_name in hidings:
        cell = patch_side(task, 16) if unit == "patch" else free_cell(task, hiding_name)
        hiding = with_hiding(task, hiding_name, cell)
        for share in (0.25, 0.75):
            hidden = np.stack(
                [to_cells(removed_at(p.parts, p.order, share), hiding.task.encoder.grid()) for p in plans]
            )
            visible = torch.from_numpy(~hidden)
            noise = torch.where(hiding.task.encoder.upsample(visible, (64, 64)), image, torch.rand_like(image))
            assert not torch.equal(noise, image)
            first, second = (score_visible(hiding.task, films, visible, 2) for films in (image, noise))
            assert np.array_equal(first, second), hiding_name
            assert np.isfinite(first).all()


def test_nothing_changes_where_nothing_is_removed_and_the_most_can_be() -> None:
    for name, own in (("vit_tiny_patch16_224", "drop"), ("resnet10t", "layer")):
        task = small_task(name, hidden=own)
        films = SomeFilms([4, 7], torch.rand(2, 1, 64, 64), np.array([0, 1]), Resampling(["a", "b"]))
        config = MissingnessConfig(unit=("superpixel",), superpixels=20)
        plans = make_plans(task, films, config, 0)
        hiding = with_hiding(task, own, free_cell(task, own))
        for order in config.order:
            removal = remove(hiding, "superpixel", order, films, plans["superpixel", order], (0.5, 0.95), 2)
            assert removal.removed.tolist() == [0.0, 0.5, 0.95]
            assert removal.unchanged(float(np.median(removal.scores)))[0].all()
            np.testing.assert_allclose(removal.scores[0], score_visible(task, films.image, None, 2), atol=1e-6)
            assert np.isfinite(removal.scores).all()
        first, last = (plans["superpixel", order][0].order for order in ("salient_first", "salient_last"))
        assert np.array_equal(first, last[::-1])
        again = make_plans(task, films, config, 0)["superpixel", "random"][0].order
        assert np.array_equal(again, plans["superpixel", "random"][0].order)


def test_on_films_without_content_an_outline_is_seen_where_it_is_painted_and_less_by_layer_masking() -> None:
    task = small_task("resnet10t", hidden="layer")
    generator = np.random.default_rng(0)
    hidden = np.stack([roll_mask(np.pad(np.ones((2, 2), dtype=bool), ((1, 1), (1, 1))), generator) for _ in range(6)])
    of_grey = torch.full((6, 1, 64, 64), task.mean)
    films = SomeFilms(list(range(6)), of_grey, np.array([0, 1] * 3), Resampling(list("abcdef")))
    spread = {}
    for name in ("layer", "black", "grey"):
        scored = score_outlines(with_hiding(task, name), "masker", films, hidden, 0, 4)
        spread[name] = np.abs(scored.blank_in_place - scored.blank).mean()
    assert spread["grey"] < 1e-4 < spread["black"]
    assert spread["layer"] < spread["black"]


def test_lesions_are_on_every_cell_that_they_touch() -> None:
    def cells(*boxes: tuple[float, float, float, float]) -> np.ndarray:
        lesions = [Lesion(box, "caries", 0, "", None, "", 1.0, None) for box in boxes]
        return lesion_cells(lesions, (64, 64), (4, 4))

    assert np.argwhere(cells((0.30, 0.55, 0.45, 0.70), (0.99, 0.0, 1.0, 0.01))).tolist() == [[0, 3], [2, 1]]
    assert cells((0.2, 0.2, 0.3, 0.3)).sum() == 4
    assert cells((0.55, 0.55, 0.551, 0.551)).sum() == 1
