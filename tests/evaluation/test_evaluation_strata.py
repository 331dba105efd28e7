from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mim.evaluation import Predictions, Settings
from mim.evaluation.strata import FEW, group_values
from mim.evaluation.strata_section import film_strata, strata_section


def with_columns(films: Predictions, **columns: list[str]) -> Predictions:
    numbers = (films.label, films.score, films.keep_rate)
    return Predictions(films.image_id, films.patient_id, films.split, *numbers, columns)


@pytest.fixture
def grouped(make: Callable[..., Predictions]) -> Predictions:
    films = make(600)
    site = [("A", "A", "B", "rare")[row % 4 if row % 40 == 3 else row % 3] for row in range(600)]
    age = [str(20 + row % 60) for row in range(600)]
    grade = ["" if label == 0 else f"D{1 + row % 3}" for row, label in enumerate(films.label)]
    return with_columns(films, site=site, age=age, grade=grade)


def test_figures_are_those_of_the_films_of_the_group_worst_first(grouped: Predictions) -> None:
    test = grouped.of("test")
    rows = [row for row in film_strata(test, 0.5, Settings(100)) if row.column == "site"]
    values = [row.lead for row in rows]
    assert values == sorted(values)  # type: ignore[type-var]
    for row in rows:
        own = np.array([site == row.group for site in test.columns["site"]])
        assert row.figures["auroc"].value == pytest.approx(roc_auc_score(test.label[own], test.score[own]))
        assert row.counts == {"positive": test.label[own].sum(), "negative": (test.label[own] == 0).sum()}


def test_small_groups_are_marked_and_shown(grouped: Predictions) -> None:
    section = strata_section(grouped, Settings(100))
    assert section is not None
    groups = {row["group"]: row for row in section.figures["site"]}
    assert min(groups["rare"]["counts"].values()) < FEW
    assert {name for name, row in groups.items() if row["few"]} == {"rare"}
    table = next(table for table in section.tables if table.caption.startswith("By site"))
    assert any(row[0] == "rare †" for row in table.rows)
    assert "Fewer than 10" in table.note
    assert not any("rare" in line for line in section.text)


def test_a_grade_of_the_sick_is_set_against_all_the_healthy(grouped: Predictions) -> None:
    test = grouped.of("test")
    rows = [row for row in film_strata(test, 0.5, Settings(100)) if row.column == "grade"]
    assert {row.group for row in rows} == {"D1", "D2", "D3"}
    for row in rows:
        own = np.array([grade == row.group for grade in test.columns["grade"]]) | (test.label == 0)
        assert row.figures["auroc"].value == pytest.approx(roc_auc_score(test.label[own], test.score[own]))
        assert row.counts["negative"] == (test.label == 0).sum()


def test_a_group_of_one_class_says_why(make: Callable[..., Predictions]) -> None:
    films = make(90)
    films = with_columns(films, sex=["f" if label else "m" for label in films.label])
    for row in film_strata(films.of("test"), 0.5, Settings(100)):
        assert row.few
        assert row.figures["auroc"].reason == "the group is not of both classes"
        assert (row.figures["sensitivity"].value is None) == (row.group == "m")


def test_without_columns_there_is_no_block(predictions: Predictions) -> None:
    assert strata_section(predictions, Settings(100)) is None


@given(st.lists(st.one_of(st.just(""), st.integers(0, 99).map(str)), max_size=60))
def test_many_numbers_become_three_groups_and_all_values_stay(values: list[str]) -> None:
    groups = group_values(values)
    assert len(groups) == len(values)
    assert [group == "not known" for group in groups] == [value == "" for value in values]
    told = {value for value in values if value}
    if len(told) <= 8:
        assert {group for group in groups if group != "not known"} == told
    else:
        assert len(set(groups) - {"not known"}) <= 3
        bounds: dict[str, list[int]] = {}
        for value, group in zip(values, groups, strict=True):
            if value:
                bounds.setdefault(group, []).append(int(value))
        spans = sorted((min(own), max(own)) for own in bounds.values())
        assert all(first[1] < second[0] for first, second in pairwise(spans))
