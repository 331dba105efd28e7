import logging
from pathlib import Path

import numpy as np
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.data import (
    LabelledFilm,
    LabelledFilms,
    PreparedDataset,
    Splits,
    attach_labels,
    check_unseen,
    count_copies,
    excluded_from_pretraining,
    limit_training,
    load_seen,
    load_splits,
    salted_hash,
    save_seen,
    save_splits,
    split_films,
    split_hash,
)
from mim.data.drawing import assign_splits
from mim.errors import MimError

DRAW = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}
OTHER_SALT = bytes(32)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("splits")
    for number in range(30):
        write_png(root / "films" / f"{number:02}.png", pattern(number))
    write_png(root / "films" / "copy_of_00.png", pattern(0))
    for number in range(3):
        write_dicom(root / "films" / f"d{number}.dcm", pattern(100 + number), patient="SAME")
    return store_films(root / "films", root / "prepared")


def make_csv(films: PreparedDataset, splits: str = "", name: str = "labels.csv", patients: int = 15) -> Path:
    """Label 30 films: two a patient, every third patient positive; `splits` holds a letter a patient."""
    words = {"t": "train", "v": "validation", "e": "test"}
    header = ("image", "caries", "patient_id", *(["split"] if splits else []))
    rows = []
    for number in range(2 * patients):
        patient = number // 2
        split = [words[splits[patient]]] if splits else []
        rows.append((f"{number:02}.png", int(patient % 3 == 0), f"P{patient}", *split))
    return write_csv(films.source / name, header, *rows)


def label(films: PreparedDataset, splits: str = "", salt: bytes = SALT) -> LabelledFilms:
    return attach_labels(films, films.source, make_csv(films, splits, "some.csv").name, "caries", salt)


def images(part: tuple[LabelledFilm, ...]) -> list[str]:
    return [film.image for film in part]


def patients(part: tuple[LabelledFilm, ...]) -> set[str]:
    return {film.patient_id for film in part}


@settings(deadline=None, max_examples=60)
@given(
    classes=st.lists(st.integers(0, 1), min_size=1, max_size=80),
    val=st.floats(0, 0.45),
    test=st.floats(0, 0.45),
    seed=st.integers(0, 5),
)
def test_every_patient_gets_one_split_in_about_the_shares_asked_for(
    classes: list[int], val: float, test: float, seed: int
) -> None:
    labels = {f"p{number}": own for number, own in enumerate(classes)}
    drawn = assign_splits(labels, val_fraction=val, test_fraction=test, seed=seed)
    assert drawn.keys() == labels.keys()
    backwards = assign_splits(dict(reversed(labels.items())), val_fraction=val, test_fraction=test, seed=seed)
    assert drawn == backwards
    for own in set(classes):
        members = [name for name in labels if labels[name] == own]
        found = [drawn[name] for name in members]
        assert "train" in found
        for split, share in (("val", val), ("test", test)):
            assert abs(found.count(split) - len(members) * share) <= 1
            if share > 0 and len(members) >= 3:
                assert split in found


def test_another_seed_draws_others() -> None:
    labels = {f"p{number}": number % 2 for number in range(40)}
    draws = [assign_splits(labels, val_fraction=0.2, test_fraction=0.2, seed=seed) for seed in (0, 1)]
    assert draws[0] != draws[1]
    assert draws[0] == assign_splits(labels, val_fraction=0.2, test_fraction=0.2, seed=0)


def test_without_a_split_column_patients_are_drawn(films: PreparedDataset) -> None:
    splits = split_films(label(films), **DRAW)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [18, 6, 6]
    groups = [patients(part) for part in (splits.train, splits.val, splits.test)]
    assert sum(len(group) for group in groups) == len(set().union(*groups)) == 15
    assert all(len({film.label for film in part}) == 2 for part in (splits.train, splits.val, splits.test))


def test_the_draw_does_not_depend_on_the_salt(films: PreparedDataset) -> None:
    one, other = (limit_training(split_films(label(films, salt=salt), **DRAW), 8, 0) for salt in (SALT, OTHER_SALT))
    assert patients(one.test) != patients(other.test)
    for part in ("train", "val", "test"):
        assert images(getattr(one, part)) == images(getattr(other, part))


def test_the_split_column_decides(films: PreparedDataset) -> None:
    splits = split_films(label(films, "tttttttttvvveee"), **DRAW)
    assert images(splits.train) == [f"{number:02}.png" for number in range(18)]
    assert images(splits.val) == [f"{number:02}.png" for number in range(18, 24)]
    assert images(splits.test) == [f"{number:02}.png" for number in range(24, 30)]


def test_validation_is_drawn_from_training_where_the_column_names_none(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    splits = split_films(label(films, "tttttttttttteee"), **DRAW)
    assert images(splits.test) == [f"{number:02}.png" for number in range(24, 30)]
    assert len(splits.val) == 6
    assert patients(splits.val).isdisjoint(patients(splits.train))
    assert "6 of its 24 training films were drawn" in caplog.text


def test_a_split_column_without_test_stops(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match="has no test films: add some, or remove it"):
        split_films(label(films, "tttttttttvvvvvv"), **DRAW)


def test_a_patient_in_two_splits_stops_with_his_hash_and_the_rows(films: PreparedDataset) -> None:
    path = make_csv(films, "tttttttttvvveee", "some.csv")
    path.write_text(path.read_text().replace("29.png,0,P14", "29.png,0,P2"))
    labelled = attach_labels(films, films.source, path, "caries", SALT)
    with pytest.raises(MimError, match=r"is in train in row 6 and in test in row 31") as caught:
        split_films(labelled, **DRAW)
    assert salted_hash(SALT, "P2") in str(caught.value)
    assert "P2 " not in str(caught.value)


def test_training_must_hold_both_classes(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match=r"training films have only one class under 'caries' \(0\)"):
        split_films(label(films, "vttettvttettvte"), **DRAW)


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ((0.5, 0.5), "leave no patients for training"),
        ((0.0, 0.2), "data.val_fraction"),
        ((0.2, 0.0), "data.test_fraction"),
    ],
)
def test_shares_that_leave_a_split_empty_stop(
    fractions: tuple[float, float], said: str, films: PreparedDataset
) -> None:
    with pytest.raises(MimError, match=said):
        split_films(label(films), val_fraction=fractions[0], test_fraction=fractions[1], seed=0)


def copied_row(films: PreparedDataset) -> LabelledFilms:
    path = make_csv(films, "tttttttttvvveee", "some.csv")
    path.write_text(path.read_text() + "copy_of_00.png,1,P99,test\n")
    return attach_labels(films, films.source, path, "caries", SALT)


def test_a_test_film_with_the_pixels_of_a_training_film_stops_or_is_told(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    labelled = copied_row(films)
    with pytest.raises(MimError, match=r"1 validation or test films have the same pixels .* rows 2 and 32\)") as caught:
        split_films(labelled, **DRAW)
    assert "data.copies_across_splits=report" in str(caught.value)
    assert ".png" not in str(caught.value)
    splits = split_films(labelled, **DRAW, copies="report")
    assert "1 validation or test films have the same pixels" in caplog.text
    assert count_copies(splits) == 1


def test_patients_who_share_a_film_are_drawn_together(films: PreparedDataset) -> None:
    path = make_csv(films, "", "some.csv")
    path.write_text(path.read_text() + "copy_of_00.png,1,P99\n")
    labelled = attach_labels(films, films.source, path, "caries", SALT)
    places = set()
    for seed in range(12):
        splits = split_films(labelled, **{**DRAW, "seed": seed})
        of = {image: name for name in ("train", "val", "test") for image in images(getattr(splits, name))}
        assert of["00.png"] == of["01.png"] == of["copy_of_00.png"]
        places.add(of["00.png"])
    assert len(places) > 1, "the seeds tried put them into more than one split"


def test_films_of_one_even_grey_are_no_copies(tmp_path: Path) -> None:
    for number in range(12):
        write_png(tmp_path / "films" / f"{number:02}.png", np.zeros((20, 20 + number), np.uint8))
    rows = [(f"{number:02}.png", number % 2, ("train", "val", "test")[number // 4]) for number in range(12)]
    path = write_csv(tmp_path / "films" / "some.csv", ("image", "caries", "split"), *rows)
    blank = store_films(tmp_path / "films", tmp_path / "prepared")
    assert len({row.content for row in blank.rows}) == 1
    splits = split_films(attach_labels(blank, blank.source, path, "caries", SALT), **DRAW)
    assert count_copies(splits) == 0


def test_limits_are_nested_whole_patients_and_keep_both_classes(films: PreparedDataset) -> None:
    splits = split_films(label(films), **DRAW)
    smaller: set[str] = set()
    for limit in range(4, 19):
        limited = limit_training(splits, limit, seed=3)
        kept = set(images(limited.train))
        assert smaller <= kept
        assert limit - 1 <= len(kept) <= limit
        assert len(kept) == 2 * len(patients(limited.train))
        assert {film.label for film in limited.train} == {0, 1}
        assert (limited.val, limited.test) == (splits.val, splits.test)
        smaller = kept
    assert limit_training(splits, None, seed=3) == limit_training(splits, 1000, seed=3) == splits
    assert images(limit_training(splits, 8, seed=3).train) != images(limit_training(splits, 8, seed=4).train)
    with pytest.raises(MimError, match="train_limit 3 is too small"):
        limit_training(splits, 3, seed=3)


def test_splits_are_read_back_and_hashed_whatever_their_order(films: PreparedDataset, tmp_path: Path) -> None:
    splits = split_films(label(films), **DRAW)
    digest = save_splits(tmp_path / "splits.csv", splits)
    rows = load_splits(tmp_path / "splits.csv")
    assert (tmp_path / "splits.csv").read_text().splitlines()[0] == "image_id,patient_id,split,label"
    assert len(rows) == 30
    assert digest == split_hash(splits) == split_hash(rows) == split_hash(rows[::-1])
    moved = Splits(splits.train[1:], splits.val, (*splits.test, splits.train[0]), splits.classes)
    assert split_hash(moved) != digest
    assert ".png" not in (tmp_path / "splits.csv").read_text()


def excluded(films: PreparedDataset, exclude: str, source: Path | None = None) -> list[str]:
    found = excluded_from_pretraining(films, source or films.source, exclude, SALT)
    return sorted(films.rows[number].image for number in found)


TEST_FILMS = [f"{number:02}.png" for number in range(24, 30)]


def test_pretraining_leaves_out_the_test_split_of_the_labels_beside_the_films(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = make_csv(films, "tttttttttvvveee")
    try:
        assert excluded(films, "auto") == TEST_FILMS
        assert f"6 of 34 films are left out of pretraining: the test split of {path}" in caplog.text
        assert excluded(films, "auto", films.path) == TEST_FILMS
        assert excluded(films, "none") == []
    finally:
        path.unlink()
    assert excluded(films, "auto") == []
    above = make_csv(films, "tttttttttvvveee", "../labels.csv")
    above.write_text(above.read_text().replace("\n", "\nfilms/").removesuffix("films/"))
    try:
        assert excluded(films, "auto") == TEST_FILMS
    finally:
        above.unlink()


def test_films_of_a_test_patient_and_copies_of_test_films_are_left_out_too(films: PreparedDataset) -> None:
    write_csv(films.source / "by.csv", ("image", "split"), ("00.png", "test"), ("d1.dcm", "test"), ("05.png", "train"))
    assert excluded(films, "by.csv") == ["00.png", "copy_of_00.png", "d0.dcm", "d1.dcm", "d2.dcm"]
    write_csv(films.source / "by.csv", ("image", "split", "patient_id"), ("absent.png", "test", "SAME"))
    assert excluded(films, str(films.source / "by.csv")) == ["d0.dcm", "d1.dcm", "d2.dcm"]
    write_csv(
        films.source / "by.csv",
        ("image", "split", "patient_id"),
        *(("03.png", "test", "P1"), ("04.png", "", "P1"), ("05.png", "train", "P1"), ("06.png", "train", "P2")),
    )
    assert excluded(films, "by.csv") == ["03.png", "04.png", "05.png"]


def test_an_exclusion_that_cannot_be_read_stops(films: PreparedDataset, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MimError, match=r"absent\.csv: there is no such CSV"):
        excluded(films, "absent.csv")
    write_csv(films.source / "by.csv", ("image", "caries"), ("00.png", 1))
    with pytest.raises(MimError, match=r"no column 'split' \(data\.exclude\)"):
        excluded(films, "by.csv")
    write_csv(films.source / "by.csv", ("image", "split"), ("00.png", "tset"))
    with pytest.raises(MimError, match="row 2: split 'tset'"):
        excluded(films, "by.csv")
    path = write_csv(films.source / "labels.csv", ("image", "caries"), ("00.png", 1))
    try:
        assert excluded(films, "auto") == []
    finally:
        path.unlink()
    assert "labels.csv has no columns image and split" in caplog.text


def test_a_test_patient_met_in_pretraining_stops_or_is_counted(
    films: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    test = split_films(label(films, "tttttttttvvveee"), **DRAW).test
    save_seen(
        tmp_path / "clean.csv", films, [number for number, row in enumerate(films.rows) if row.image not in TEST_FILMS]
    )
    assert check_unseen(test, load_seen(tmp_path / "clean.csv"), films.salt_check, "stop") == 0
    save_seen(tmp_path / "all.csv", films, range(len(films)))
    seen = load_seen(tmp_path / "all.csv")
    with pytest.raises(
        MimError, match=r"6 of 6 test films, of 3 patients .*data\.exclude=.*seen_in_pretraining=report"
    ) as caught:
        check_unseen(test, seen, films.salt_check, "stop")
    assert test[0].patient_id in str(caught.value)
    assert check_unseen(test, seen, films.salt_check, "report") == 6
    assert "6 of 6 test films" in caplog.text
    assert ".png" not in (tmp_path / "all.csv").read_text()


def test_another_film_of_the_patient_and_another_store_are_recognised(
    films: PreparedDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [(f"{number:02}.png", number % 2, "train" if number < 8 else "val") for number in range(12)]
    path = write_csv(
        films.source / "some.csv", ("image", "caries", "split"), *rows, ("d0.dcm", 1, "test"), ("00.png", 1, "test")
    )
    path.write_text(path.read_text().replace("00.png,0,train\n", ""))
    test = split_films(attach_labels(films, films.source, path, "caries", SALT), **DRAW).test
    numbers = {row.image: number for number, row in enumerate(films.rows)}
    save_seen(tmp_path / "seen.csv", films, [numbers["d2.dcm"]])
    assert check_unseen(test, load_seen(tmp_path / "seen.csv"), films.salt_check, "report") == 1
    reduced = store_films(films.source, tmp_path / "reduced", long_side=24, bits=16)
    save_seen(tmp_path / "seen.csv", reduced, [numbers["copy_of_00.png"]])
    assert check_unseen(test, load_seen(tmp_path / "seen.csv"), films.salt_check, "report") == 1
    assert "different salts" not in caplog.text
    save_seen(tmp_path / "seen.csv", films, [numbers["d2.dcm"]])
    assert check_unseen(test, load_seen(tmp_path / "seen.csv"), "other", "report") == 1
    assert "different salts" in caplog.text


def test_without_a_target_every_row_counts_and_patients_are_drawn_all_the_same(films: PreparedDataset) -> None:
    path = write_csv(
        films.source / "patients.csv",
        ("image", "patient_id"),
        *[(f"{number:02}.png", f"P{number // 2}") for number in range(30)],
    )
    labelled = attach_labels(films, films.source, path.name, None, SALT)
    assert len(labelled.films) == 30
    assert {film.label for film in labelled.films} == {0}
    assert len(labelled.classes) == 1
    splits = split_films(labelled, **DRAW)
    parts = [{film.patient_id for film in part} for part in (splits.train, splits.val, splits.test)]
    assert [len(part) for part in parts] == [9, 3, 3]
    assert len(set.union(*parts)) == 15
    assert len(limit_training(splits, 6, seed=0).train) == 6
