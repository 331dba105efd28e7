from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mim.errors import MimError
from mim.evaluation import Predictions, Settings, difference_over_seeds
from mim.evaluation.comparison import auroc_over_seeds
from mim.evaluation.label_efficiency import Trial, measure_label_efficiency
from mim.evaluation.label_efficiency_plot import efficiency_file, efficiency_picture, efficiency_plot
from mim.evaluation.label_efficiency_section import label_efficiency_section

SETTINGS = Settings(200)


def blurred(films: Predictions, spread: float, seed: int, order: np.ndarray | None = None) -> Predictions:
    noisy = np.clip(films.score + np.random.default_rng(seed).normal(0, spread, len(films)), 0, 1)
    changed = Predictions(films.image_id, films.patient_id, films.split, films.label, noisy, films.keep_rate)
    return changed if order is None else changed.rows(order)


@pytest.fixture(scope="module")
def films(make: Callable[..., Predictions]) -> Predictions:
    return make(240)


@pytest.fixture(scope="module")
def trials(films: Predictions) -> list[Trial]:
    """More labels and pretraining help; the rows of some runs are in another order."""
    turned = np.arange(len(films))[::-1]
    return [
        Trial(
            init,
            fraction,
            seed,
            int(400 * fraction),
            blurred(films, spread, 10 * place + seed, turned if seed else None),
        )
        for place, (init, fraction, spread) in enumerate(
            [("scratch", 0.1, 0.8), ("scratch", 1.0, 0.3), ("runs_$a$", 0.1, 0.4), ("runs_$a$", 1.0, 0.25)]
        )
        for seed in (0, 1, 2)
    ]


def test_points_are_means_over_seeds_and_differences_are_paired(films: Predictions, trials: list[Trial]) -> None:
    found = measure_label_efficiency(trials, ["scratch", "runs_$a$"], SETTINGS, baseline="scratch")
    assert [(point.init, point.fraction, point.labels) for point in found.points] == [
        ("scratch", 0.1, 40), ("scratch", 1.0, 400), ("runs_$a$", 0.1, 40), ("runs_$a$", 1.0, 400),
    ]  # fmt: skip
    test = films.of("test")
    for point in found.points:
        own = [trial for trial in trials if (trial.init, trial.fraction) == (point.init, point.fraction)]
        areas = [roc_auc_score(one.label, one.score) for one in (trial.predictions.of("test") for trial in own)]
        assert point.aurocs == pytest.approx(areas)
        assert point.mean.value == pytest.approx(np.mean(areas))
        assert point.mean.low is not None
        assert point.mean.high is not None
        assert point.mean.low < point.mean.value < point.mean.high
    by_name = [
        {trial.seed: trial for trial in trials if (trial.init, trial.fraction) == (init, 0.1)}
        for init in ("scratch", "runs_$a$")
    ]

    def in_order(trial: Trial) -> np.ndarray:
        scores = dict(zip(trial.predictions.image_id, trial.predictions.score, strict=True))
        return np.array([scores[image] for image in test.image_id])

    pairs = [(in_order(by_name[0][seed]), in_order(by_name[1][seed])) for seed in (0, 1, 2)]
    expected = difference_over_seeds(test.label, test.patient_id, pairs, resamples=200, seed=0)
    assert found.points[2].difference == expected
    assert found.points[0].difference is None


def test_the_interval_holds_the_chance_of_seeds_too(films: Predictions) -> None:
    test = films.of("test")
    scores = [blurred(films, spread, seed).of("test").score for seed, spread in enumerate((0.05, 2.0, 0.05, 2.0))]
    over = auroc_over_seeds(test.label, test.patient_id, scores, resamples=400)
    alone = [auroc_over_seeds(test.label, test.patient_id, [score], resamples=400) for score in scores]
    assert over.value == pytest.approx(np.mean([own.value for own in alone]))
    assert over.high - over.low > max(own.high - own.low for own in alone)
    one_class = auroc_over_seeds(np.ones(len(test)), test.patient_id, scores[:2], resamples=100)
    assert (one_class.value, one_class.aurocs) == (None, (None, None))
    assert "one class" in str(one_class.reason)


def test_seeds_that_only_one_has_are_left_out_of_the_difference(trials: list[Trial]) -> None:
    fewer = [trial for trial in trials if trial.init != "scratch" or trial.seed == 1]
    found = measure_label_efficiency(fewer, ["scratch", "runs_$a$"], SETTINGS, baseline="scratch")
    assert found.points[2].difference is not None
    assert found.points[2].difference.seeds == 1
    none = [trial for trial in fewer if trial.init != "scratch" or trial.fraction == 1.0]
    points = measure_label_efficiency(none, ["scratch", "runs_$a$"], SETTINGS, baseline="scratch").points
    assert [point.difference is None for point in points] == [True, True, False]


def test_trials_that_cannot_be_put_together_are_refused(trials: list[Trial], make: Callable[..., Predictions]) -> None:
    def refused(chosen: list[Trial]) -> str:
        with pytest.raises(MimError) as error:
            measure_label_efficiency(chosen, ["scratch"], SETTINGS, baseline=None)
        return str(error.value)

    assert "no finished run" in refused([])
    assert "keep one" in refused([trials[0], trials[0]])
    assert "different splits" in refused([trials[0], Trial("scratch", 0.2, 0, 5, make(90))])


def test_the_plot_names_every_initialisation_and_is_the_same_again(trials: list[Trial]) -> None:
    found = measure_label_efficiency(trials, ["scratch", "runs_$a$"], SETTINGS, baseline="scratch")
    section = label_efficiency_section(found, SETTINGS, "scratch")
    drawing = efficiency_plot(found, "what labels are worth")
    assert ">scratch</text>" in drawing
    assert ">runs_$a$</text>" in drawing
    assert 'aria-label="what labels are worth"' in drawing
    assert section.plots[0].kind == "band"
    assert efficiency_plot(found, "x") == efficiency_plot(found, "x")
    assert efficiency_picture(found) == efficiency_picture(found)
    assert efficiency_file(found, "x").startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert len(section.tables[0].rows) == 4
    assert len(section.tables[1].rows) == 2
    assert "against scratch" in section.summary[2]
