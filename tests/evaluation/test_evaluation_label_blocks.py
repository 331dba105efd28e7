"""Groups, calibration, acting and comparison of more than two classes, of grades, and of several labels."""

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from labelled import films_of
from scipy.optimize import minimize_scalar
from sklearn.metrics import accuracy_score, brier_score_loss, cohen_kappa_score, log_loss, roc_auc_score

from mim.errors import MimError
from mim.evaluation import Header, Section, Settings, calibration_section, compare_predictions, comparison_section
from mim.evaluation.calibration import fit_class_temperature, scale_classes
from mim.evaluation.class_metrics import called_class, measure_labels
from mim.evaluation.label_calibration import label_calibration_section
from mim.evaluation.label_comparison import compare_labels, figure_titles
from mim.evaluation.label_decisions import label_points_section, label_usefulness_section
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_section import labels_section
from mim.evaluation.label_strata import RAREST, label_strata, label_strata_sections
from mim.evaluation.strata_section import film_strata

QUICK = Settings(bootstrap=50)
SCHEMA = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["classes", "ordered", "several"])
def films(request: pytest.FixtureRequest) -> LabelPredictions:
    return grouped(films_of(request.param))


def grouped(films: LabelPredictions) -> LabelPredictions:
    """The films with a device each, one of them rare, and one that is known of few."""
    rows = range(len(films))
    device = [("A", "B", "rare")[2 if row % 60 == 5 else row % 2] for row in rows]
    return replace(films, columns={"device": device, "sex": ["" if row % 5 else "f" for row in rows]})


def noisy(films: LabelPredictions, seed: int = 0) -> LabelPredictions:
    """The same films with other scores."""
    draws = np.random.default_rng(seed)
    score = np.clip(films.score + draws.uniform(0, 0.5, films.score.shape), 0, None)
    score = score / 2 if films.kind == "several" else score / score.sum(axis=1, keepdims=True)
    return replace(films, score=np.clip(score, 0, 1))


def shuffled(films: LabelPredictions) -> LabelPredictions:
    return films.rows(np.random.default_rng(3).permutation(len(films)))


def renamed(films: LabelPredictions) -> LabelPredictions:
    """The same classes in another order, under other names."""
    turn = np.array([2, 0, 3, 1])
    names = tuple(f"name {place}" for place in turn)
    label = films.label[:, turn] if films.kind == "several" else np.argsort(turn)[films.label]
    return replace(films, names=names, label=label, score=films.score[:, turn])


def test_groups_are_measured_as_scikit_learn_does() -> None:
    test = grouped(films_of("ordered")).of("test")
    found = {row.group: row for row in label_strata(test, QUICK) if row.column == "device"}
    for group, row in found.items():
        own = test.rows(np.array([device == group for device in test.columns["device"]]))
        called = called_class(own)
        assert row.counts["films"] == len(own)
        assert row.figures["accuracy"].value == pytest.approx(accuracy_score(own.label, called))
        assert row.figures["mae"].value == pytest.approx(np.abs(own.label - called).mean())
        kappa = cohen_kappa_score(own.label, called, weights="quadratic", labels=range(4))
        assert row.figures["kappa"].value == pytest.approx(kappa)
    assert found["rare"].few
    assert not found["A"].few


def test_the_worst_group_comes_first_and_small_ones_are_marked(films: LabelPredictions) -> None:
    metrics = measure_labels(films, QUICK)
    overall, each = label_strata_sections(films, metrics, QUICK)
    leads = [row.lead for row in label_strata(films.of("test"), QUICK) if row.column == "device"]
    leads = [lead for lead in leads if lead is not None]  # what has none comes last
    assert len(leads) > 1
    assert leads == sorted(leads, reverse=films.kind == "ordered"), "of grades the largest error is the worst"
    groups = {row["group"]: row for row in overall.figures["device"]}
    assert groups["rare"]["few"]
    assert any(row[0] == "rare †" for row in overall.tables[0].rows)
    assert not any("rare" in line for line in overall.text if line.startswith("Worst"))
    assert list(each.figures) == list(films.questions)
    for place, question in enumerate(metrics.questions):
        own = film_strata(films.question(place).of("test"), question.threshold.value, QUICK)
        found = {(row.column, row.group): row.figures["auroc"].value for row in own}
        told = {(name, row["group"]): row["auroc"]["value"]
                for name, rows in each.figures[question.name].items() for row in rows}  # fmt: skip
        assert found == told, "as two classes are measured"


def test_the_rarest_answer_of_a_group_is_counted(films: LabelPredictions) -> None:
    test = films.of("test")
    for row in label_strata(test, QUICK):
        own = test.rows(np.array([(value or "not known") == row.group for value in test.columns[row.column]]))
        counts = []
        for place in range(len(own.questions)):
            truth = own.question(place).label
            counts += [int(truth.sum()), int((truth == 0).sum())]
        assert row.counts[RAREST] == min(counts)


def test_a_column_that_says_what_the_label_says_divides_nothing() -> None:
    films = films_of("ordered")
    films = replace(films, columns={"severity": [f"D{label}" for label in films.label]})
    (section,) = label_strata_sections(films, measure_labels(films, QUICK), QUICK)
    assert section.text == ("severity says what the label says: films are not divided by it.",)
    assert not section.figures


def test_without_columns_or_films_there_are_no_groups(films: LabelPredictions) -> None:
    for own in (replace(films, columns={}), films.of("val")):
        assert label_strata_sections(own, measure_labels(own, QUICK), QUICK) == ()


def test_the_temperature_of_classes_is_the_likeliest() -> None:
    films = films_of("classes")
    odds = np.log(films.score) * 3  # three times too sure
    sure = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    found = fit_class_temperature(films.label, sure)

    def loss(temperature: float) -> float:
        scaled = np.exp(odds / temperature)
        return float(log_loss(films.label, scaled / scaled.sum(axis=1, keepdims=True)))

    best = minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-8})
    assert found.value == pytest.approx(best.x, rel=1e-4)
    assert found.value == pytest.approx(3 * fit_class_temperature(films.label, films.score).value, rel=1e-6)
    scaled = scale_classes(sure, found)
    np.testing.assert_allclose(scaled.sum(axis=1), 1)
    np.testing.assert_array_equal(scaled.argmax(axis=1), sure.argmax(axis=1))


@pytest.mark.parametrize(
    ("label", "score", "said"),
    [
        ([0, 0], [[0.9, 0.1], [0.8, 0.2]], "fewer than two classes"),
        ([0, 1], [[0.9, 0.1], [0.2, 0.8]], "called rightly"),
        ([0, 1], [[0.1, 0.9], [0.8, 0.2]], "do not rise with the label"),
    ],
)
def test_where_no_temperature_can_be_fitted_it_is_said(label: list[int], score: list[list[float]], said: str) -> None:
    found = fit_class_temperature(label, score)
    assert found.value is None
    assert said in str(found.reason)
    np.testing.assert_array_equal(scale_classes(score, found), score)


def test_each_label_is_calibrated_as_two_classes_are() -> None:
    films = films_of("several")
    section = label_calibration_section(films, QUICK)
    for place, name in enumerate(films.names):
        theirs = calibration_section(films.question(place), QUICK).figures
        assert section.figures["questions"][name] == theirs["test"]
        assert section.figures["questions_after_temperature"][name] == theirs["test_after_temperature"]
        assert section.figures["temperatures"][name] == theirs["temperature"]
        own = films.question(place).of("test")
        assert theirs["test"]["brier"]["value"] == pytest.approx(brier_score_loss(own.label, own.score))


def test_acting_on_a_score_is_measured_for_each(films: LabelPredictions) -> None:
    metrics = measure_labels(films, QUICK)
    points, usefulness = label_points_section(films, QUICK), label_usefulness_section(films, metrics)
    assert list(points.figures) == list(usefulness.figures) == list(films.questions)
    for place, name in enumerate(films.questions):
        test = films.question(place).of("test")
        at = points.figures[name]["specificity_0.90"]
        called = test.score >= at["threshold"]
        assert at["sensitivity"]["value"] == pytest.approx(called[test.label == 1].mean())
        half = usefulness.figures[name]["thresholds"].index(0.5)
        called = test.score >= 0.5
        benefit = ((called & (test.label == 1)).sum() - (called & (test.label == 0)).sum()) / len(test)
        assert usefulness.figures[name]["net_benefit"][half]["value"] == pytest.approx(benefit)
    assert len({plot.drawing for plot in usefulness.plots}) == len(films.questions)


def sections_of(films: LabelPredictions, settings: Settings = QUICK) -> list[Section]:
    metrics = measure_labels(films, settings)
    return [
        labels_section(metrics, films),
        label_points_section(films, settings),
        label_calibration_section(films, settings),
        label_usefulness_section(films, metrics),
        *label_strata_sections(films, metrics, settings),
    ]


def test_all_figures_fit_the_schema(films: LabelPredictions, header: Header) -> None:
    sections = sections_of(films)
    found = compare_labels(films, noisy(films), QUICK)
    sections.append(comparison_section(found, ("one", "other"), QUICK, figure_titles(films)))
    content = {
        "schema_version": 1,
        "header": None,
        "settings": {"bootstrap": 50, "confidence": 0.95, "specificity": 0.9, "seed": 0},
        "threshold": {"value": None, "chosen_on": "val", "reason": "one for each"},
        "blocks": {section.name: dict(section.figures) for section in sections},
        "warnings": [],
    }
    Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(content, allow_nan=False)))


def test_the_order_of_the_rows_changes_nothing(films: LabelPredictions) -> None:
    point = Settings(bootstrap=1)  # intervals are not looked at
    before, after = (
        {section.name: section.figures for section in sections_of(own, point)} for own in (films, shuffled(films))
    )
    assert values_of(before) == pytest.approx(values_of(after), rel=1e-9)


@pytest.mark.parametrize("kind", ["classes", "several"])
def test_names_and_order_of_the_classes_change_nothing(kind: str) -> None:
    films = grouped(films_of(kind))
    other = renamed(films)
    one, two = measure_labels(films, QUICK), measure_labels(other, QUICK)
    assert {n: f.value for n, f in one.overall.items()} == pytest.approx({n: f.value for n, f in two.overall.items()})
    assert sorted(q.test.figures["auroc"].value for q in one.questions) == sorted(
        q.test.figures["auroc"].value for q in two.questions
    )
    groups = [label_strata(own.of("test"), QUICK) for own in (films, other)]
    assert [row.group for row in groups[0]] == [row.group for row in groups[1]]
    assert [row.lead for row in groups[0]] == pytest.approx([row.lead for row in groups[1]])
    differences = [compare_labels(own, noisy_alike(own), QUICK)["mean_auroc"] for own in (films, other)]
    assert differences[0].difference.value == pytest.approx(differences[1].difference.value)
    assert differences[0].difference.low == pytest.approx(differences[1].difference.low)


def noisy_alike(films: LabelPredictions) -> LabelPredictions:
    """Other scores that follow from the scores alone, whatever the classes are called."""
    score = films.score**2 + 0.1
    return replace(films, score=score / 1.1 if films.kind == "several" else score / score.sum(axis=1, keepdims=True))


def values_of(content: object, at: str = "") -> dict[str, float]:
    """The point values of figures, by where they stand; intervals depend on which patient is drawn when."""
    found: dict[str, float] = {}
    if isinstance(content, dict):
        for name, own in content.items():
            if name not in ("low", "high", "reason"):
                found |= values_of(own, f"{at}/{name}")
    elif isinstance(content, (list, tuple)):
        for place, own in enumerate(content):
            found |= values_of(own, f"{at}/{place}")
    elif isinstance(content, (int, float)):
        found[at] = float(content)
    return found


def test_two_runs_differ_by_what_scikit_learn_says(films: LabelPredictions) -> None:
    other = noisy(films)
    found = compare_labels(films, shuffled(other), QUICK)
    one, two = films.of("test"), other.of("test")
    areas = []
    for place, name in enumerate(films.questions):
        pair = [own.question(place) for own in (one, two)]
        row = found[f"auroc: {name}"]
        values = [roc_auc_score(own.label, own.score) for own in pair]
        areas.append(values)
        assert (row.first, row.second) == pytest.approx(values)
        alone = compare_predictions(films.question(place), other.question(place), QUICK)["sensitivity"]
        assert found[f"sensitivity: {name}"].difference.value == pytest.approx(alone.difference.value)
        assert found[f"auroc_delong: {name}"].difference.value == pytest.approx(values[1] - values[0])
    row = found["mean_auroc"]
    assert (row.first, row.second) == pytest.approx(np.mean(areas, axis=0))
    assert row.difference.low < row.difference.value < row.difference.high
    assert row.p is not None
    if films.kind == "ordered":
        for own, side in ((one, found["kappa"].first), (two, found["kappa"].second)):
            kappa = cohen_kappa_score(own.label, called_class(own), weights="quadratic", labels=range(4))
            assert side == pytest.approx(kappa)
        errors = [np.abs(called_class(own) - own.label).mean() for own in (one, two)]
        assert found["mae"].difference.value == pytest.approx(errors[1] - errors[0])
    assert found.keys() <= figure_titles(films).keys()


def test_a_run_does_not_differ_from_itself_and_turns_with_its_order(films: LabelPredictions) -> None:
    same = compare_labels(films, shuffled(films), QUICK)
    assert all(row.difference.value == pytest.approx(0) and row.p in (None, 1.0) for row in same.values())
    other = noisy(films)
    there, back = compare_labels(films, other, QUICK), compare_labels(other, films, QUICK)
    for name, row in there.items():
        assert row.difference.value == pytest.approx(-back[name].difference.value)
        assert row.p == pytest.approx(back[name].p)


def test_only_what_both_could_score_is_compared(films: LabelPredictions) -> None:
    score = noisy(films).score.copy()
    place = next(row for row, split in enumerate(films.split) if split == "test")
    score[place] = np.nan
    kept = np.arange(len(films)) != place
    found = compare_labels(films, replace(films, score=score), QUICK)
    expected = compare_labels(films.rows(kept), replace(films, score=score).rows(kept), QUICK)
    assert {name: row.difference for name, row in found.items()} == {n: row.difference for n, row in expected.items()}


def test_other_films_labels_or_classes_are_refused(films: LabelPredictions) -> None:
    with pytest.raises(MimError, match="give two runs of one target"):
        compare_labels(films, replace(films, names=("a", "b", "c", "d")), QUICK)
    with pytest.raises(MimError, match="1 test films are in one of them only"):
        compare_labels(films, films.rows(np.arange(len(films)) != 2), QUICK)
    label = films.label.copy()
    label[2] = (label[2] + 1) % 2
    with pytest.raises(MimError, match=r"1 test films have another patient or label .*film002"):
        compare_labels(films, replace(films, label=label), QUICK)


def test_without_test_films_a_comparison_says_so(films: LabelPredictions) -> None:
    val = films.of("val")
    found = compare_labels(val, val, QUICK)
    assert all(row.difference.value is None and row.difference.reason for row in found.values())
    assert sections_of(val)[1].tables
