"""A split that is drawn once, before pretraining, and written into the table."""

import csv
from pathlib import Path

import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom

from mim.data import PreparedDataset, attach_labels, excluded_from_pretraining, split_films
from mim.data.write_splits import main

HEADER = ("image", "caries", "patient_id", "site")


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Two films of each of 12 patients, of which the last has no label."""
    rows: list[tuple[object, ...]] = [HEADER]
    for number in range(24):
        patient = number // 2
        write_dicom(tmp_path / "films" / f"{number:02}.dcm", pattern(number))
        label = "" if patient == 11 else patient % 2
        rows.append((f"{number:02}.dcm", label, f"P{patient}", ("Bern", "Graz", "Ulm")[patient % 3]))
    write_csv(tmp_path / "films" / "labels.csv", *rows)
    (tmp_path / ".salt").write_text(SALT.hex())
    store_films(tmp_path / "films", tmp_path / "prepared")
    return tmp_path / "prepared"


def rows_of(prepared: Path) -> list[dict[str, str]]:
    with (prepared.parent / "films" / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_what_is_written_is_what_fine_tuning_would_draw(prepared: Path) -> None:
    films = PreparedDataset.open(prepared)
    before = rows_of(prepared)
    drawn = split_films(
        attach_labels(films, prepared, "labels.csv", "caries", SALT), val_fraction=0.2, test_fraction=0.3, seed=5
    )
    assert main([str(prepared), "--target", "caries", "--test-fraction", "0.3", "--seed", "5"]) == 0
    after = rows_of(prepared)
    assert [{name: row[name] for name in HEADER} for row in after] == before
    assert {row["image"] for row in after if row["split"] == "test"} == {film.image for film in drawn.test}
    assert [row["split"] for row in after if not row["caries"]] == ["", ""]
    labelled = attach_labels(films, prepared, "labels.csv", "caries", SALT)
    again = split_films(labelled, val_fraction=0.9, test_fraction=0.9, seed=77)
    assert (again.train, again.val, again.test) != ((), (), ())
    assert [film.image for film in again.test] == [film.image for film in drawn.test]
    left_out = excluded_from_pretraining(films, prepared, "auto", SALT)
    assert {films.rows[number].image for number in left_out} == {film.image for film in drawn.test}


def test_whole_sites_can_be_written(prepared: Path) -> None:
    assert main([str(prepared), "--target", "caries", "--by", "site"]) == 0
    sites = {split: {row["site"] for row in rows_of(prepared) if row["split"] == split} for split in ("train", "test")}
    assert len(sites["test"]) == 1
    assert not sites["train"] & sites["test"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("films", "--target", "caries"), "is not a prepared dataset: make one with"),
        (("prepared", "--target", "carries"), "did you mean 'caries'?"),
        (("prepared", "--target", "caries", "--labels", "nowhere.csv"), "nowhere.csv: there is no such file"),
        (("prepared", "--target", "caries", "--by", "date"), "has no column 'date'"),
        (("prepared", "--target", "caries", "--val-fraction", "0.8"), "leave no patients for training"),
    ],
)
def test_what_cannot_be_drawn_changes_nothing(
    arguments: tuple[str, ...], said: str, prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = rows_of(prepared)
    assert main([str(prepared.parent / arguments[0]), *arguments[1:]]) == 2
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert said in errors[0]
    assert rows_of(prepared) == before


def test_a_split_is_not_drawn_over(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main([str(prepared), "--target", "caries"]) == 0
    before = rows_of(prepared)
    assert main([str(prepared), "--target", "caries", "--seed", "1"]) == 2
    assert "has a column 'split' already" in caplog.text
    assert rows_of(prepared) == before


def test_shares_out_of_range_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--target", "caries", "--val-fraction", "1.5"])
