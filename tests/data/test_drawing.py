"""Folds, sites, dates and shares of the labels."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.data import (
    LabelledFilm,
    LabelledFilms,
    PreparedDataset,
    Splits,
    attach_labels,
    load_splits,
    save_splits,
    split_films,
    split_hash,
    take_label_fraction,
)
from mim.data.drawing import assign_folds, first_of_each_class, held_out_sites, newest, site_folds
from mim.errors import MimError

DRAW: dict[str, Any] = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}
SITES = ("Bern", "Graz", "Ulm", "Wien")
PATIENTS = 20


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """Two films of each of 20 patients."""
    root = tmp_path_factory.mktemp("draws")
    for number in range(2 * PATIENTS):
        write_png(root / "films" / f"{number:02}.png", pattern(number))
    return store_films(root / "films", root / "prepared")


def rows_of(**columns: Any) -> list[tuple[object, ...]]:
    """Every third patient is positive; a column is a function of the number of the patient."""
    header = ("image", "caries", "patient_id", *columns)
    rows: list[tuple[object, ...]] = [header]
    for number in range(2 * PATIENTS):
        patient = number // 2
        values = [make(patient) for make in columns.values()]
        rows.append((f"{number:02}.png", int(patient % 3 == 0), f"P{patient:02}", *values))
    return rows


def label(films: PreparedDataset, rows: list[tuple[object, ...]], salt: bytes = SALT) -> LabelledFilms:
    path = write_csv(films.source / "some.csv", *rows)
    return attach_labels(films, films.source, path, "caries", salt)


def images(part: tuple[LabelledFilm, ...]) -> set[str]:
    return {film.image for film in part}


def parts(splits: Splits) -> tuple[set[str], set[str], set[str]]:
    return images(splits.train), images(splits.val), images(splits.test)


@settings(deadline=None, max_examples=60)
@given(classes=st.lists(st.integers(0, 2), min_size=5, max_size=60), folds=st.integers(2, 5), seed=st.integers(0, 5))
def test_folds_are_of_one_size_in_all_and_in_each_class(classes: list[int], folds: int, seed: int) -> None:
    labels = {f"p{number}": own for number, own in enumerate(classes)}
    drawn = assign_folds(labels, folds, seed)
    assert drawn == assign_folds(dict(reversed(labels.items())), folds, seed)
    assert drawn.keys() == labels.keys()
    for members in (set(labels), *({name for name in labels if labels[name] == own} for own in set(classes))):
        counts = [sum(drawn[name] == fold for name in members) for fold in range(folds)]
        assert max(counts) - min(counts) <= 1


@settings(deadline=None, max_examples=60)
@given(
    classes=st.lists(st.integers(0, 1), min_size=1, max_size=80),
    small=st.floats(0.001, 1),
    large=st.floats(0.001, 1),
    seed=st.integers(0, 5),
)
def test_a_larger_share_holds_the_smaller_one(classes: list[int], small: float, large: float, seed: int) -> None:
    labels = {f"p{number}": own for number, own in enumerate(classes)}
    small, large = sorted((small, large))
    few, many = (first_of_each_class(labels, share, seed) for share in (small, large))
    assert few <= many
    assert first_of_each_class(labels, 1.0, seed) == labels.keys()
    for own in set(classes):
        count = sum(label == own for label in labels.values())
        drawn = sum(labels[name] == own for name in few)
        assert drawn >= 1
        assert abs(drawn - small * count) <= 1


def test_each_patient_is_tested_in_one_fold(films: PreparedDataset) -> None:
    labelled = label(films, rows_of())
    tested: Counter[str] = Counter()
    for fold in range(4):
        train, val, test = parts(split_films(labelled, **DRAW, folds=4, fold=fold))
        assert len(train | val | test) == len(train) + len(val) + len(test) == 2 * PATIENTS
        assert len(val) == 8, "a fifth of all patients, not of those who are left"
        tested.update(test)
    assert set(tested.values()) == {1}
    assert len(tested) == 2 * PATIENTS


def test_with_a_split_column_the_test_stays_and_the_validation_goes_round(films: PreparedDataset) -> None:
    words = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    labelled = label(films, rows_of(split=lambda patient: words[patient]))
    checked: Counter[str] = Counter()
    for fold in range(4):
        train, val, test = parts(split_films(labelled, **DRAW, folds=4, fold=fold))
        assert test == {f"{number:02}.png" for number in range(32, 40)}
        assert not train & val
        checked.update(val)
    assert set(checked.values()) == {1}
    assert len(checked) == 32


def test_draws_do_not_depend_on_rows_or_salt(films: PreparedDataset) -> None:
    rows = rows_of(site=lambda patient: SITES[patient % 4], date=lambda patient: f"2024-01-{patient + 1:02}")
    turned = [rows[0], *reversed(rows[1:])]
    for chosen in (
        {"folds": 3, "fold": 1},
        {"split_by": "site"},
        {"split_by": "site", "folds": 2},
        {"split_by": "date"},
    ):
        first = split_films(label(films, rows), **DRAW, **chosen)
        second = split_films(label(films, turned, bytes(32)), **DRAW, **chosen)
        assert parts(first) == parts(second)


def test_whole_sites_are_held_out(films: PreparedDataset) -> None:
    site_of = {f"{number:02}.png": SITES[number // 2 % 4] for number in range(2 * PATIENTS)}
    labelled = label(films, rows_of(site=lambda patient: SITES[patient % 4]))
    held = set()
    for seed in range(8):
        train, val, test = parts(split_films(labelled, **{**DRAW, "seed": seed}, split_by="site"))
        sites = {site_of[image] for image in test}
        assert len(sites) == 1, "a fifth of the patients is nearest to one site of four"
        assert not sites & {site_of[image] for image in train | val}
        held |= sites
    assert len(held) > 1
    tested = [parts(split_films(labelled, **DRAW, split_by="site", folds=4, fold=fold))[2] for fold in range(4)]
    assert sorted(len(test) for test in tested) == [10, 10, 10, 10]
    assert len(set().union(*tested)) == 2 * PATIENTS


def test_a_patient_of_two_sites_is_not_trained_on_where_one_is_held_out(films: PreparedDataset) -> None:
    rows = rows_of(site=lambda patient: SITES[patient % 4])
    rows[1] = (*rows[1][:3], "Graz")
    labelled = label(films, rows)
    for seed in range(8):
        splits = split_films(labelled, **{**DRAW, "seed": seed}, split_by="site")
        held = {film.site for film in splits.test if film.image not in ("00.png", "01.png")}
        assert not held & {film.site for film in (*splits.train, *splits.val)}
        patients = [{film.patient_id for film in part} for part in (splits.train, splits.val, splits.test)]
        assert sum(map(len, patients)) == PATIENTS


def test_the_newest_patients_are_the_test(films: PreparedDataset) -> None:
    labelled = label(films, rows_of(date=lambda patient: f"2024{patient % 12 + 1:02}15"))
    splits = split_films(labelled, **DRAW, split_by="date")
    newest_trained = max(film.date for film in (*splits.train, *splits.val))
    assert newest_trained < min(film.date for film in splits.test)
    assert len({film.patient_id for film in splits.test}) >= 4


def test_sites_and_dates_by_themselves() -> None:
    sites = {"a": {"1", "2", "3", "4"}, "b": {"5"}, "c": {"6", "7"}}
    assert site_folds(sites, 2, seed=0)["a"] != site_folds(sites, 2, seed=0)["b"]
    assert len(held_out_sites(sites, 0.01, seed=0)) == 1
    assert newest({"p": "20240101", "q": "20240102", "r": "20240102"}, 0.3) == {"q", "r"}
    assert newest({"p": "20240101", "q": "20240102"}, 0.0) == set()


@pytest.mark.parametrize(
    ("columns", "chosen", "said"),
    [
        ({}, {"folds": 3, "fold": 3}, "data.fold 3 is none of the 3 folds"),
        ({}, {"fold": 1}, "data.fold 1 says nothing without data.folds"),
        ({}, {"folds": 50}, "data.folds 50 is more than the 20 patients"),
        ({}, {"folds": 2, "split_by": "date"}, "data.folds cannot be had with data.split_by=date"),
        ({}, {"split_by": "site"}, "has no column 'site', which data.split_by=site needs"),
        ({}, {"split_by": "date"}, "has no column 'date', which data.split_by=date needs"),
        ({"site": lambda patient: "Bern"}, {"split_by": "site"}, "needs films of two sites or more"),
        ({"site": lambda patient: SITES[patient % 4]}, {"split_by": "site", "folds": 5}, "more than the 4 sites"),
        ({"site": lambda patient: SITES[0] if patient else ""}, {"split_by": "site"}, "row 2: the cell under 'site'"),
        ({"date": lambda patient: "2024-01-01"}, {"split_by": "date"}, "the oldest day alone"),
        ({"date": lambda patient: "" if patient == 3 else "2024-01-01"}, {"split_by": "date"}, "row 8: the cell under"),
        ({"split": lambda patient: "test"}, {"split_by": "site"}, "its split column decides"),
        ({"site": lambda p: SITES[p % 2]}, {"split_by": "site", "val_fraction": 0.6}, "leaves none of the others"),
    ],
)
def test_draws_that_cannot_be_had(
    columns: dict[str, Any], chosen: dict[str, Any], said: str, films: PreparedDataset
) -> None:
    with pytest.raises(MimError, match=said) as caught:
        split_films(label(films, rows_of(**columns)), **{**DRAW, **chosen})
    assert "\n" not in str(caught.value)


def test_a_date_that_is_none_is_named_by_its_row_only(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match="row 4: what stands under 'date' is no date such as") as caught:
        label(films, rows_of(date=lambda patient: "17.5.2024" if patient == 1 else "2024-05-17"))
    assert "17.5" not in str(caught.value)


def test_what_a_share_of_the_labels_leaves_out_is_written_down(films: PreparedDataset, tmp_path: Path) -> None:
    splits = split_films(label(films, rows_of()), **DRAW)
    before: set[str] = set()
    for share in (0.01, 0.1, 0.3, 0.6, 1.0):
        taken = take_label_fraction(splits, share, seed=3)
        assert before <= images(taken.train)
        before = images(taken.train)
        assert (taken.val, taken.test) == (splits.val, splits.test)
        assert {film.label for film in taken.train} == {0, 1}
        assert images(taken.train) | images(taken.unused) == images(splits.train)
    assert images(take_label_fraction(splits, 0.3, seed=3).train) != images(take_label_fraction(splits, 0.3, 4).train)
    taken = take_label_fraction(splits, 0.1, seed=3)
    digest = save_splits(tmp_path / "splits.csv", taken)
    written = load_splits(tmp_path / "splits.csv")
    assert Counter(row.split for row in written) == {"train": 4, "val": 8, "test": 8, "unused": 20}
    assert digest == split_hash(taken) == split_hash(written) != split_hash(splits)
