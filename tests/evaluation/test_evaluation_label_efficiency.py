from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mim.errors import MimError
from mim.evaluation import Detections, Lesions, Predictions, Settings, difference_over_seeds
from mim.evaluation.bootstrap import auroc_statistic
from mim.evaluation.coco import coco_values
from mim.evaluation.curve_figures import ap50_on_test, auroc_on_test
from mim.evaluation.detections import join
from mim.evaluation.label_efficiency import Trial, measure_label_efficiency
from mim.evaluation.label_efficiency_plot import efficiency_file, efficiency_picture, efficiency_plot
from mim.evaluation.label_efficiency_section import label_efficiency_section
from mim.evaluation.over_seeds import mean_over_seeds

SETTINGS = Settings(200)


def blurred(films: Predictions, spread: float, seed: int, order: np.ndarray | None = None) -> Predictions:
    noisy = np.clip(films.score + np.random.default_rng(seed).normal(0, spread, len(films)), 0, 1)
    changed = Predictions(films.image_id, films.patient_id, films.split, films.label, noisy, films.keep_rate)
    return changed if order is None else changed.rows(order)


@pytest.fixture(scope="module")
def films(make: Callable[..., Predictions]) -> Predictions:
    return make(240)


SPREAD = {("scratch", 0.1): 0.8, ("scratch", 1.0): 0.3, ("runs_$a$", 0.1): 0.4, ("runs_$a$", 1.0): 0.25}


class Planned(NamedTuple):
    init: str
    fraction: float
    seed: int


def given(films: Predictions, trial: Trial | Planned) -> Predictions:
    """The table that a trial was made from."""
    place = list(SPREAD).index((trial.init, trial.fraction))
    turned = np.arange(len(films))[::-1]
    spread = SPREAD[trial.init, trial.fraction]
    return blurred(films, spread, 10 * place + trial.seed, turned if trial.seed else None)


@pytest.fixture(scope="module")
def trials(films: Predictions) -> list[Trial]:
    """More labels and pretraining help; the rows of some runs are in another order."""
    planned = [Planned(init, fraction, seed) for init, fraction in SPREAD for seed in (0, 1, 2)]
    return [Trial(*own, int(400 * own.fraction), auroc_on_test(given(films, own))) for own in planned]


def test_points_are_means_over_seeds_and_differences_are_paired(films: Predictions, trials: list[Trial]) -> None:
    found = measure_label_efficiency(trials, ["scratch", "runs_$a$"], SETTINGS, baseline="scratch")
    assert [(point.init, point.fraction, point.labels) for point in found.points] == [
        ("scratch", 0.1, 40), ("scratch", 1.0, 400), ("runs_$a$", 0.1, 40), ("runs_$a$", 1.0, 400),
    ]  # fmt: skip
    test = films.of("test")
    for point in found.points:
        own = [trial for trial in trials if (trial.init, trial.fraction) == (point.init, point.fraction)]
        tables = [given(films, trial).of("test") for trial in own]
        areas = [roc_auc_score(one.label, one.score) for one in tables]
        assert point.mean.values == pytest.approx(areas)
        assert point.mean.value == pytest.approx(np.mean(areas))
        assert point.mean.low is not None
        assert point.mean.high is not None
        assert point.mean.low < point.mean.value < point.mean.high
    by_name = [
        {trial.seed: trial for trial in trials if (trial.init, trial.fraction) == (init, 0.1)}
        for init in ("scratch", "runs_$a$")
    ]

    def in_order(trial: Trial) -> np.ndarray:
        table = given(films, trial)
        scores = dict(zip(table.image_id, table.score, strict=True))
        return np.array([scores[image] for image in test.image_id])

    pairs = [(in_order(by_name[0][seed]), in_order(by_name[1][seed])) for seed in (0, 1, 2)]
    expected = difference_over_seeds(test.label, test.patient_id, pairs, resamples=200, seed=0)
    less = found.points[2].difference
    assert less is not None
    assert (less.value, less.low, less.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert (less.first, less.second) == pytest.approx((expected.auroc_a, expected.auroc_b))
    assert found.points[0].difference is None


def test_the_interval_holds_the_chance_of_seeds_too(films: Predictions) -> None:
    test = films.of("test")
    scores = [blurred(films, spread, seed).of("test").score for seed, spread in enumerate((0.05, 2.0, 0.05, 2.0))]
    figures = [auroc_statistic(test.label, score) for score in scores]
    over = mean_over_seeds(figures, test.patient_id, Settings(400), labels=test.label)
    alone = [mean_over_seeds([figure], test.patient_id, Settings(400), labels=test.label) for figure in figures]
    assert over.value == pytest.approx(np.mean([own.value for own in alone]))
    assert over.high - over.low > max(own.high - own.low for own in alone)
    of_one_class = [auroc_statistic(np.ones(len(test)), score) for score in scores[:2]]
    nothing = mean_over_seeds(of_one_class, test.patient_id, Settings(100), undefined="there is one class")
    assert (nothing.value, nothing.values, nothing.reason) == (None, (None, None), "there is one class")


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
    assert "different splits" in refused([trials[0], Trial("scratch", 0.2, 0, 5, auroc_on_test(make(90)))])


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


def searched_films(seed: int, order: np.ndarray, *, lesions: bool = True) -> tuple[Detections, Lesions]:
    """Thirty films with a lesion each, found more or less well, in any order."""
    draws = np.random.default_rng(seed)
    names = np.array([f"film{number:02d}" for number in range(30)])
    corner = np.random.default_rng(7).uniform(0, 200, (30, 2))
    there = np.concatenate([corner, corner + 20], axis=1)
    found = there + draws.normal(0, 4, there.shape)
    rank = np.argsort(order)
    detections = Detections(
        tuple(names[order]), tuple(f"patient {name[-1]}" for name in names[order]), ("test",) * 30,
        rank, found, draws.random(30), ("caries",) * 30,
    )  # fmt: skip
    count = 30 if lesions else 0
    return detections, Lesions(list(names[:count]), there[:count], ["caries"] * count)


def test_boxes_are_measured_by_ap50_whatever_the_order_of_the_films() -> None:
    turned = np.random.default_rng(3).permutation(30)
    runs = [searched_films(seed, turned if seed else np.arange(30)) for seed in (0, 1, 2)]
    trials = [Trial("scratch", 1.0, seed, 20, ap50_on_test(*run)) for seed, run in enumerate(runs)]
    trials.append(Trial("other", 1.0, 0, 20, ap50_on_test(*searched_films(0, turned))))
    found = measure_label_efficiency(trials, ["scratch", "other"], SETTINGS, baseline="scratch")
    expected = [coco_values(join(*run))["ap50"] for run in runs]
    assert found.points[0].mean.values == pytest.approx(expected)
    less = found.points[1].difference
    assert less is not None
    assert (less.value, less.low, less.high) == (0, 0, 0)  # the same boxes, their films in another order
    drawing = efficiency_plot(found, "what labels are worth")
    assert "AP50, test films" in drawing
    assert "chance" not in drawing


def test_films_without_lesions_have_no_curve_and_say_so() -> None:
    trial = Trial("scratch", 1.0, 0, 20, ap50_on_test(*searched_films(0, np.arange(30), lesions=False)))
    section = label_efficiency_section(
        measure_label_efficiency([trial], ["scratch"], SETTINGS, baseline=None), SETTINGS, None
    )
    assert not section.plots
    assert "hold no lesion" in section.text[1]


def test_runs_measured_against_other_lesions_are_refused() -> None:
    detections, lesions = searched_films(0, np.arange(30))
    fewer = Lesions(list(lesions.image_id[1:]), lesions.boxes[1:], list(lesions.label[1:]))
    trials = [
        Trial("scratch", 1.0, seed, 20, ap50_on_test(detections, own)) for seed, own in enumerate((lesions, fewer))
    ]
    with pytest.raises(MimError, match=r"1 test films .* have another patient or label"):
        measure_label_efficiency(trials, ["scratch"], SETTINGS, baseline=None)
