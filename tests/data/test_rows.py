from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mim.data.rows
from mim.data.manifest import ManifestRow, read_manifest, write_manifest
from mim.data.rows import ManifestRows, find_rows
from mim.errors import MimError

ROW = ManifestRow("id", 'a/b, "c".png', 3, "patient", "", 7, 640, 480, 12, (0.1, 1 / 3), "IO", "ab" * 32, "cd" * 32)
NAMES = [
    "plain.png",
    "two\nlines.png",
    "old\rmac.png",
    "both\r\n.png",
    '"',
    '""\n""',
    "Röntgen\udcff\u2028\x0b\x85.png",
    " ",
]


def write(folder: Path, rows: list[ManifestRow]) -> ManifestRows:
    write_manifest(folder / "manifest.csv", rows)
    np.save(folder / "rows.npy", find_rows(folder / "manifest.csv"))
    return ManifestRows.open(folder / "manifest.csv", folder / "rows.npy")


def test_rows_are_those_of_the_file_whatever_stands_in_them(tmp_path: Path) -> None:
    rows = [replace(ROW, image=name, width=number) for number, name in enumerate(NAMES)]
    found = write(tmp_path, rows)
    assert len(found) == len(rows)
    assert list(found) == rows == list(read_manifest(tmp_path / "manifest.csv"))
    assert [found[number] for number in range(len(rows))] == rows
    assert found[-1] == rows[-1]
    assert found[np.int64(2)] == rows[2]
    assert found[1:4] == tuple(rows[1:4])
    for beyond in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            found[beyond]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet='a"\n\r,;\u2028 ', max_size=6), min_size=1, max_size=12), st.integers(1, 40))
def test_rows_are_found_however_the_file_is_read(names: list[str], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(mim.data.rows, "_BYTES_AT_A_TIME", block)
        patch.setattr(mim.data.rows, "_ROWS_AT_A_TIME", 3)
        rows = [replace(ROW, image=name) for name in names]
        found = write(Path(folder), rows)
        assert list(found) == rows
        assert [found[number] for number in range(len(rows))] == rows


def test_an_empty_manifest_has_no_rows(tmp_path: Path) -> None:
    assert list(write(tmp_path, [])) == []


def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    found = write(tmp_path, [ROW, replace(ROW, width=1234), ROW])
    path = tmp_path / "manifest.csv"
    path.write_bytes(path.read_bytes().replace(b"1234", b"wide"))  # of equal length
    assert found[0] == found[2] == ROW
    with pytest.raises(MimError, match=r"manifest\.csv, row 3: not a row"):
        found[1]
    with pytest.raises(MimError, match=r"manifest\.csv, row 3: not a row"):
        list(found)


def test_a_manifest_that_was_changed_is_not_opened(tmp_path: Path) -> None:
    write(tmp_path, [ROW, ROW])
    path = tmp_path / "manifest.csv"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MimError, match="was changed or cut short"):
        ManifestRows.open(path, tmp_path / "rows.npy")
    path.write_bytes(b"other,columns\n")
    with pytest.raises(MimError, match="columns are other, columns"):
        ManifestRows.open(path, tmp_path / "rows.npy")
