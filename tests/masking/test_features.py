import numpy as np
import pytest
import torch

from mim.masking import FeatureMasker
from mim.tasks.feature_selection import MaskedFeatureClassifier


def rows(count=12, features=5, seed=0):
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed)) * 3 + 7


def masker(features=5, **args):
    torch.manual_seed(0)
    return FeatureMasker(features, **args)


@pytest.mark.parametrize("gates", ["hard_concrete", "straight_through"])
def test_gates_are_drawn_for_each_row_from_odds_that_all_rows_share(gates):
    network = masker(gates=gates).train()
    mask = network({"features": rows(400)})
    assert mask.gate.shape == mask.visible.shape == mask.scores.shape == (400, 5)
    assert torch.equal(mask.scores, mask.scores[:1].expand(400, 5))
    assert torch.equal(mask.visible, mask.gate > 0)
    assert 0 <= mask.gate.min() < mask.gate.max() <= 1
    assert (mask.gate[0] != mask.gate[1]).any()
    between = (mask.gate > 0) & (mask.gate < 1)
    assert between.any() == (gates == "hard_concrete")
    open_share = (mask.gate > 0).float().mean(dim=0)
    torch.testing.assert_close(open_share, network.chance(mask.scores[0]), rtol=0, atol=0.1)


def test_evaluation_keeps_the_same_features_of_every_row_whatever_the_batch():
    network = masker(8, threshold=0.6).eval()
    network.odds.copy_(torch.linspace(-3, 3, 8))
    mask = network({"features": rows(4, 8)})
    assert mask.gate is None
    assert torch.equal(mask.visible[0], network.chance() >= 0.6)
    assert torch.equal(mask.visible, mask.visible[:1].expand(4, 8))
    assert torch.equal(network({"features": rows(1, 8, seed=9) * 50}).visible, mask.visible[:1])
    network.odds.fill_(-9.0)
    network.odds[3] = -8
    assert network({"features": rows(2, 8)}).visible.nonzero()[:, 1].tolist() == [3, 3]


def test_a_missing_value_stands_at_the_mean_and_is_told_to_the_gates():
    features = rows()
    features[2, 1] = features[5, 1] = torch.nan
    network = masker()
    network.standardise_by(features)
    values = network.values(features)
    assert values[2, 1] == values[5, 1] == 0
    known = np.delete(features[:, 1].numpy(), [2, 5])
    np.testing.assert_allclose(values[0, 1].item(), (known[0] - known.mean()) / known.std(), rtol=1e-5)
    told = []
    network.network.register_forward_pre_hook(lambda _, args: told.append(args[0][:, 5:]))
    network.train()({"features": features})
    assert torch.equal(told[0], features.isnan().float())
    task = MaskedFeatureClassifier(network)
    torch.nn.init.normal_(task.head.weight)
    task.train()({"features": features, "label": torch.arange(12) % 2})["loss"].backward()
    assert network.fill.grad[1] != 0  # what stands there is learnt
    assert network.fill.grad[[0, 2, 3, 4]].eq(0).all()


def test_a_feature_that_is_not_selected_cannot_reach_the_head():
    network = masker().eval()
    network.odds.copy_(torch.tensor([-5.0, 5.0, -5.0, 5.0, -5.0]))
    task = MaskedFeatureClassifier(network).eval()
    torch.nn.init.normal_(task.head.weight)
    features = rows()
    changed = features.clone()
    changed[:, [0, 2, 4]] = torch.nan
    assert torch.equal(task({"features": changed})["logits"], task({"features": features})["logits"])
    changed[:, 1] += 1
    assert not torch.equal(task({"features": changed})["logits"], task({"features": features})["logits"])


def test_the_budget_is_two_sided_and_met_at_the_share_asked_for():
    network = masker(20, keep=0.25, gates="straight_through").train()
    losses = {}
    for share in (0.05, 0.25, 0.9):
        odds = torch.logit(torch.full((20,), share))
        mask = network({"features": rows(3, 20)})
        losses[share] = network.budget_loss(type(mask)(mask.visible, scores=odds.expand(3, 20))).item()
    assert losses[0.25] == pytest.approx(0, abs=1e-9)
    assert losses[0.05] > 0.1
    assert losses[0.9] > 0.1


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (torch.zeros(3, 4), "features must be"),
        (torch.zeros(3, 5, dtype=torch.long), "features must be"),
        (torch.tensor([[0.0, 1, torch.inf, 0, 0]]), "feature 2 is infinite"),
    ],
)
def test_bad_features_are_told_in_one_line(features, said):
    with pytest.raises(ValueError, match=said):
        masker().train()({"features": features})


def test_settings_out_of_range_are_refused():
    for args in ({"keep": 0}, {"keep": 1.1}, {"gates": "soft"}, {"threshold": 1}, {"temperature": 0}, {"hidden": 0}):
        with pytest.raises(ValueError):
            FeatureMasker(5, **args)
    with pytest.raises(ValueError, match="feature 1 is missing in every row"):
        FeatureMasker(2).standardise_by(torch.tensor([[0.0, torch.nan], [1.0, torch.nan]]))
