import csv

import pin_dicom
import pytest

with pin_dicom.TABLE.open(newline="", encoding="utf-8") as file:
    PINNED = list(csv.DictReader(file))


def test_every_real_file_is_pinned(shared_data):
    assert {path.name for path in (shared_data / "dicom").glob("*.dcm")} == {row["file"] for row in PINNED}


@pytest.mark.parametrize("row", PINNED, ids=lambda row: "-".join(row[key] for key in ("file", "frame", "voi", "color")))
def test_pixels_are_as_pinned(shared_data, row):
    path = shared_data / "dicom" / row["file"]
    found = pin_dicom.measure(path, int(row["frame"]), int(row["voi"]), row["color"])
    for key in ("reason", "rows", "columns", "sha256"):
        assert found[key] == row[key], key
    for key in ("min", "max", "mean", "pixels"):
        expected = [float(number) for number in row[key].split()]
        assert [float(number) for number in found[key].split()] == pytest.approx(expected, abs=2e-6), key
