import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import film_factory
import numpy as np
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png
from pydicom import dcmread

import mim.data.build
from mim.data import PreparedDataset, dataset_salt, open_or_prepare
from mim.data.prepare import main, prepare
from mim.data.privacy import load_salt, salted_hash
from mim.data.scan import scan
from mim.data.store import part_of
from mim.errors import MimError


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """A folder as they come: DICOM and PNG, folders in folders, and things that are no films."""
    folder = tmp_path / "films"
    for number in range(6):
        write_png(folder / "deep" / f"{number}.png", pattern(number, 40, 60 + number))
    write_png(folder / "big.png", pattern(50, 300, 900))
    write_dicom(folder / "x" / "one.dcm", pattern(60).astype(int) * 16, patient="PAT-1")
    write_dicom(
        folder / "x" / "many.dcm", np.stack([pattern(n).astype(int) * 16 for n in (61, 62, 63)]), patient=" PAT-1 "
    )
    write_png(folder / "copy.png", pattern(0, 40, 60))
    (folder / "notes.txt").write_text("no film")
    (folder / "broken.png").write_bytes((folder / "big.png").read_bytes()[:2000])
    write_png(folder / ".hidden" / "h.png", pattern(70))
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "nowhere.png").symlink_to(folder / "absent.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_film_is_stored_once_and_the_rest_is_listed(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    dataset = prepare(films, tmp_path / "out", long_side=200, bits=8, salt=SALT, workers=2)
    expected = ["big.png", "copy.png", *(f"deep/{n}.png" for n in range(6)), *["x/many.dcm"] * 3, "x/one.dcm"]
    assert [row.image for row in dataset.rows] == expected
    assert [row.frame for row in dataset.rows if row.image == "x/many.dcm"] == [0, 1, 2]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["films"], report["files"], report["duplicates"]["exact"]) == (12, 13, 1)
    assert {item["image"] for item in report["skipped"]} == {"broken.png", "notes.txt", "nowhere.png"}
    assert sum(report["skipped_by_reason"].values()) == 3
    assert report["skipped_by_reason"]["not-an-image"] == 1
    said = [record.getMessage() for record in caplog.records if "films from" in record.getMessage()]
    assert len(said) == 1
    assert said[0].startswith("12 films from 13 files; 3 skipped (")
    assert said[0].endswith(f"listed in {tmp_path / 'out' / 'report.json'}")
    assert not part_of(tmp_path / "out").exists()


def test_films_are_reduced_by_area_and_quantised_with_rounding(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png", np.repeat(np.repeat(pattern(1, 50, 80), 3, axis=0), 3, axis=1))
    write_png(tmp_path / "films" / "small.png", pattern(2, 40, 60))
    dataset = store_films(tmp_path / "films", tmp_path / "out", long_side=80)
    np.testing.assert_array_equal(dataset.image(0), pattern(1, 50, 80))
    np.testing.assert_array_equal(dataset.image(1), pattern(2, 40, 60))
    assert (dataset.rows[0].height, dataset.rows[0].width) == (150, 240)
    deep = store_films(tmp_path / "films", tmp_path / "deep", long_side=80, bits=16)
    np.testing.assert_array_equal(deep.image(1), pattern(2, 40, 60).astype(np.uint16) * 257)
    assert deep.image(1).dtype == np.uint16
    assert deep.rows[0].sha256 != dataset.rows[0].sha256
    assert [row.content for row in deep.rows] == [row.content for row in dataset.rows]


def test_the_number_of_workers_changes_no_byte(films: Path, tmp_path: Path) -> None:
    for workers in (1, 3):
        prepare(films, tmp_path / f"w{workers}", long_side=128, bits=16, salt=SALT, workers=workers)
    assert contents(tmp_path / "w1") == contents(tmp_path / "w3")


def test_ids_are_hashed_and_nothing_else_leaves_the_header(films: Path, tmp_path: Path) -> None:
    dataset = prepare(films, tmp_path / "out", long_side=64, bits=8, salt=SALT, workers=1)
    by_image = {row.image: row for row in dataset.rows}
    assert by_image["x/one.dcm"].patient_id == by_image["x/many.dcm"].patient_id == salted_hash(SALT, "PAT-1")
    assert by_image["big.png"].patient_id == ""
    assert len({row.image_id for row in dataset.rows}) == len(dataset)
    one = by_image["x/one.dcm"]
    assert (one.modality, one.bits, one.spacing_mm, one.series_order) == ("DX", 12, (0.1, 0.1), 7)
    written = b"".join(contents(tmp_path / "out").values())
    for secret in (b"PAT-1", b"Doe", b"1.2.3"):
        assert secret not in written


def test_a_file_that_kills_its_process_is_listed_alone(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_png(films / "deep" / "deadly.png", pattern(80))
    write_png(films / "x" / "also_deadly.png", pattern(81))
    monkeypatch.setattr(mim.data.build, "decode_file", film_factory.decode_or_die)
    dataset = prepare(films, tmp_path / "out", long_side=64, bits=8, salt=SALT, workers=2)
    assert len(dataset) == 12
    crashed = [item["image"] for item in dataset.report["skipped"] if item["reason"] == "crashed"]
    assert crashed == ["deep/deadly.png", "x/also_deadly.png"]


def test_a_preparation_that_was_killed_is_taken_up_and_ends_the_same(tmp_path: Path) -> None:
    films, output = tmp_path / "films", tmp_path / "out"
    for number in range(60):
        write_png(films / f"{number:03}.png", pattern(number, 400, 400))
    command = [sys.executable, "-m", "mim.data.prepare", str(films), "--output", str(output), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    journal = part_of(output) / "journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") > 5):
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not output.exists()
    assert journal.exists()
    deadline = time.monotonic() + 20
    while processes_of_session(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of_session(process.pid) == []
    with journal.open("ab") as file:
        file.write(b'{"films": [{"half a li')
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True, timeout=120)
    assert "60 films from 60 files" in done.stderr
    assert " 0/60 [" not in done.stderr  # the bar starts where the first attempt stopped
    prepare(films, tmp_path / "fresh", long_side=512, bits=8, salt=load_salt(tmp_path), workers=1)
    assert contents(output) == contents(tmp_path / "fresh")


def processes_of_session(session: int) -> list[int]:
    def fields(stat: Path) -> Iterator[str]:
        try:
            yield from stat.read_text().rpartition(")")[2].split()
        except OSError:
            return

    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        state = list(fields(stat))
        if len(state) > 3 and state[3] == str(session) and state[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_half_made_dataset_of_other_options_is_not_continued(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    part = part_of(output)
    part.mkdir()
    (part / "journal.jsonl").write_text('{"format": 1, "long_side": 64}\n')
    (part / "pixels.bin").write_bytes(b"rubbish")
    (part / "stray").write_bytes(b"rubbish")
    prepare(films, output, long_side=128, bits=8, salt=SALT, workers=1)
    prepare(films, tmp_path / "fresh", long_side=128, bits=8, salt=SALT, workers=1)
    assert contents(output) == contents(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no such folder"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "holds no files"),
        (
            lambda path: (path.mkdir(), (path / "a.txt").write_text("x"), (path / "b.txt").write_text("")),
            "no film could be read: 2 files",
        ),
    ],
)
def test_a_useless_source_is_one_line(make, said: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    make(source)
    with pytest.raises(MimError, match=said) as caught:
        prepare(source, tmp_path / "out", long_side=64, bits=8, salt=SALT, workers=1)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not part_of(tmp_path / "out").exists()


def test_an_output_that_exists_is_never_touched(films: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(MimError, match="exists already"):
        prepare(films, tmp_path / "out", long_side=64, bits=8, salt=SALT)
    assert contents(tmp_path / "out") == {"mine": b"keep"}


def test_the_command_says_errors_in_one_line_and_leaves_with_2(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main([str(tmp_path / "absent"), "--output", str(tmp_path / "out")]) == 2
    assert "there is no such folder" in caplog.text


def test_a_link_out_of_the_folder_is_followed_and_loops_are_not(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "a.png", pattern(1))
    write_png(tmp_path / "elsewhere" / "b.png", pattern(2))
    (tmp_path / "films" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "films" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "films", target_is_directory=True)
    assert [file.image for file in scan(tmp_path / "films")] == ["a.png", "link/b.png"]


def test_a_folder_is_prepared_once_and_again_when_a_film_changes(films: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    made = (first.path / "pixels.bin").stat().st_mtime_ns
    write_csv(films / "labels.csv", ("image", "caries"), ("copy.png", 1))
    again = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    assert again.path == first.path
    assert (again.path / "pixels.bin").stat().st_mtime_ns == made
    assert first.path.name.startswith("films-")
    assert len(first.path.name) == len("films-") + 12
    write_png(films / "copy.png", pattern(90))
    changed = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    assert changed.path != first.path
    assert len(changed) == len(first)


def test_a_cache_inside_the_folder_is_not_read_as_films(films: Path) -> None:
    first = open_or_prepare(films, films / "cache", long_side=64, bits=8, workers=1)
    again = open_or_prepare(films, films / "cache", long_side=64, bits=8, workers=1)
    assert again.path == first.path
    assert (
        open_or_prepare(films, films / "cache", long_side=32, bits=8, workers=1).report["files"]
        == first.report["files"]
    )


def test_a_prepared_dataset_is_opened_as_it_is(films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = store_films(films, tmp_path / "out", long_side=64)
    caplog.clear()
    opened = open_or_prepare(tmp_path / "out", tmp_path / "cache", long_side=64, bits=8)
    assert opened.path == dataset.path
    assert caplog.text == ""
    open_or_prepare(tmp_path / "out", tmp_path / "cache", long_side=512, bits=8)
    assert "was prepared with long_side 64" in caplog.text


OPEN = """
import sys
from pathlib import Path
from mim.data import PreparedDataset, dataset_salt, open_or_prepare
if __name__ == "__main__":
    dataset = open_or_prepare(Path(sys.argv[1]), Path(sys.argv[2]), long_side=64, bits=8, workers=1, poll_seconds=0.05)
    print(dataset.path, len(dataset), dataset.rows[-1].image_id)
"""


def test_processes_and_ranks_that_ask_at_once_get_one_whole_dataset(films: Path, tmp_path: Path) -> None:
    script = tmp_path / "open.py"
    script.write_text(OPEN)
    command = [sys.executable, str(script), str(films), str(tmp_path / "cache")]
    started = [
        subprocess.Popen(command, env={**os.environ, **rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in ({"RANK": "1"}, {"RANK": "0"}, {})
    ]
    answers = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    assert sum("films from" in err or "preparing:" in err for _, err in answers) == 1
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_a_script_without_a_guard_is_told_so(films: Path, tmp_path: Path) -> None:
    script = tmp_path / "open.py"
    script.write_text(OPEN.replace('if __name__ == "__main__":', "if True:"))
    command = [sys.executable, str(script), str(films), str(tmp_path / "cache")]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.stderr.rstrip().splitlines()[-1].startswith("mim.errors.MimError: worker processes die as they start")


def test_another_choice_of_window_or_colour_prepares_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    films, cache = tmp_path / "films", tmp_path / "cache"
    path = write_dicom(films / "one.dcm", pattern(60).astype(int) * 16)
    dataset = dcmread(path)
    dataset.WindowCenter, dataset.WindowWidth = [1000, 3000], [500, 500]
    dataset.save_as(path)
    write_png(films / "photo.png", np.stack([pattern(1), pattern(2), pattern(3)], axis=-1))
    first = open_or_prepare(films, cache, long_side=64, bits=8, workers=1)
    second = open_or_prepare(films, cache, long_side=64, bits=8, voi=1, workers=1)
    third = open_or_prepare(films, cache, long_side=64, bits=8, voi=1, color="gray", workers=1)
    assert len({first.path, second.path, third.path}) == 3
    options = [found.report["options"] for found in (first, second, third)]
    assert [(made["voi"], made["color"]) for made in options] == [(0, "skip"), (1, "skip"), (1, "gray")]
    assert (len(first), len(second), len(third)) == (1, 1, 2)
    assert (first.image(0) != second.image(0)).any()
    np.testing.assert_array_equal(second.image(0), third.image(0))
    assert open_or_prepare(films, cache, long_side=64, bits=8, voi=1, workers=1).path == second.path
    open_or_prepare(third.path, cache, long_side=64, bits=8)
    assert "was prepared with voi 1: data.voi 0 changes nothing" in caplog.text
    assert "was prepared with color gray: data.color skip changes nothing" in caplog.text


def test_the_command_takes_window_and_colour(tmp_path: Path) -> None:
    write_png(tmp_path / "films" / "photo.png", np.stack([pattern(1), pattern(2), pattern(3)], axis=-1))
    command = [str(tmp_path / "films"), "--output", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 2
    assert main([*command, "--color", "gray", "--voi", "1"]) == 0
    options = json.loads((tmp_path / "out" / "report.json").read_text())["options"]
    assert (options["voi"], options["color"]) == (1, "gray")
    with pytest.raises(SystemExit):
        main([*command, "--voi", "-1"])


def test_a_rank_that_waits_in_vain_says_so(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(MimError, match="a disk that all ranks share"):
        open_or_prepare(films, tmp_path / "cache", long_side=64, bits=8, stall_seconds=0.1, poll_seconds=0.02)


def test_the_salt_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    salt = load_salt(tmp_path)
    assert load_salt(tmp_path) == salt
    assert len(salt) == 32
    assert (tmp_path / ".salt").stat().st_mode & 0o777 == 0o600
    assert salted_hash(salt, "A") != salted_hash(load_salt(tmp_path / "other"), "A")
    (tmp_path / ".salt").write_text("rubbish")
    with pytest.raises(MimError, match="is not a salt"):
        load_salt(tmp_path)


def test_the_salt_of_a_dataset_is_found_in_the_cache_or_beside_it(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = open_or_prepare(films, tmp_path / "cache", long_side=32, bits=8, workers=1)
    assert dataset_salt(cached, tmp_path / "cache") == load_salt(tmp_path / "cache")
    command = [str(films), "--output", str(tmp_path / "mine" / "out"), "--long-side", "32", "--workers", "1"]
    assert main(command) == 0
    mine = PreparedDataset.open(tmp_path / "mine" / "out")
    assert dataset_salt(mine, tmp_path / "cache") == load_salt(tmp_path / "mine")
    assert "another salt" not in caplog.text
    (tmp_path / "mine" / ".salt").unlink()
    assert dataset_salt(mine, tmp_path / "cache") == load_salt(tmp_path / "cache")
    assert "another salt" in caplog.text


def test_processes_that_ask_at_once_get_the_same_salt(tmp_path: Path) -> None:
    code = "import sys, pathlib, mim.data.privacy as p; sys.stdout.write(p.load_salt(pathlib.Path(sys.argv[1])).hex())"
    started = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_reading_films_does_not_import_torch() -> None:
    code = "import sys, mim.data, mim.data.prepare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_dicoms_are_read_or_listed(shared_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "films"
    source.mkdir()
    for path in sorted((shared_data / "dicom").iterdir()):
        if path.stat().st_size < 200_000:
            (source / path.name).symlink_to(path)
    dataset = prepare(source, tmp_path / "out", long_side=256, bits=16, salt=SALT)
    read = {row.image for row in dataset.rows}
    listed = {item["image"] for item in dataset.report["skipped"]}
    assert read | listed == {path.name for path in source.iterdir()}
    assert "MR_truncated.dcm" in listed
    assert "CR_tiny_6154.dcm" in read
    assert not {"unexpected-error", "crashed"} & dataset.report["skipped_by_reason"].keys()
    assert sum(row.image == "emri_small.dcm" for row in dataset.rows) == 10
    patients = {row.image: row.patient_id for row in dataset.rows}
    assert patients["CR_tiny_6154.dcm"] == patients["CR_tiny_6247.dcm"] != ""
