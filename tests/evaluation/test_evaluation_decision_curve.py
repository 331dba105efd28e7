import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.evaluation import Predictions, Settings, decision_section
from mim.evaluation.decision_curve import net_benefit_statistic


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([0.05, 0.2, 0.5, 0.9]),
)
def test_net_benefit_is_counted_from_right_and_wrong(films: list[tuple[int, float, int]], at: float) -> None:
    labels, scores, weights = (np.array(column) for column in zip(*films, strict=True))
    found = net_benefit_statistic(labels, scores, [at])(weights[None])[0]
    written = np.repeat(np.arange(len(labels)), weights)
    if not len(written):
        assert np.isnan(found).all()
        return
    own, called = labels[written], scores[written] >= at
    odds = at / (1 - at)
    model = ((own == 1) & called).mean() - ((own == 0) & called).mean() * odds
    treat_all = own.mean() - (1 - own.mean()) * odds
    assert found == pytest.approx([model, treat_all, model - max(treat_all, 0)], abs=1e-12)


def test_a_score_that_says_nothing_gains_nothing_and_a_good_one_does(predictions: Predictions) -> None:
    good = decision_section(predictions, Settings(200))
    assert "is better than treating all or none" in good.text[0]
    constant = np.full(len(predictions), 0.4)
    columns = (predictions.image_id, predictions.patient_id, predictions.split, predictions.label)
    useless = decision_section(Predictions(*columns, constant, predictions.keep_rate), Settings(200))
    assert "do not show" in useless.text[0]
    assert len(good.figures["thresholds"]) == len(good.figures["gain"]) == 99


def test_no_test_films_are_said(predictions: Predictions) -> None:
    section = decision_section(predictions.of("val"), Settings(100))
    assert section.text == ("There is no decision curve: there are no films.",)
    assert section.plots == ()
