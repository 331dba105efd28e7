import numpy as np
import pytest

from mim.config.select_features import FeatureMaskerConfig
from mim.errors import MimError
from mim.evaluation.bootstrap import auroc_statistic
from mim.evaluation.selection import measure_selection
from mim.evaluation.stability import selection_stability
from mim.stages.feature_folds import FeatureTable, divisions, fit_masked, predict_masked, select_on_folds


def table(rows=300, informative=10, noise=100, seed=0, per_patient=2, missing=0.0):
    """Two rows a patient; features 0 to `informative` say something of the label, the others nothing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, informative + noise)).astype(np.float32)
    label = (values[:, :informative].sum(axis=1) + rng.logistic(size=rows) > 0).astype(np.int64)
    values[rng.random(values.shape) < missing] = np.nan
    patients = tuple(f"p{number // per_patient}" for number in range(rows))
    return FeatureTable(values, tuple(f"f{number}" for number in range(values.shape[1])), label, patients)


def auroc(label, score):
    return float(auroc_statistic(label, score)(np.ones((1, len(label)), dtype=np.int64))[0])


@pytest.mark.parametrize("gates", ["hard_concrete", "straight_through"])
def test_ten_informative_features_are_found_among_a_hundred_and_always_the_same(gates):
    found = table(rows=500)
    selected, score = [], np.zeros(500)
    for train, test in divisions(found, folds=3, repeats=1, seed=0):
        model = fit_masked(found.values[train], found.label[train], FeatureMaskerConfig(gates=gates), seed=0)
        selected.append(model.masker.selected().numpy())
        score[test] = predict_masked(model, found.values[test])
    assert np.mean(selected, axis=0)[:10].mean() >= 0.95
    assert np.mean(selected, axis=0)[10:].mean() <= 0.03
    assert selection_stability(selected).value > 0.75
    assert auroc(found.label, score) > 0.8


def test_what_is_not_selected_has_no_weight_and_peers_see_everything():
    found = table(rows=240, informative=4, noise=8, missing=0.05)
    results = select_on_folds(found, FeatureMaskerConfig(steps=100, keep=0.3), folds=3, repeats=1, seed=0)
    assert results.selected.shape == results.lasso.shape == (3, 12)
    assert (results.weight[~results.selected] == 0).all()
    assert (results.weight[:, :4][results.selected[:, :4]] > 0).all()
    assert results.lasso[:, :4].all()
    assert all(auroc(found.label, score) > 0.7 for score in results.score.values())


def test_labels_of_pure_noise_cannot_be_told_though_each_patient_has_many_rows_alike():
    rng = np.random.default_rng(1)
    patients = 60
    values = np.repeat(rng.normal(size=(patients, 20)), 5, axis=0)
    values += 0.01 * rng.normal(size=values.shape)
    label = np.repeat(rng.permutation(np.arange(patients) % 2), 5)
    names = tuple(f"f{number}" for number in range(20))
    noise = FeatureTable(
        values.astype(np.float32), names, label, tuple(f"p{number // 5}" for number in range(5 * patients))
    )
    results = select_on_folds(noise, FeatureMaskerConfig(steps=100), folds=3, repeats=2, seed=0)
    for name, score in results.score.items():
        assert 0.25 < auroc(label, score) < 0.72, name  # with a patient in both parts it would be 1
    assert abs(selection_stability(results.selected).value) < 0.6


def test_no_patient_is_learnt_from_and_asked():
    found = table(rows=60, informative=1, noise=1, per_patient=3)
    patient = np.array(found.patient)
    asked = np.zeros(60, dtype=int)
    for train, test in divisions(found, folds=4, repeats=2, seed=0):
        assert not set(patient[train]) & set(patient[test])
        assert len(train) + len(test) == 60
        asked[test] += 1
    assert (asked == 2).all()


def test_mean_and_deviation_are_those_of_the_training_rows():
    found = table(rows=80, informative=2, noise=2)
    settings = FeatureMaskerConfig(steps=5, keep=1.0)
    model = fit_masked(found.values[:40], found.label[:40], settings, seed=0)
    np.testing.assert_allclose(model.masker.mean, found.values[:40].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(model.masker.std, found.values[:40].std(axis=0), rtol=1e-5)
    # a row is scored alike whoever is asked beside it
    alone = predict_masked(model, found.values[40:41])
    np.testing.assert_allclose(predict_masked(model, found.values[40:])[0], alone[0])


def test_the_same_seed_gives_the_same_selection():
    found = table(rows=60, informative=2, noise=4)
    settings = FeatureMaskerConfig(steps=10, keep=0.3)
    first, second = (select_on_folds(found, settings, folds=3, repeats=1, seed=3) for _ in range(2))
    assert np.array_equal(first.chance, second.chance)
    assert all(np.array_equal(first.score[name], second.score[name]) for name in first.score)


def test_figures_say_what_a_reader_must_know(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    good, bad = label + rng.normal(size=60), rng.normal(size=60)
    selected = rng.random((6, 8)) < 0.4
    settings = {"resamples": 200, "confidence": 0.95, "seed": 0, "header": {}, "settings": {}}
    values = rng.normal(size=(60, 8)).astype(np.float32)
    names = [f"a$b {number}" for number in range(8)]
    patients = [f"p{number}" for number in range(60)]
    weight = rng.normal(size=(6, 8))
    score = {"masker": bad, "all": good, "l1": good}
    found = measure_selection(
        names, values, label, patients, selected, selected * 0.9, weight, selected, score, **settings
    )
    warnings = " ".join(found.figures["warnings"])
    assert "not above chance" in warnings
    assert "stability of the selection is poor" in warnings
    assert "worse than a logistic regression" in warnings
    assert found.figures["auroc"]["all"]["low"] < auroc(label, good) < found.figures["auroc"]["all"]["high"]
    found.save(tmp_path)
    assert len((tmp_path / "features.csv").read_text().splitlines()) == 9
    assert (tmp_path / "selection.svg").read_text().count("a$b") == 8
    again = tmp_path / "again"
    again.mkdir()
    found.save(again)
    assert (again / "selection.svg").read_bytes() == (tmp_path / "selection.svg").read_bytes()


def test_tables_that_cannot_be_used_are_told_in_one_line():
    found = table(rows=40, informative=1, noise=2)
    settings = FeatureMaskerConfig(steps=2)

    def said(folds=3, **changes):
        changed = FeatureTable(
            **{name: changes.get(name, getattr(found, name)) for name in ("values", "names", "label", "patient")}
        )
        with pytest.raises(MimError) as caught:
            select_on_folds(changed, settings, folds=folds, repeats=1, seed=0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    constant, absent = found.values.copy(), found.values.copy()
    constant[:, 1] = 4
    absent[:, 2] = np.nan
    assert "feature f1 is the same in every row" in said(values=constant)
    assert "feature f2 is missing in every row" in said(values=absent)
    assert "too few for 10 folds" in said(folds=10)
    assert "0 patients of class 1" in said(label=np.zeros(40, dtype=np.int64))
