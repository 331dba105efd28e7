from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png

from mim.config import AugmentConfig
from mim.data import LabelledFilms, PreparedDataset, Splits, attach_labels, salted_hash
from mim.data.annotations import Lesion
from mim.data.augment import evaluation_transform, train_transform
from mim.data.clinical import ClinicalEncoding, ClinicalTable, read_clinical
from mim.data.loader import evaluation_loader, to_float, train_loader
from mim.data.studies import ABSENT, Study, group_studies, split_studies
from mim.data.study_loader import StudyDataset
from mim.errors import MimError

COLUMNS = ("image", "patient_id", "study_id", "series_order", "caries")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("studies")
    for number in range(10):
        write_png(root / "films" / f"{number}.png", pattern(number))
    return store_films(root / "films", root / "out")


def attach(films: PreparedDataset, *rows: tuple[Any, ...], columns: Iterable[str] = COLUMNS) -> LabelledFilms:
    write_csv(films.source / "labels.csv", tuple(columns), *rows)
    return attach_labels(films, films.source, "labels.csv", "caries", SALT)


def group(films: PreparedDataset, *rows: tuple[Any, ...], columns: Iterable[str] = COLUMNS, **how: Any) -> list[Study]:
    return list(group_studies(films, films.source, attach(films, *rows, columns=columns), SALT, **how))


def test_films_are_grouped_by_study_and_stand_in_their_order(films: PreparedDataset) -> None:
    studies = group(
        films,
        *(("3.png", "A", "x", 10, 1), ("1.png", "A", "x", 9, 1), ("2.png", "A", "x", "", 1)),
        *(("0.png", "A", "y", 1, 0), ("4.png", "B", "z", 2, 0), ("5.png", "B", "z", 1, 0)),
    )
    assert [study.films for study in studies] == [(0,), (1, 3, 2), (5, 4)]
    assert [study.label for study in studies] == [0, 1, 0]
    assert [study.study_id for study in studies] == [salted_hash(SALT, own) for own in "yxz"]
    assert [study.patient_id for study in studies] == [salted_hash(SALT, own) for own in "AAB"]
    assert studies[1].lines == (3, 2, 4)


def test_numbers_of_studies_are_each_patients_own(films: PreparedDataset, caplog: pytest.LogCaptureFixture) -> None:
    studies = group(films, ("0.png", "A", 1, 1, 1), ("1.png", "B", 1, 1, 0), ("2.png", "B", 1, 2, 0))
    assert [study.films for study in studies] == [(0,), (1, 2)]
    assert "1 study ids stand with more than one patient" in caplog.text


def test_without_columns_the_header_counts_and_then_the_patient(tmp_path: Path) -> None:
    for number, (patient, study) in enumerate((("A", "1.2"), ("A", "1.2"), ("A", "1.3"), ("B", "1.4"))):
        write_dicom(
            tmp_path / "films" / f"{number}.dcm", pattern(number).astype(int) * 16, patient=patient, study=study
        )
    write_png(tmp_path / "films" / "4.png", pattern(4))
    write_png(tmp_path / "films" / "5.png", pattern(5))
    films = store_films(tmp_path / "films", tmp_path / "out")
    rows = [(f"{number}.dcm", "", number % 2) for number in range(4)] + [("4.png", "C", 1), ("5.png", "C", 0)]
    studies = group(films, *rows, columns=("image", "patient_id", "caries"), label="any")
    assert [study.films for study in studies] == [(0, 1), (2,), (3,), (4, 5)]
    assert [study.label for study in studies] == [1, 0, 1, 1]
    assert [study.film_labels for study in studies] == [(0, 1), (0,), (1,), (1, 0)]


def test_labels_of_a_study_must_agree_unless_any_counts(films: PreparedDataset) -> None:
    rows = [("0.png", "A", "x", 1, 0), ("1.png", "A", "x", 2, 1), ("2.png", "A", "x", 3, ""), ("3.png", "B", "y", 1, 0)]
    with pytest.raises(MimError, match=r"rows 2 and 3 are of one study and differ under 'caries'.*study_label=any"):
        group(films, *rows)
    studies = group(films, *rows, label="any")
    assert [(study.films, study.label) for study in studies] == [((0, 1, 2), 1), ((3,), 0)]
    assert studies[0].film_labels == (0, 1, ABSENT)


def test_a_film_that_is_not_there_is_absent_from_its_study(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        *(("0.png", "A", "x", 1, 0), ("gone.png", "A", "x", 2, 0), ("1.png", "A", "x", 3, 0)),
        *(("2.png", "B", "y", 1, 1), ("lost.png", "B", "", 2, ""), ("nowhere.png", "", "", "", 1)),
        ("never.png", "D", "w", 1, 1),
    ]
    caplog.set_level("INFO")
    studies = group(films, *rows)
    assert [study.films for study in studies] == [(0, ABSENT, 1), (2, ABSENT)]
    assert studies[1].film_labels == (1, ABSENT)
    assert "of 2 films that are absent the study cannot be told" in caplog.text
    assert "nowhere" not in caplog.text


def test_of_long_studies_films_at_even_distances_are_kept(films: PreparedDataset) -> None:
    rows = [(f"{number}.png", "A", "x", number, 1) for number in range(9)]
    rows += [("gone.png", "A", "x", 4, 1), ("9.png", "B", "y", 1, 0)]
    assert group(films, *rows, max_films=5)[0].films == (0, 2, 4, 6, 8)
    assert group(films, *rows, max_films=9)[0].films == tuple(range(9))
    assert ABSENT in group(films, *rows, max_films=10)[0].films
    assert group(films, *rows, max_films=1)[0].films == (0,)


def test_an_order_that_is_no_number_is_refused(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match="row 3: what stands under 'series_order' is no whole number"):
        group(films, ("0.png", "A", "x", 1, 0), ("1.png", "A", "x", "two", 1))


def test_a_film_in_two_studies_is_refused(films: PreparedDataset) -> None:
    with pytest.raises(MimError, match="rows 2 and 3 name the same film but differ under 'study_id'"):
        group(films, ("0.png", "A", "x", 1, 0), ("0.png", "A", "y", 1, 0), ("1.png", "B", "z", 1, 1))


def splits_of(labelled: LabelledFilms, train: str, val: str, test: str) -> Splits:
    def chosen(patients: str) -> tuple[Any, ...]:
        return tuple(f for f in labelled.films if f.patient_id in {salted_hash(SALT, own) for own in patients})

    return Splits(chosen(train), chosen(val), chosen(test), labelled.classes)


def test_studies_go_where_their_patients_are(films: PreparedDataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(f"{n}.png", "AABBCCDDEE"[n], n, 1, n // 2 % 2) for n in range(10)]
    labelled = attach(films, *rows)
    studies = group_studies(films, films.source, labelled, SALT)
    splits = split_studies(studies, splits_of(labelled, "AB", "C", "D"), labelled.path)
    assert [study.films[0] for study in splits.train] == [0, 1, 2, 3]
    assert [study.films[0] for study in splits.val] == [4, 5]
    assert [study.films[0] for study in splits.test] == [6, 7]
    assert splits.classes == ("0", "1")
    assert "the validation has only studies of class 0" in caplog.text
    with pytest.raises(MimError, match="the training has only studies of class 0"):
        split_studies(studies, splits_of(labelled, "A", "C", "D"), labelled.path)


def two_studies(films: PreparedDataset) -> list[Study]:
    rows = [
        ("0.png", "A", "x", 1, 0),
        ("gone.png", "A", "x", 2, 0),
        ("1.png", "A", "x", 3, 0),
        ("2.png", "B", "y", 1, 1),
    ]
    return group(films, *rows)


@pytest.mark.parametrize("integers", [False, True])
def test_a_batch_is_padded_to_its_longest_study(films: PreparedDataset, integers: bool) -> None:
    lesion = Lesion((0.0, 0.0, 0.5, 1.0), "caries", 0, "", None, "", 1.0, None)
    features = np.array([[1, np.nan], [2, 3]], np.float32)
    dataset = StudyDataset(
        *(films, two_studies(films), evaluation_transform((20, 30)), 1),
        integers=integers,
        lesions={1: (lesion,)},
        features=features,
    )
    batch = next(iter(evaluation_loader(dataset, batch_size=2, workers=0)))
    assert batch["image"].shape == (2, 3, 1, 20, 30)
    assert batch["image"].dtype == (torch.uint8 if integers else torch.float32)
    assert batch["present"].tolist() == [[True, False, True], [True, False, False]]
    assert batch["film"].tolist() == [[0, ABSENT, 1], [2, ABSENT, ABSENT]]
    assert batch["film_label"].tolist() == [[0, 0, 0], [1, ABSENT, ABSENT]]
    assert batch["label"].tolist() == [0, 1]
    assert not batch["image"][~batch["present"]].any()
    for study, place in zip(*torch.nonzero(batch["present"], as_tuple=True), strict=True):
        levels = films.levels(int(batch["film"][study, place]))
        pixels = evaluation_transform((20, 30))(levels.full, half=levels.half)
        torch.testing.assert_close(to_float(batch["image"][study, place, 0]), to_float(torch.from_numpy(pixels)))
    assert batch["lesion"].sum(dim=(2, 3, 4)).tolist() == [[0, 0, 300], [0, 0, 0]]
    np.testing.assert_array_equal(batch["features"], features)


def test_sixteen_bits_are_stored_and_padded_alike(films: PreparedDataset, tmp_path: Path) -> None:
    deep = store_films(films.source, tmp_path / "deep", bits=16)
    dataset = StudyDataset(deep, two_studies(films), evaluation_transform((20, 30)), 1, integers=True)
    batch = next(iter(evaluation_loader(dataset, batch_size=2, workers=0)))
    assert batch["image"].dtype == torch.uint16
    assert to_float(batch["image"]).max() > 0.5


def test_batches_of_studies_do_not_depend_on_the_workers(films: PreparedDataset) -> None:
    augment = train_transform(AugmentConfig(vertical_flip=0.5), (16, 24))
    dataset = StudyDataset(films, two_studies(films), augment, 4)
    plan = {"batch_size": 2, "seed": 1, "world": 1, "rank": 0, "accumulate": 1, "start_step": 0, "total_steps": 3}
    one, other = (list(train_loader(dataset, **plan, workers=workers)) for workers in (0, 1))
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    whole = dataset[0, 0]["image"]
    assert not torch.equal(whole, dataset[1, 0]["image"])


def test_a_study_of_nothing_is_refused(films: PreparedDataset) -> None:
    empty = Study("x", "A", 1, (ABSENT,), (ABSENT,), (2,))
    with pytest.raises(ValueError, match="without films"):
        StudyDataset(films, [empty], evaluation_transform((8, 8)), 0)
    with pytest.raises(ValueError, match="1 rows of features for 2 studies"):
        StudyDataset(
            *(films, two_studies(films), evaluation_transform((8, 8)), 0), features=np.zeros((1, 2), np.float32)
        )


CLINICAL = ("image", "patient_id", "study_id", "age", "site", "caries")
CLINICAL_ROWS = (
    *(("0.png", "A", "x", 30, "north", 0), ("1.png", "A", "x", "", "north", 0)),
    *(("2.png", "B", "y", 50, "south", 1), ("3.png", "C", "z", "", "", 1), ("4.png", "D", "w", 90, "west", 0)),
)


def clinical(films: PreparedDataset, *columns: str) -> tuple[LabelledFilms, ClinicalTable]:
    labelled = attach(films, *CLINICAL_ROWS, columns=CLINICAL)
    return labelled, read_clinical(labelled, columns)


def test_clinical_columns_become_numbers_by_the_training_rows_alone(films: PreparedDataset) -> None:
    labelled, table = clinical(films, "age", "site")
    rows = table.of_films(labelled.films)
    encoding = ClinicalEncoding.fit(table, rows[:3])
    assert encoding.names == ("age", "site=north", "site=south")
    nan = np.nan
    wanted = [[30, 1, 0], [nan, 1, 0], [50, 0, 1], [nan, nan, nan], [90, 0, 0]]
    np.testing.assert_array_equal(encoding.encode(rows, standardise=False), wanted)
    standardised = encoding.encode(rows)
    np.testing.assert_allclose(standardised[:, 0], [-1, nan, 1, nan, 5])
    np.testing.assert_array_equal(standardised[:, 1:], np.array(wanted)[:, 1:])
    assert standardised.dtype == np.float32
    assert ClinicalEncoding.from_dict(encoding.to_dict()) == encoding


def test_a_study_has_the_value_of_its_rows(films: PreparedDataset) -> None:
    labelled, table = clinical(films, "age", "site")
    studies = group_studies(films, films.source, labelled, SALT)
    assert table.of_studies(studies) == [("30", "north"), ("50", "south"), ("", ""), ("90", "west")]
    rows = [(*row[:3], 31 if row[0] == "1.png" else row[3], *row[4:]) for row in CLINICAL_ROWS]
    labelled = attach(films, *rows, columns=CLINICAL)
    with pytest.raises(MimError, match="rows 2 and 3 are of one study and differ under 'age'") as caught:
        read_clinical(labelled, ["age"]).of_studies(group_studies(films, films.source, labelled, SALT))
    assert "31" not in str(caught.value)


def test_columns_that_cannot_be_used_are_named(films: PreparedDataset) -> None:
    for column, wanted in (
        ("caries", "is the label"),
        ("patient_id", "is no clinical column"),
        ("ages", "did you mean"),
    ):
        with pytest.raises(MimError, match=wanted) as caught:
            clinical(films, column)
        assert "data.clinical" in str(caught.value)
    with pytest.raises(MimError, match="twice"):
        clinical(films, "age", "age")
    labelled, table = clinical(films, "age")
    with pytest.raises(MimError, match="'age' is empty in all training rows"):
        ClinicalEncoding.fit(table, table.of_films(labelled.films[3:4]))
    for age, wanted in (("forty", "row 4: what stands under 'age' is no number"), ("inf", "row 4"), ("nan", "row 4")):
        rows = [(*row[:3], age if row[0] == "2.png" else 7, *row[4:]) for row in CLINICAL_ROWS]
        labelled = attach(films, *rows, columns=CLINICAL)
        table = read_clinical(labelled, ["age"])
        with pytest.raises(MimError, match=wanted) as caught:
            ClinicalEncoding.fit(table, table.of_films(labelled.films))
        assert age not in str(caught.value).replace("finite", "")
    names = ClinicalTable(Path("labels.csv"), ("name",), {line: (f"name {line}",) for line in range(60)})
    with pytest.raises(MimError, match="'name' holds 60 different words, more than 50"):
        ClinicalEncoding.fit(names, list(names.cells.values()))
    with pytest.raises(ValueError, match="no encoding"):
        ClinicalEncoding.from_dict({"columns": [{}]})
    constant = ClinicalTable(Path("labels.csv"), ("dose",), {2: ("3",), 3: ("3",)})
    assert ClinicalEncoding.fit(constant, [("3",)]).encode([("3",), ("4",)]).tolist() == [[0], [1]]
