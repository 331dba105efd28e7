import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.masking import SequenceMasker

WIDTH = 6


def masker(**args):
    torch.manual_seed(0)
    return SequenceMasker(WIDTH, hidden=5, **args).eval()


def studies(present, seed=0):
    present = torch.tensor(present, dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    return {"features": torch.randn(*present.shape, WIDTH, generator=generator), "present": present}


patterns = st.lists(st.lists(st.booleans(), min_size=5, max_size=5).filter(any), min_size=1, max_size=4)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [True, False])
@settings(max_examples=15, deadline=None)
@given(present=patterns, extra=st.integers(0, 3), seed=st.integers(0, 99))
def test_what_is_absent_cannot_be_felt(cell, bidirectional, present, extra, seed):
    network = masker(cell=cell, bidirectional=bidirectional, layers=2)
    batch = studies(present, seed)
    mask = network(batch)
    assert mask.gate[~batch["present"]].eq(0).all()
    assert torch.equal(mask.visible, batch["present"])
    assert ((mask.gate > 0) & (mask.gate < 1))[batch["present"]].all()

    # other values where nothing is, NaN among them, and more padding: every weight is the same to the last bit
    for filling in (torch.nan, torch.inf, 7.0):
        features = torch.where(batch["present"][..., None], batch["features"], filling)
        padded = torch.cat([features, torch.full((len(features), extra, WIDTH), filling)], dim=1)
        room = torch.cat([batch["present"], torch.zeros(len(features), extra, dtype=torch.bool)], dim=1)
        other = network({"features": padded, "present": room})
        assert torch.equal(other.gate[:, :5], mask.gate)
        assert torch.equal(other.scores[:, :5], mask.scores)
        assert not other.gate[:, 5:].any()


def test_a_missing_film_is_skipped_wherever_it_is():
    network = masker()
    whole = studies([[True, True, True]])
    at_the_end = network(whole).gate[0]
    for place in range(4):
        present = torch.ones(1, 4, dtype=torch.bool)
        present[0, place] = False
        features = torch.full((1, 4, WIDTH), torch.nan)
        features[present] = whole["features"][0]
        gate = network({"features": features, "present": present}).gate
        assert torch.equal(gate[present], at_the_end)


def test_a_film_that_is_there_is_felt_by_the_others_and_so_is_the_order():
    batch = studies([[True] * 4])
    gate = masker()(batch).gate[0]
    changed = batch["features"].clone()
    changed[0, 2] *= -1
    assert (masker()({**batch, "features": changed}).gate[0] != gate).all()
    turned = masker()({**batch, "features": batch["features"].flip(1)}).gate[0].flip(0)
    assert not torch.allclose(turned, gate, atol=1e-4)
    # without the way back, a film knows of those before it alone
    one_way = masker(bidirectional=False)
    before, after = one_way(batch).gate[0], one_way({**batch, "features": changed}).gate[0]
    assert torch.equal(before[:2], after[:2])
    assert (before[2:] != after[2:]).all()


def test_a_study_gets_the_weights_that_it_gets_alone():
    batch = studies([[True, False, True, True], [False, True, False, False], [True] * 4])
    together = masker()(batch).gate
    for number in range(3):
        alone = masker()({name: value[number : number + 1] for name, value in batch.items()}).gate
        torch.testing.assert_close(together[number : number + 1], alone)


def test_keep_looks_at_the_films_with_the_highest_weights_in_evaluation_only():
    batch = studies([[True, False, True, True, True], [False, False, True, False, False]])
    soft = masker()(batch).gate
    hard = masker(keep=2)
    mask = hard(batch)
    assert mask.visible.sum(dim=1).tolist() == [2, 1]
    best = soft[0].topk(2).indices
    assert mask.visible[0, best].all()
    assert torch.equal(mask.gate, torch.where(mask.visible, soft, 0.0))
    assert torch.equal(hard.train()(batch).visible, batch["present"])


def test_gradients_reach_the_present_films_alone_and_are_finite():
    batch = studies([[True, False, True], [False, False, True]])
    features = torch.where(batch["present"][..., None], batch["features"], torch.nan).requires_grad_()
    network = masker().train()
    network({**batch, "features": features}).gate.sum().backward()
    assert features.grad[~batch["present"]].eq(0).all()
    assert features.grad[batch["present"]].abs().sum(dim=1).gt(0).all()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"present": None}, "needs present"),
        ({"present": torch.ones(2, 3)}, "boolean"),
        ({"present": torch.ones(2, 0, dtype=torch.bool)}, "S = 0"),
        ({"present": torch.tensor([[True, True, True], [False, False, False]])}, "study 1 of the batch has no film"),
        ({"features": torch.zeros(2, 3, WIDTH + 1)}, "features must be"),
        ({"features": torch.zeros(2, 4, WIDTH)}, "features must be"),
    ],
)
def test_bad_studies_are_told_in_one_line(change, said):
    batch = {**studies([[True] * 3] * 2), **change}
    batch = {name: value for name, value in batch.items() if value is not None}
    with pytest.raises(ValueError, match=said) as caught:
        masker()(batch)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("args", [{"cell": "rnn"}, {"hidden": 0}, {"keep": 0}, {"layers": 0}])
def test_bad_settings_are_refused(args):
    with pytest.raises(ValueError, match=r"masker|cell"):
        SequenceMasker(WIDTH, **args)
