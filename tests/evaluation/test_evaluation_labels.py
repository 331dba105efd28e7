import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from labelled import films_of
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    mean_absolute_error,
    roc_auc_score,
)

from mim.errors import MimError
from mim.evaluation import Header, Settings
from mim.evaluation.class_metrics import (
    balanced_accuracy_statistic,
    called_class,
    mean_auroc_statistic,
    measure_labels,
)
from mim.evaluation.confusion_plot import confusion_plot
from mim.evaluation.label_card import facts_of_labels
from mim.evaluation.label_errors import find_label_errors
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import answers, mean_auroc
from mim.evaluation.label_report import ErrorFilm, write_label_report
from mim.evaluation.label_section import labels_section, left_out_section
from mim.evaluation.ordinal import median_grade, quadratic_kappa_statistic

QUICK = Settings(bootstrap=100)
SCHEMA = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(params=["classes", "ordered", "several"])
def films(request: pytest.FixtureRequest) -> LabelPredictions:
    return films_of(request.param)


def test_classes_are_measured_as_scikit_learn_does() -> None:
    films = films_of("classes")
    test = films.of("test")
    found = measure_labels(films, QUICK)
    ours = [question.test.figures["auroc"].value for question in found.questions]
    theirs = roc_auc_score(test.label, test.score, multi_class="ovr", average=None)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    macro = roc_auc_score(test.label, test.score, multi_class="ovr", average="macro")
    assert found.overall["mean_auroc"].value == pytest.approx(macro, rel=1e-12)
    called = test.score.argmax(axis=1)
    assert found.overall["accuracy"].value == pytest.approx((called == test.label).mean())
    assert found.overall["balanced_accuracy"].value == pytest.approx(balanced_accuracy_score(test.label, called))
    for place, question in enumerate(found.questions):
        assert question.test.figures["auprc"].value == pytest.approx(
            average_precision_score(test.label == place, test.score[:, place])
        )
        assert question.test.positives == (test.label == place).sum()
    assert found.confusion is not None
    assert found.confusion[2, 1] == ((test.label == 2) & (called == 1)).sum()
    brier = ((test.score - np.eye(4)[test.label]) ** 2).sum(axis=1).mean()
    assert found.overall["brier"].value == pytest.approx(brier)


def test_the_calibration_error_is_of_the_likeliest_class() -> None:
    test = films_of("classes").of("test")
    confidence, right = test.score.max(axis=1), test.score.argmax(axis=1) == test.label
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence > low) & (confidence <= low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert measure_labels(films_of("classes"), QUICK).overall["ece"].value == pytest.approx(expected)


def test_grades_are_measured_as_scikit_learn_does() -> None:
    films = films_of("ordered")
    test = films.of("test")
    found = measure_labels(films, QUICK)
    called = called_class(test)
    kappa = cohen_kappa_score(test.label, called, weights="quadratic", labels=range(4))
    assert found.overall["kappa"].value == pytest.approx(kappa, rel=1e-12)
    assert found.overall["mae"].value == pytest.approx(mean_absolute_error(test.label, called))
    assert found.overall["within_one"].value == pytest.approx((np.abs(called - test.label) <= 1).mean())
    assert [question.name for question in found.questions] == ["c1 or worse", "c2 or worse", "c3 or worse"]
    for cut, question in enumerate(found.questions):
        worse = test.score[:, cut + 1 :].sum(axis=1)
        assert question.test.figures["auroc"].value == pytest.approx(roc_auc_score(test.label > cut, worse))


def test_the_grade_that_is_called_errs_least_by_its_own_distribution() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(5), 200)
    distance = np.abs(np.arange(5)[:, None] - np.arange(5))  # of each call from each grade
    np.testing.assert_array_equal(median_grade(scores), (scores @ distance).argmin(axis=1))


def test_a_kappa_of_one_grade_alone_is_not_defined() -> None:
    statistic = quadratic_kappa_statistic([2, 2, 2], [2, 2, 2])
    assert np.isnan(statistic(np.ones((1, 3), dtype=np.int64)))[0]


def test_labels_are_measured_on_the_films_of_which_they_are_known() -> None:
    films = films_of("several")
    test = films.of("test")
    found = measure_labels(films, QUICK)
    for place, question in enumerate(found.questions):
        known = test.label[:, place] >= 0
        expected = roc_auc_score(test.label[known, place], test.score[known, place])
        assert question.test.figures["auroc"].value == pytest.approx(expected)
        assert question.unknown == (~known).sum() > 0
        assert question.test.films + question.unknown == len(test)
        val = films.of("val")
        negatives = val.score[val.label[:, place] == 0, place]
        assert question.threshold.value is not None
        assert (negatives < question.threshold.value).mean() >= QUICK.specificity
        called = test.score[known, place] >= question.threshold.value
        sensitivity = called[test.label[known, place] == 1].mean()
        assert question.test.figures["sensitivity"].value == pytest.approx(sensitivity)
    assert found.confusion is None
    assert "accuracy" not in found.overall


def test_weights_give_what_the_written_out_resample_gives(films: LabelPredictions) -> None:
    test = films.of("test")
    weights = np.random.default_rng(1).integers(0, 4, (5, len(test)))
    for row in weights:
        drawn = np.repeat(np.arange(len(test)), row)
        label, score = test.label[drawn], test.score[drawn]
        expected = mean_auroc(score, label, films.kind)
        np.testing.assert_allclose(mean_auroc_statistic(test)(row[None]), expected, rtol=1e-12)
        if films.kind != "several":
            called = called_class(test)
            ours = balanced_accuracy_statistic(test.label, called)(row[None])
            np.testing.assert_allclose(ours, balanced_accuracy_score(label, called[drawn]), rtol=1e-12)
            ours = quadratic_kappa_statistic(test.label, called)(row[None])
            theirs = cohen_kappa_score(label, called[drawn], weights="quadratic", labels=range(4))
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_intervals_hold_their_value_and_patients_are_drawn_whole() -> None:
    films = films_of("ordered")
    found = measure_labels(films, QUICK).overall
    for name in ("mean_auroc", "kappa", "mae", "balanced_accuracy"):
        assert found[name].low < found[name].value < found[name].high
    alone = LabelPredictions(
        films.names, "ordered", films.image_id, films.image_id, films.split, films.label, films.score, films.keep_rate
    )
    other = measure_labels(alone, QUICK).overall["kappa"]
    assert (other.low, other.high) != (found["kappa"].low, found["kappa"].high)
    assert other.value == found["kappa"].value


def test_a_class_that_the_test_lacks_is_told_and_the_rest_is_computed() -> None:
    films = films_of("classes")
    kept = films.rows(~((films.label == 2) & np.array([split == "test" for split in films.split])))
    found = measure_labels(kept, QUICK)
    gone, first = found.questions[2].test.figures["auroc"], found.questions[0].test.figures["auroc"]
    assert (gone.value, gone.reason) == (None, "the test set has no positive film")
    assert first.value is not None
    assert found.overall["mean_auroc"].value == pytest.approx(
        np.mean([found.questions[place].test.figures["auroc"].value for place in (0, 1, 3)])
    )
    lines = labels_section(found, kept).first_lines
    assert any("The test set has no film of “c2”" in line for line in lines)


def test_a_class_with_few_films_is_marked_and_not_hidden() -> None:
    films = films_of("classes")
    test = np.array([split == "test" for split in films.split])
    rare = np.flatnonzero(test & (films.label == 1))
    found = measure_labels(films.rows(np.setdiff1d(np.arange(len(films)), rare[9:])), QUICK)
    assert [question.few for question in found.questions] == [False, True, False, False]
    assert found.questions[1].test.positives == 9
    section = labels_section(found, films)
    marked = [row[0] for row in section.tables[1].rows]
    assert marked == ["c0", "c1 †", "c2", "c3"]
    assert any("“c1”" in line for line in section.first_lines)


def test_no_test_films_at_all_still_give_a_report() -> None:
    val = films_of("ordered").of("val")
    found = measure_labels(val, QUICK)
    assert all(figure.value is None and figure.reason for figure in found.overall.values())
    assert json.dumps(labels_section(found, val).figures, allow_nan=False)


def test_films_without_a_score_are_left_out(films: LabelPredictions) -> None:
    score = films.score.copy()
    score[5] = np.nan
    row = (films.names, films.kind, films.image_id, films.patient_id, films.split, films.label, score, films.keep_rate)
    broken = LabelPredictions(*row)
    kept = films.rows(np.arange(len(films)) != 5)
    assert measure_labels(broken, QUICK).to_json() == measure_labels(kept, QUICK).to_json()


def test_the_table_is_read_back_exactly(films: LabelPredictions, tmp_path: Path) -> None:
    score = films.score.copy()
    score[3] = np.nan
    films = LabelPredictions(
        ("a, b", "c\"d", "é", "1"), films.kind, films.image_id, films.patient_id, films.split, films.label, score,
        films.keep_rate,
    )  # fmt: skip
    films.save(tmp_path / "predictions.csv")
    back = LabelPredictions.load(tmp_path / "predictions.csv", films.kind)
    assert back.names == films.names
    np.testing.assert_array_equal(back.label, films.label)
    np.testing.assert_array_equal(back.score, films.score)
    np.testing.assert_array_equal(back.keep_rate, films.keep_rate)
    assert (list(back.image_id), list(back.split)) == (list(films.image_id), list(films.split))
    assert measure_labels(back, QUICK).to_json() == measure_labels(films, QUICK).to_json()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("film001", "film000", "stands in row"),
        (",test,", ",train,", "must be val or test"),
        (",c1,", ",c9,", "cannot be read"),
        ("label", "lable", "is no table of predictions"),
    ],
)
def test_a_table_that_was_changed_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    films_of("classes").save(path)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(MimError, match=said) as error:
        LabelPredictions.load(path, "classes")
    assert str(path) in str(error.value)


@pytest.mark.parametrize("broken", [{"score": 1.5}, {"label": 7}])
def test_what_no_score_or_label_can_be_is_refused_with_its_row(broken: dict[str, float]) -> None:
    films = films_of("classes", 12)
    columns = {name: getattr(films, name) for name in ("names", "kind", "image_id", "patient_id", "split", "keep_rate")}
    numbers = {"label": films.label.copy(), "score": films.score.copy()}
    for name, value in broken.items():
        numbers[name][4] = value
    with pytest.raises(MimError, match=r"row 5 \(image 'film004'\)"):
        LabelPredictions(**columns, **numbers)


def test_the_confusion_matrix_is_a_vector_drawing_whatever_the_classes_are_called() -> None:
    names = ("<b>bold</b>", "$\\frac{", "a" * 60)
    drawing = confusion_plot(np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]]), names, "Films & calls")
    assert "<image" not in drawing
    assert "<b>" not in drawing
    assert "&lt;b&gt;bold&lt;/b&gt;" in drawing
    assert "$\\frac{" in drawing
    assert "75 %" in drawing
    assert "#05050" not in drawing, "colours are the page's own"


def test_errors_are_the_most_confident_first() -> None:
    films = films_of("classes")
    found = find_label_errors(films, measure_labels(films, QUICK), 4)
    assert [group.title for group in found] == [f"c{place}, called something else" for place in range(4)]
    called = called_class(films)
    test = np.array([split == "test" for split in films.split])
    for place, group in enumerate(found):
        wrong = np.flatnonzero(test & (films.label == place) & (called != place))
        assert group.total == len(wrong)
        best = sorted(wrong, key=lambda row: -films.score[row, called[row]])[:4]
        assert [error.row for error in group.errors] == best


def test_errors_of_grades_are_the_farthest_first() -> None:
    films = films_of("ordered")
    called = called_class(films)
    for place, group in enumerate(find_label_errors(films, measure_labels(films, QUICK), 5)):
        off = [abs(int(called[error.row]) - place) for error in group.errors]
        assert off == sorted(off, reverse=True)
        assert min(off, default=1) > 0


def test_errors_of_labels_are_missed_and_called() -> None:
    films = films_of("several")
    metrics = measure_labels(films, QUICK)
    groups = find_label_errors(films, metrics, 3)
    assert len(groups) == 8
    at = metrics.questions[0].threshold.value
    assert all(films.label[error.row, 0] == 1 and films.score[error.row, 0] < at for error in groups[0].errors)
    assert all(films.label[error.row, 0] == 0 and films.score[error.row, 0] >= at for error in groups[1].errors)
    assert groups[0].errors
    assert groups[1].errors


def test_the_report_is_written_and_its_figures_fit_the_schema(
    films: LabelPredictions, header: Header, tmp_path: Path
) -> None:
    metrics = measure_labels(films, QUICK)
    sections = [labels_section(metrics, films), left_out_section(["the decision curve"])]
    groups = find_label_errors(films, metrics, 2)
    picture = np.linspace(0, 1, 64 * 48, dtype=np.float32).reshape(64, 48)
    seen = np.eye(4, dtype=bool)
    shown = [
        (group, [ErrorFilm(f"f{error.row}", "p", picture, seen, [(4, 4, 9, 9)]) for error in group.errors])
        for group in groups
    ]
    about = [("Test films", "160 of 80 patients")]
    report = write_label_report(tmp_path, sections, metrics.settings, header, about, shown, ["Beware <them>."])
    page = report.read_text()
    assert "Beware &lt;them&gt;." in page
    assert page.count("data:image/png;base64,") == 3 * sum(len(group.errors) for group in groups)
    assert "://" not in page.replace("http://www.w3.org", ""), "it asks nobody for anything"
    content = json.loads((tmp_path / "metrics.json").read_text())
    Draft202012Validator(SCHEMA).validate(content)
    assert content["blocks"]["labels"]["names"] == list(films.names)
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids)), "a page has each id once"
    facts = facts_of_labels(metrics, header, about, ["Beware."])
    assert ("failures" in facts) == (films.kind != "several")
    assert f"{metrics.overall['mean_auroc'].value:.3f}" in facts["performance"]


def test_the_mean_over_questions_is_none_where_there_is_one_class() -> None:
    assert np.isnan(mean_auroc(np.full((4, 3), 1 / 3), [1, 1, 1, 1], "classes"))
    np.testing.assert_array_equal(answers([0, 2], 3, "ordered"), [[0, 0], [1, 1]])
