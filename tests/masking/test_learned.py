import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mim.masking import PatchMasker, binary_concrete, budget_loss
from mim.masking.collapse import describe_collapse, mask_figures
from mim.masking.gates import hard_concrete, top_k_gate
from mim.masking.ideal import lesion_cells, lesion_loss
from mim.masking.scorers import TokenScorer

HARD = ["binary", "hard_concrete", "top_k"]


def films(count=16, size=(64, 96), seed=0):
    return {"image": torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(seed))}


@pytest.mark.parametrize("gate", HARD)
@pytest.mark.parametrize(("per", "grid"), [("patch", (8, 12)), ("pixel", (64, 96))])
def test_hard_gates_are_exactly_open_or_closed_and_teach_every_weight(gate, per, grid):
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, keep=0.4, gate=gate, per=per)
    mask = masker(films())
    assert mask.gate.shape == mask.visible.shape == mask.scores.shape == (16, *grid)
    assert torch.equal(mask.gate.detach(), mask.visible.float())
    assert abs(float(mask.visible.float().mean()) - 0.4) < 0.05
    (mask.gate * torch.rand_like(mask.gate)).sum().backward()
    deaf = [name for name, p in masker.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # of images that all show the same share, shifting all odds changes nothing
    assert deaf == [] or (gate == "top_k" and set(deaf) <= {"start", "scorer.score.bias"})


@pytest.mark.parametrize("gate", HARD)
def test_evaluation_shows_the_same_share_of_every_film_and_nothing_by_chance(gate):
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, keep=0.4, gate=gate).eval()
    first, second = masker(films()), masker(films())
    assert first.gate is None
    assert torch.equal(first.visible, second.visible)
    assert first.visible.flatten(1).sum(1).unique().tolist() == [round(0.4 * 96)]
    assert first.scores[first.visible].min() >= first.scores[~first.visible].min()


def test_by_odds_films_may_show_different_amounts_and_never_nothing():
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, decide="odds").eval()
    mask = masker(films())
    assert torch.equal(mask.visible, mask.scores >= 0)
    with torch.no_grad():
        masker.start.fill_(-100)
    nothing = masker(films())
    assert nothing.visible.flatten(1).sum(1).tolist() == [1] * 16
    assert nothing.rescued.all()


def test_soft_gates_weigh_in_evaluation_too_and_hide_nothing():
    masker = PatchMasker(patch_size=8, gate="soft")
    for mask in (masker(films()), masker.eval()(films())):
        torch.testing.assert_close(mask.gate, mask.scores.sigmoid())
        assert mask.visible.all()
    mask.gate.sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in masker.parameters())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.floats(0.001, 1), st.integers(0, 99))
def test_a_budget_of_k_opens_exactly_k_cells_of_each_film(rows, columns, keep, seed):
    torch.manual_seed(seed)
    scores = torch.randn(3, rows, columns, requires_grad=True)
    gate = top_k_gate(scores, keep, 0.5)
    count = max(round(keep * rows * columns), 1)
    assert gate.detach().flatten(1).sum(1).tolist() == [count] * 3
    assert set(gate.detach().flatten().tolist()) <= {0.0, 1.0}
    gate.sum().backward()
    assert torch.isfinite(scores.grad).all()


def test_high_scores_are_drawn_more_often():
    torch.manual_seed(0)
    scores = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]]).expand(4000, 1, 4)
    share = top_k_gate(scores, 0.5, 0.5).mean((0, 1))
    assert (share.diff() > 0.05).all()
    # one of four is drawn with probability proportional to exp(score)
    one = top_k_gate(scores, 0.25, 0.5).mean((0, 1))
    torch.testing.assert_close(one, scores[0, 0].softmax(0), atol=0.03, rtol=0)


@pytest.mark.parametrize("draw", [binary_concrete, hard_concrete])
def test_a_concrete_gate_is_a_fair_draw_with_a_gradient(draw):
    torch.manual_seed(0)
    scores = torch.full((20000,), 1.0, requires_grad=True)
    gate = draw(scores, 0.5)
    assert set(gate.detach().tolist()) == {0.0, 1.0}
    assert abs(float(gate.detach().mean()) - torch.sigmoid(torch.tensor(1.0))) < 0.02
    gate.sum().backward()
    assert (scores.grad >= 0).all()
    assert scores.grad.mean() > 0.1


def test_the_hard_concrete_gate_leaves_clear_decisions_alone():
    """Louizos et al.: what the stretched relaxation puts beyond 0 or 1 has no gradient."""
    torch.manual_seed(0)
    scores = torch.zeros(20000, requires_grad=True)
    hard_concrete(scores, 2 / 3).sum().backward()
    edge = 1.1 / 1.2
    beyond = 2 * (1 - torch.sigmoid(torch.tensor(2 / 3 * math.log(edge / (1 - edge)))))
    assert float((scores.grad == 0).float().mean()) == pytest.approx(float(beyond), abs=0.02)


def test_patch_masker_learns_what_pays():
    """The cells with a bright square are the only ones worth showing; a budget of one in four finds them."""
    torch.manual_seed(0)
    masker = PatchMasker(patch_size=8, width=8, keep=0.25, temperature=0.5)
    optimizer = torch.optim.Adam(masker.parameters(), 1e-2)
    for _ in range(150):
        wanted = (torch.rand(32, 16).argsort(1) < 4).view(32, 4, 4)
        image = torch.rand(32, 1, 32, 32) * 0.3
        image += 0.5 * wanted[:, None].repeat_interleave(8, 2).repeat_interleave(8, 3)
        mask = masker({"image": image})
        loss = ((mask.gate - wanted.float()) ** 2).mean() + budget_loss(mask.scores, 0.25)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    masker.eval()
    assert float((masker({"image": image}).visible == wanted).float().mean()) > 0.95


@settings(max_examples=25, deadline=None)
@given(st.floats(-8, 8), st.floats(0.1, 0.9))
def test_the_budget_pulls_back_from_both_ends(start, keep):
    scores = torch.full((2, 3, 3), start, dtype=torch.float64, requires_grad=True)
    budget_loss(scores, keep).backward()
    rate = torch.sigmoid(torch.tensor(start, dtype=torch.float64))
    if abs(float(rate) - keep) > 1e-3:
        assert (torch.sign(-scores.grad) == torch.sign(keep - rate)).all()
    optimizer = torch.optim.Adam([scores], 0.2)
    for _ in range(300):
        optimizer.zero_grad()
        budget_loss(scores, keep).backward()
        optimizer.step()
    assert float(scores.detach().sigmoid().mean()) == pytest.approx(keep, abs=0.02)


def test_budget_loss_punishes_both_sides_alike():
    low, right, high = (float(budget_loss(torch.full((2, 3, 3), logit), 0.5)) for logit in (-3.0, 0.0, 3.0))
    assert right == 0
    assert low == pytest.approx(high)
    assert low > 0.1


@pytest.mark.parametrize(
    "arguments",
    [{"patch_size": 12}, {"width": 6}, {"keep": 0.0}, {"keep": 1.5}, {"gate": "half"}, {"per": "film"}, {"decide": 1}],
)
def test_patch_masker_refuses_what_it_cannot_do(arguments):
    with pytest.raises(ValueError, match=r"must|needs"):
        PatchMasker(**arguments)


def test_patch_masker_names_an_image_that_does_not_fit():
    with pytest.raises(ValueError, match="whole number"):
        PatchMasker(16)({"image": torch.rand(1, 1, 40, 32)})


def test_a_scorer_of_another_grid_is_named():
    masker = PatchMasker(16, scorer=nn.AvgPool2d(8))
    with pytest.raises(ValueError, match=r"scores are \(1, 1, 4, 4\)"):
        masker({"image": torch.rand(1, 1, 32, 32)})


@pytest.mark.parametrize("grid", [(4, 6), (32, 48)])
def test_a_head_on_tokens_learns_and_the_tokens_do_not(grid):
    torch.manual_seed(0)
    tokens = nn.Conv2d(1, 12, 8, stride=8)
    cell = 32 // grid[0]
    masker = PatchMasker(cell, scorer=TokenScorer(tokens, 12, grid))
    mask = masker(films(2, (32, 48)))
    assert mask.gate.shape == (2, *grid)
    (mask.gate * torch.rand_like(mask.gate)).sum().backward()
    assert all(p.grad is None for p in tokens.parameters())
    assert all(p.grad.abs().sum() > 0 for p in masker.scorer.head.parameters())


def test_pixels_of_lesions_become_cells_that_hold_any():
    lesion = torch.zeros(1, 1, 16, 24, dtype=torch.bool)
    lesion[0, 0, 7:9, 3] = True
    cells = lesion_cells(lesion, (2, 3))
    assert cells.tolist() == [[[True, False, False], [True, False, False]]]
    with pytest.raises(ValueError, match="do not divide"):
        lesion_cells(lesion, (3, 3))


def test_films_without_a_lesion_teach_no_mask_and_both_kinds_of_cells_weigh_the_same():
    scores = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    lesion = torch.zeros(3, 1, 8, 16, dtype=torch.bool)
    lesion[0, 0, 0, 0] = lesion[2, 0, 7, 15] = lesion[2, 0, 0, 15] = True
    loss = lesion_loss(scores, lesion)
    wanted = lesion_cells(lesion, (2, 4))[[0, 2]]
    odds = scores.detach()[[0, 2]]
    expected = -(odds[wanted].sigmoid().log().mean() + (1 - odds[~wanted].sigmoid()).log().mean()) / 2
    torch.testing.assert_close(loss.detach(), expected)
    loss.backward()
    assert (scores.grad[1] == 0).all()
    assert lesion_loss(scores, torch.zeros_like(lesion)).item() == 0


def test_what_collapsed_is_named_with_advice():
    torch.manual_seed(0)
    good = torch.randn(8, 4, 6)
    assert describe_collapse(mask_figures(good), 0.5, 8) is None
    assert describe_collapse(mask_figures(good + 1), 0.7, 8) is None
    one_mask = torch.randn(1, 4, 6).expand(8, 4, 6) + torch.randn(8, 1, 1) / 2
    said = {
        "everything": describe_collapse(mask_figures(good + 9), 0.5, 8),
        "nothing": describe_collapse(mask_figures(good - 9), 0.5, 8),
        "choose": describe_collapse(mask_figures(good * 0.01), 0.5, 8),
        "look": describe_collapse(mask_figures(one_mask), 0.5, 8),
    }
    for word, line in said.items():
        assert line is not None, word
        assert word in line
        assert "masker." in line
        assert "\n" not in line
    assert describe_collapse(mask_figures(good[:1]), 0.5, 1) is None


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 1.0), st.integers(0, 99))
def test_a_masker_at_its_budget_is_never_said_to_show_all_or_nothing(keep, seed):
    start = math.log(min(keep, 0.95) / (1 - min(keep, 0.95)))
    scores = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(seed)) * 0.3 + start
    said = describe_collapse(mask_figures(scores), keep, 6)
    assert said is None


def test_mask_figures_tell_films_from_cells():
    same = torch.tensor([[0.0, 2.0], [4.0, 6.0]]).expand(3, 2, 2)
    figures = mask_figures(same + torch.tensor([0.0, 5.0, -5.0])[:, None, None])
    assert figures.film_deviation == pytest.approx(0)
    assert figures.cell_deviation == pytest.approx(math.sqrt(5))
    assert figures.rate_lowest < figures.rate < figures.rate_highest
    assert set(figures.as_figures("val/mask_")) >= {"val/mask_rate", "val/mask_cell_deviation"}
