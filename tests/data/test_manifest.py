from dataclasses import replace
from pathlib import Path

import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png

from mim.data import LabelledFilms, PreparedDataset, attach_labels, salted_hash
from mim.data.manifest import ManifestRow, read_manifest, write_manifest
from mim.data.tables import read_table
from mim.errors import MimError

ROW = ManifestRow("id", 'a/b, "c".png', 3, "patient", "", 7, 640, 480, 12, (0.1, 1 / 3), "IO", "ab" * 32, "cd" * 32)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("labels")
    for number in range(4):
        write_png(root / "films" / "left" / f"{number}.png", pattern(number))
    write_png(root / "films" / "right" / "0.png", pattern(10))
    write_dicom(root / "films" / "x.dcm", pattern(11), patient="HEADER")
    write_png(root / "films" / "broken.png", pattern(12)).write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    return store_films(root / "films", root / "prepared")


def label(films: PreparedDataset, *rows: tuple[object, ...], target: str = "caries") -> LabelledFilms:
    path = write_csv(films.source / "labels.csv", *rows)
    return attach_labels(films, films.source, path.name, target, SALT)


def images(labelled: LabelledFilms) -> dict[str, str]:
    return {film.image: labelled.classes[film.label] for film in labelled.films}


def test_a_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    rows = (ROW, replace(ROW, series_order=None, spacing_mm=None, image="Röntgen\udcff.png"))
    write_manifest(tmp_path / "manifest.csv", rows)
    assert read_manifest(tmp_path / "manifest.csv") == rows


@pytest.mark.parametrize(("old", "new", "said"), [("image_id,", "name,", "columns"), (",640,", ",wide,", "row 2")])
def test_a_damaged_manifest_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(path, [ROW])
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(MimError, match=said):
        read_manifest(path)


def test_labels_are_found_by_path_or_by_a_name_that_is_unique(films: PreparedDataset, tmp_path: Path) -> None:
    rows = [("image", "caries"), ("left/0.png", 0), ("left\\1.png", 1), ("2.png", 1), ("./x.dcm", 0)]
    expected = {"left/0.png": "0", "left/1.png": "1", "left/2.png": "1", "x.dcm": "0"}
    assert images(label(films, *rows)) == expected
    beside = write_csv(films.source.parent / "beside.csv", ("image", "caries"), ("films/left/0.png", 0), ("x.dcm", 1))
    assert images(attach_labels(films, films.source, beside, "caries", SALT)) == {"left/0.png": "0", "x.dcm": "1"}
    assert images(attach_labels(films, films.path, beside, "caries", SALT)) == {"left/0.png": "0", "x.dcm": "1"}
    far = write_csv(tmp_path / "far.csv", ("image", "caries"), (films.source / "x.dcm", 0), ("right/0.png", 1))
    assert images(attach_labels(films, films.source, far, "caries", SALT)) == {"x.dcm": "0", "right/0.png": "1"}


def test_a_name_that_two_films_have_is_not_guessed(films: PreparedDataset) -> None:
    labelled = label(films, ("image", "caries"), ("0.png", 0), ("1.png", 1), ("2.png", 0))
    assert labelled.missing == ("0.png",)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_what_spreadsheets_write_is_read(delimiter: str, films: PreparedDataset) -> None:
    lines = ["\ufeffimage , caries", "left/0.png, yes ", "", "left/1.png,no", "left/2.png,"]
    path = films.source / "labels.csv"
    path.write_bytes("\r\n".join(line.replace(",", delimiter) for line in lines).encode())
    labelled = attach_labels(films, films.source, "labels.csv", "caries", SALT)
    assert images(labelled) == {"left/0.png": "yes", "left/1.png": "no"}
    assert labelled.classes == ("no", "yes")
    assert labelled.unlabelled == 1


def test_numbers_are_sorted_as_numbers(films: PreparedDataset) -> None:
    assert label(films, ("image", "caries"), ("1.png", "10"), ("2.png", "9")).classes == ("9", "10")


def test_rows_without_a_film_are_counted_and_named(films: PreparedDataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ("image", "caries", "patient_id"),
        ("1.png", 0, "a"),
        ("2.png", 1, "b"),
        ("broken.png", 1, "c"),
        ("gone.png", 1, "d"),
    ]
    labelled = label(films, *rows)
    assert labelled.missing == ("broken.png", "gone.png")
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "2 rows" in warnings[0]
    assert "(rows 4, 5)" in warnings[0]


def test_the_patient_is_that_of_the_csv_else_of_the_header_else_the_film_itself(
    films: PreparedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("image", "caries", "patient_id"), ("1.png", 0, " P1 "), ("2.png", 1, ""), ("x.dcm", 1, "")]
    patients = {film.image: film.patient_id for film in label(films, *rows).films}
    assert patients["left/1.png"] == salted_hash(SALT, "P1")
    assert patients["x.dcm"] == salted_hash(SALT, "HEADER")
    ids = {row.image: row.image_id for row in films.rows}
    assert patients["left/2.png"] == ids["left/2.png"]
    assert (
        sum("the patient of 1 of 3 labelled films is not known" in record.getMessage() for record in caplog.records)
        == 1
    )


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("image", "cares"), ("1.png", 0)], "no column 'caries' .data.target.: did you mean 'cares'"),
        ([("image", "x", "y"), ("1.png", 0, 1)], "its columns are image, x, y"),
        ([("file", "caries"), ("1.png", 0)], "no column 'image'"),
        (
            [("image", "caries"), ("1.png", 0), ("left/1.png", 1)],
            "rows 2 and 3 name the same film but differ under 'caries'",
        ),
        ([("image", "caries", "patient_id"), ("1.png", 0, "a"), ("1.png", 0, "b")], "differ under 'patient_id'"),
        ([("image", "caries"), ("1.png", 0), ("2.png", 0)], "only one class under 'caries' .0."),
        ([("image", "caries"), ("1.png", "a"), ("2.png", "b"), ("3.png", "c")], "3 values under 'caries' .a, b, c."),
        ([("image", "caries", "split"), ("1.png", 0, "train"), ("2.png", 1, "tets")], "row 3: split 'tets'"),
        ([("image", "caries"), ("gone.png", 0)], "no row with a value"),
        ([("image", "caries"), ("", 0)], "row 2: the cell under 'image' is empty"),
        ([("image", "caries"), ("1.png", 0, "spare")], "row 2: 3 cells under 2 columns"),
        ([("image", "caries", "caries"), ("1.png", 0, 1)], "more than one column 'caries'"),
        ([()], "is empty"),
    ],
)
def test_wrong_labels_are_one_line_that_names_the_place(rows, said: str, films: PreparedDataset) -> None:
    with pytest.raises(MimError, match=said) as caught:
        label(films, *rows)
    assert str(films.source / "labels.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_csv_that_cannot_be_read_is_named(films: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(MimError, match=r"absent\.csv: there is no such file"):
        attach_labels(films, films.source, "absent.csv", "caries", SALT)
    (tmp_path / "latin.csv").write_bytes("image,zähne\n".encode("latin-1"))
    with pytest.raises(MimError, match="not UTF-8"):
        read_table(tmp_path / "latin.csv")


def test_real_labels_fit_the_real_films(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "films"
    (source / "images").mkdir(parents=True)
    names = [path.name for path in sorted((shared_data / "panoramic" / "images").iterdir())[::20]]
    for name in names:
        (source / "images" / name).symlink_to(shared_data / "panoramic" / "images" / name)
    films = store_films(source, tmp_path / "out", long_side=64)
    labelled = attach_labels(films, source, shared_data / "panoramic" / "labels.csv", "restoration", SALT)
    rows = {row.cells["image"]: row.cells for row in read_table(shared_data / "panoramic" / "labels.csv").rows}
    expected = {f"images/{name}": rows[f"images/{name}"]["restoration"] for name in names}
    assert images(labelled) == {image: value for image, value in expected.items() if value}
    assert len(labelled.missing) + len(labelled.films) + labelled.unlabelled == len(rows)
