import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import film_factory
import numpy as np
import pytest
from film_factory import SALT, pattern, write_csv, write_dicom, write_png

import mim.data.build
import mim.data.swap
from mim.data import PreparedDataset, open_or_prepare
from mim.data.decode import DecodeOptions, decode_file
from mim.data.prepare import main, prepare
from mim.data.privacy import load_salt
from mim.data.scan import scan, source_key
from mim.data.store import part_of
from mim.data.writer import StoreWriter
from mim.errors import MimError


@pytest.fixture
def films(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    for number in range(5):
        write_png(folder / f"{number}.png", pattern(number, 40, 60 + number))
    write_dicom(folder / "many.dcm", np.stack([pattern(n).astype(int) * 16 for n in (61, 62)]), patient="PAT-1")
    (folder / "broken.png").write_bytes((folder / "0.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no film")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make(films: Path, output: Path, **options: object) -> PreparedDataset:
    return prepare(films, output, **{"long_side": 64, "bits": 8, "salt": SALT, "workers": 1, **options})


def change(films: Path) -> None:
    """Add, change and remove files, at the beginning, in the middle and at the end."""
    write_png(films / "00.png", pattern(20))
    write_png(films / "many.dcn.png", pattern(21))
    write_png(films / "z" / "last.png", pattern(22))
    write_png(films / "2.png", pattern(23, 30, 30))
    (films / "1.png").unlink()
    (films / "labels.csv").write_text("image,caries\n")


@pytest.mark.parametrize("options", [{}, {"bits": 16, "crop": "border", "tile": 32, "tile_overlap": 5, "workers": 3}])
def test_an_updated_dataset_is_the_one_made_anew_and_only_new_films_are_decoded(
    options: dict, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    make(films, tmp_path / "out", **options)
    change(films)
    make(films, tmp_path / "fresh", **options)
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.decode_and_tell)
    make(films, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    decoded = set((tmp_path / "decoded").read_text().splitlines())
    assert decoded == {"00.png", "2.png", "many.dcn.png", "z/last.png", "labels.csv", "notes.txt"}
    assert "4 files are new or have changed, 2 are gone or have changed" in caplog.text
    assert not part_of(tmp_path / "out").exists()


def test_nothing_is_done_where_nothing_changed(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [str(films), "--output", str(tmp_path / "out"), "--long-side", "64", "--workers", "1"]
    assert main(command) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    write_csv(films / "labels.csv", ("image", "caries"))  # text is no film
    caplog.set_level(logging.INFO)
    caplog.clear()
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.refuse)
    assert main(command) == 0
    assert "is up to date: 7 films from 9 files" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_reader_of_the_old_dataset_keeps_its_films(films: Path, tmp_path: Path) -> None:
    old = make(films, tmp_path / "out")
    change(films)
    new = make(films, tmp_path / "out")
    np.testing.assert_array_equal(old.image(2), pattern(2, 40, 62))
    np.testing.assert_array_equal(new.image(2), pattern(23, 30, 30))
    assert [row.image for row in new.rows][:3] == ["0.png", "00.png", "2.png"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"long_side": 32}, "with other options or another salt .*long_side=64"),
        ({"crop": "border"}, "with other options"),
        ({"salt": bytes(32)}, "another salt"),
    ],
)
def test_other_options_never_replace_a_dataset(other: dict, said: str, films: Path, tmp_path: Path) -> None:
    make(films, tmp_path / "out")
    before = contents(tmp_path / "out")
    change(films)
    with pytest.raises(MimError, match=said):
        make(films, tmp_path / "out", **other)
    assert contents(tmp_path / "out") == before


def test_another_folder_never_replaces_a_dataset_but_a_moved_one_may(films: Path, tmp_path: Path) -> None:
    before = make(films, tmp_path / "out")
    write_png(tmp_path / "others" / "x.png", pattern(1))
    with pytest.raises(MimError, match=f"was prepared from {films.resolve()}"):
        make(tmp_path / "others", tmp_path / "out")
    films.rename(tmp_path / "moved")
    assert len(make(tmp_path / "moved", tmp_path / "out")) == len(before)


def test_a_dataset_survives_a_folder_that_became_useless(films: Path, tmp_path: Path) -> None:
    make(films, tmp_path / "out")
    before = contents(tmp_path / "out")
    for path in films.iterdir():
        path.unlink()
    for said in ("holds no files", "no film could be read: 1 files"):
        with pytest.raises(MimError, match=said):
            make(films, tmp_path / "out")
        assert contents(tmp_path / "out") == before
        (films / "a.png").write_text("x")


def test_films_whose_stored_pixels_were_damaged_are_decoded_again(films: Path, tmp_path: Path) -> None:
    make(films, tmp_path / "out")
    with (tmp_path / "out" / "pixels.bin").open("r+b") as file:
        file.seek(70)
        file.write(b"\x01\x02\x03")
    write_png(films / "new.png", pattern(20))
    make(films, tmp_path / "out")
    make(films, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_file_that_could_not_be_opened_is_tried_again(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(mim.data.build, "decode_file", film_factory.decode_without_rights)
        assert len(make(films, tmp_path / "out")) == 6
    assert len(make(films, tmp_path / "out")) == 7
    make(films, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


KILLED = """
import os, signal, sys
from pathlib import Path
import mim.data.build, mim.data.swap, mim.data.writer
from mim.data.prepare import main

def killing(function, call, after):
    calls = [0]
    def dying(*arguments, **named):
        calls[0] += 1
        if calls[0] == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **named)
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return dying

if __name__ == "__main__":
    module, name, call, after = sys.argv[1].split(",")
    place = sys.modules[module]
    *owners, last = name.split(".")
    for owner in owners:
        place = getattr(place, owner)
    setattr(place, last, killing(getattr(place, last), int(call), after == "after"))
    sys.exit(main(sys.argv[2:]))
"""

MOMENTS = [
    "mim.data.writer,StoreWriter.add,5,after",
    "mim.data.build,write_sheet,1,after",
    "mim.data.writer,put_in_place,1,before",
    "mim.data.swap,_exchange,1,after",
    "mim.data.writer,put_in_place,1,after",
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_loses_nothing_and_leaves_a_dataset_in_place(
    moment: str, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = load_salt(tmp_path)
    make(films, tmp_path / "out", salt=salt)
    change(films)
    make(films, tmp_path / "fresh", salt=salt)
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), moment, str(films), "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--long-side", "64", "--workers", "1"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == -9, done.stderr
    assert len(PreparedDataset.open(tmp_path / "out")) in (7, 9)  # the old one or the new one, whole
    if moment != MOMENTS[0]:  # all was decoded: nothing may be decoded again
        monkeypatch.setattr(mim.data.build, "decode_file", film_factory.refuse)
    make(films, tmp_path / "out", salt=salt)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {"out", ".out.lock"}


def test_a_first_preparation_that_is_killed_at_the_very_end_redoes_nothing(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = load_salt(tmp_path)
    make(films, tmp_path / "fresh", salt=salt)
    (tmp_path / "killed.py").write_text(KILLED)
    moment = "mim.data.writer,put_in_place,1,before"
    command = [sys.executable, str(tmp_path / "killed.py"), moment, str(films), "--output", str(tmp_path / "out")]
    done = subprocess.run([*command, "--long-side", "64", "--workers", "1"], check=False, timeout=120)
    assert done.returncode == -9
    assert not (tmp_path / "out").exists()
    assert [file.image for file in scan(tmp_path) if ".part" in file.image] == []
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.refuse)
    make(films, tmp_path / "out", salt=salt)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_films_that_arrive_while_a_preparation_lies_killed_cost_no_second_decoding(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = load_salt(tmp_path)
    (tmp_path / "killed.py").write_text(KILLED)
    moment = "mim.data.writer,put_in_place,1,before"
    command = [sys.executable, str(tmp_path / "killed.py"), moment, str(films), "--output", str(tmp_path / "out")]
    subprocess.run([*command, "--long-side", "64", "--workers", "1"], check=False, timeout=120)
    change(films)
    make(films, tmp_path / "fresh", salt=salt)
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.decode_and_tell)
    make(films, tmp_path / "out", salt=salt)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    decoded = set((tmp_path / "decoded").read_text().splitlines())
    assert decoded == {"00.png", "2.png", "many.dcn.png", "z/last.png", "labels.csv", "notes.txt"}


def test_doors_go_on_with_what_was_cut_off_before_the_folder_changed(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    whole = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    part = part_of(whole.path)
    shutil.rmtree(whole.path)
    header = {"format": whole.report["format"], "options": whole.report["options"], "salt_check": whole.salt_check}
    sources = [source_key(file, load_salt(cache)) for file in scan(films)]
    with StoreWriter(whole.path, header, sources) as writer:
        options = DecodeOptions(films.resolve(), 64, 8, load_salt(cache))
        for file in scan(films)[:5]:
            writer.add(decode_file(file.image, options))
    assert part.is_dir()
    change(films)
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.decode_and_tell)
    changed = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    decoded = set((tmp_path / "decoded").read_text().splitlines())
    assert decoded.isdisjoint({"0.png", "3.png", "4.png"})
    assert not part.exists()
    assert contents(changed.path) == contents(make(films, tmp_path / "fresh", salt=load_salt(cache)).path)
    assert [path.name for path in cache.iterdir() if path.is_dir()] == [changed.path.name]


def test_without_an_exchange_of_names_the_swap_is_mended(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mim.data.swap, "_exchange", lambda one, other: False)
    make(films, tmp_path / "out")
    change(films)
    monkeypatch.setattr(mim.data.swap.Path, "rename", rename_once(Path.rename))
    with pytest.raises(MimError, match="cannot be written"):
        make(films, tmp_path / "out")
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    make(films, tmp_path / "out")
    make(films, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {"out", ".out.lock"}


def rename_once(rename):
    """The first folder is renamed; then the disk fails."""
    done = []

    def renaming(path: Path, target: Path) -> Path:
        if done:
            raise OSError("no space")
        done.append(path)
        return rename(path, target)

    return renaming


def test_doors_take_films_over_when_a_folder_changes(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    (cache / f"{films.name}-0123456789ab").mkdir()
    shutil.copy(first.path / "report.json", cache / f"{films.name}-0123456789ab")
    (cache / f"{films.name}-0123456789ab" / "index.npy").write_bytes(b"damaged")
    change(films)
    time.sleep(0.01)
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.decode_and_tell)
    second = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    assert second.path != first.path
    decoded = set((tmp_path / "decoded").read_text().splitlines())
    assert decoded == {"00.png", "2.png", "many.dcn.png", "z/last.png", "labels.csv", "notes.txt"}
    assert len(PreparedDataset.open(first.path)) == 7
    fresh = make(films, tmp_path / "fresh", salt=load_salt(cache))
    assert contents(second.path) == contents(fresh.path)
    for options in ({"crop": "border"}, {"tile": 32}, {"tile": 32, "tile_overlap": 4}):
        other = open_or_prepare(films, cache, long_side=64, bits=8, workers=1, **options)
        assert other.path not in (first.path, second.path)
        assert other.report["options"].items() >= options.items()
