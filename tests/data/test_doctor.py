"""The doctor finds what is planted, says nothing of what is sound, and names nobody."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mim.data import read_radiograph
from mim.data.doctor.__main__ import main
from mim.data.doctor.polarity import find_inverted

FILMS = 24
SIZE = (96, 128)
HEADER = ("image", "patient_id", "split", "caries")


def film(number: int) -> np.ndarray:
    return pattern(number, *SIZE).astype(np.uint16) * 16


def row(number: int, **changed: str) -> tuple[str, ...]:
    split = ("train", "val", "test")[number % 3]
    cells = {"image": f"{number:02}.dcm", "patient_id": f"P{number}", "split": split, "caries": str(number // 3 % 2)}
    return tuple({**cells, **changed}.values())


def sound(folder: Path) -> Path:
    """DICOM films of 24 patients, with labels."""
    for number in range(FILMS):
        write_dicom(folder / f"{number:02}.dcm", film(number), patient=f"P{number}")
    write_csv(folder / "labels.csv", HEADER, *(row(number) for number in range(FILMS)))
    return folder


def edit(path: Path, **fields: Any) -> None:
    dataset = pydicom.dcmread(path)
    for keyword, value in fields.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)


def ill(folder: Path) -> Path:
    """The same with everything wrong that the doctor looks for."""
    sound(folder)
    for number in (3, 7):
        write_dicom(folder / f"{number:02}.dcm", 4095 - film(number), patient=f"P{number}")
    for number in (4, 5):
        edit(folder / f"{number:02}.dcm", BurnedInAnnotation="YES")
    edit(folder / "06.dcm", PresentationIntentType="FOR PROCESSING", BurnedInAnnotation="NO")
    edit(folder / "08.dcm", Modality="CT")
    edit(folder / "09.dcm", ImagerPixelSpacing=[0.2, 0.2])
    write_dicom(folder / "copy.dcm", film(0), patient="P90")
    Image.fromarray((film(1) // 16).astype(np.uint8)).save(folder / "near.jpg", quality=60)
    write_dicom(folder / "blank.dcm", np.full(SIZE, 800, np.uint16), patient="P92")
    write_png(folder / "icon.png", pattern(77, 20, 20))
    (folder / "notes.dcm").write_text("no film")
    write_csv(
        folder / "labels.csv",
        HEADER,
        *(row(number, **({"patient_id": "P2"} if number == 9 else {})) for number in range(FILMS)),
        row(0, image="copy.dcm", patient_id="P90", split="test"),
        row(1, image="near.jpg", patient_id="", split="train"),
        row(2, caries="1"),
        row(0, image="absent.dcm", patient_id="P99"),
    )
    boxes = {
        "images": [{"id": 1, "file_name": "00.dcm", "width": SIZE[1], "height": SIZE[0]}],
        "categories": [{"id": 1, "name": "caries"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [120, 10, 20, 20]},
        ],
    }
    (folder / "boxes.coco.json").write_text(json.dumps(boxes))
    return folder


def diagnose(folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, findings by name, and what was printed."""
    path = folder.parent / "doctor.json"
    status = main([str(folder), "--json", str(path), "--workers", "2", *more])
    content = json.loads(path.read_text())
    return status, {finding["name"]: finding for finding in content["findings"]}, capsys.readouterr().out


def test_everything_that_is_wrong_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found, printed = diagnose(ill(tmp_path / "films"), capsys, "--target", "caries")
    assert status == 1
    stops = {name for name, finding in found.items() if finding["level"] == "stop"}
    assert stops == {
        "rows that differ",
        "patients in two splits",
        "exact copies in two splits",
        "near copies in two splits",
    }
    looks = {
        "unreadable": ["notes.dcm"],
        "sizes": ["icon.png"],
        "bits": ["icon.png", "near.jpg"],
        "modalities": ["08.dcm"],
        "pixel spacing": ["icon.png", "near.jpg"],
        "burnt-in annotation": ["04.dcm", "05.dcm"],
        "for processing": ["06.dcm"],
        "inverted films": ["03.dcm", "07.dcm"],
        "blank films": ["blank.dcm"],
        "exact copies": ["00.dcm = copy.dcm"],
        "near copies": ["01.dcm = near.jpg"],
        "rows without film": ["row 29"],
        "labelled films": ["blank.dcm", "icon.png"],
        "patients": ["icon.png", "near.jpg"],
    }
    for name, items in looks.items():
        assert found[name]["level"] == "look", name
        assert found[name]["items"] == items, name
        assert found[name]["advice"], name
    assert found["boxes"]["level"] == "look"
    assert "1 boxes are sound; 1 problems (outside: 1)" in found["boxes"]["text"]
    assert found["rows that differ"]["items"] == ["rows 4 and 28"]
    assert found["patients in two splits"]["items"] == ["row 4 in test, row 11 in train"]
    assert found["exact copies in two splits"]["items"] == ["row 26 in test, row 2 in train"]
    assert found["near copies in two splits"]["items"] == ["row 27 in train, row 3 in val"]
    assert "43 do not say" not in printed
    assert printed.index("STOP") < printed.index("LOOK") < printed.index("FINE")
    written = printed + json.dumps(found)
    assert not any(secret in written for secret in ("Doe", "P90", "P2", "1.2.3"))


def test_of_a_sound_set_nothing_must_be_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found, printed = diagnose(sound(tmp_path / "films"), capsys)
    assert status == 0
    assert "STOP" not in printed
    assert [name for name, finding in found.items() if finding["level"] == "look"] == ["classes of caries"]
    assert "train: 4 of 0, 4 of 1" in found["classes of caries"]["text"]
    assert (
        found["splits"]["text"]
        == "train: 8 files of 8 patients; val: 8 files of 8 patients; test: 8 files of 8 patients"
    )
    assert found["pixel spacing"]["text"] == "0.1 to 0.1 mm"
    assert not list((tmp_path / "films").glob("*.json")), "nothing is written beside the films"


def test_a_prepared_dataset_is_looked_at_like_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ill(tmp_path / "films")
    (tmp_path / ".salt").write_text(SALT.hex())
    store_films(tmp_path / "films", tmp_path / "prepared")
    status, folder, _ = diagnose(tmp_path / "films", capsys)
    prepared_status, prepared, _ = diagnose(tmp_path / "prepared", capsys)
    assert prepared_status == status == 1
    assert {name: finding["items"] for name, finding in prepared.items()} == {
        name: finding["items"] for name, finding in folder.items()
    }
    shutil.copyfile(tmp_path / "films" / "labels.csv", tmp_path / "prepared" / "labels.csv")
    shutil.rmtree(tmp_path / "films")
    _, alone, _ = diagnose(tmp_path / "prepared", capsys)
    assert alone["headers"]["level"] == "look"
    assert "burnt-in annotation" not in alone
    assert alone["patients in two splits"]["items"] == prepared["patients in two splits"]["items"]


@pytest.mark.parametrize(
    ("table", "name", "said"),
    [
        ("file,caries\n00.png,1\n", "labels", "no column 'image'"),
        ("image,caries,split\n00.png,1,tset\n", "labels", "row 2: split 'tset' is none of"),
        ("image,caries,date\n00.png,1,17.5.24\n", "labels", "row 2: what stands under 'date' is no date"),
        ("image,caries,split\n00.png,1,train\n01.png,0,train\n", "splits", "no film is in the split test"),
        (
            "image,split,caries\n00.png,train,1\n01.png,train,1\n02.png,test,0\n",
            "classes of caries",
            "train: 0 of 0, 2",
        ),
    ],
)
def test_tables_that_no_run_can_use(
    table: str, name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_png(tmp_path / "films" / f"{number:02}.png", pattern(number, *SIZE))
    (tmp_path / "films" / "labels.csv").write_text(table)
    more = ["--target", "caries"] if "caries" in name else []
    status, found, _ = diagnose(tmp_path / "films", capsys, *more)
    assert status == 1
    assert found[name]["level"] == "stop"
    assert said in found[name]["text"]


def test_without_labels_or_splits_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(2):
        write_png(tmp_path / "films" / f"{number:02}.png", pattern(number, *SIZE))
    status, found, _ = diagnose(tmp_path / "films", capsys)
    assert (status, found["labels"]["level"], found["inverted films"]["level"]) == (0, "look", "look")
    assert "too few" in found["inverted films"]["text"]
    table = write_csv(tmp_path / "some.csv", ("image", "caries"), ("00.png", 1), ("01.png", 0))
    (tmp_path / "boxes.json").write_text("[]")
    status, found, _ = diagnose(
        tmp_path / "films", capsys, "--labels", str(table), "--boxes", str(tmp_path / "boxes.json")
    )
    assert (status, found["splits"]["level"], found["boxes"]["level"]) == (1, "look", "stop")
    assert "before you pretrain" in found["splits"]["advice"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("nowhere",), "nowhere: there is no such folder"),
        (("empty",), "empty holds no files"),
        (("texts",), "no film could be read"),
        (("films", "--labels", "nowhere.csv"), "nowhere.csv: there is no such file (--labels)"),
        (("films", "--boxes", "nowhere.json"), "nowhere.json: there is no such file (--boxes)"),
        (("films", "--json", "nowhere/doctor.json"), "nowhere/doctor.json cannot be written"),
    ],
)
def test_bad_input_is_answered_in_one_line(
    more: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.dcm").write_text("no film")
    write_png(Path("films/a.png"), pattern(0))
    assert main([*more, "--workers", "1"]) == 2
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert said in errors[0]
    assert "\n" not in errors[0]


def test_a_command_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), "--workers", "0"])
    assert caught.value.code == 2


def alike(count: int, seed: int) -> np.ndarray:
    """Small films of one kind: a bright body before a dark border, each with an anatomy of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:32j, -1:1:32j]
    body = 160 * np.exp(-2 * (x**2 + y**2))
    own = [cv2.GaussianBlur(rng.normal(0, 60, (32, 32)), (0, 0), 2) for _ in range(count)]
    return np.clip(40 + body + np.array(own), 0, 255).astype(np.uint8)


@settings(deadline=None, max_examples=40)
@given(count=st.integers(20, 60), share=st.floats(0, 0.3), seed=st.integers(0, 2**31))
def test_negatives_among_films_of_a_kind_are_found_and_no_others(count: int, share: float, seed: int) -> None:
    films = alike(count, seed)
    turned = np.random.default_rng(seed + 1).permutation(count)[: int(share * count)]
    films[turned] = 255 - films[turned]
    found = find_inverted(films, [""] * count)
    assert found.inverted == tuple(sorted(turned.tolist()))
    assert found.dark_centre == ()


def test_each_kind_is_judged_by_itself_and_few_are_not() -> None:
    films = np.concatenate([alike(20, 1), 255 - alike(20, 2), alike(5, 3), np.full((1, 32, 32), 9, np.uint8)])
    kinds = ["IO"] * 20 + ["PX"] * 20 + ["DX"] * 5 + ["IO"]
    found = find_inverted(films, kinds)
    assert found.inverted == ()
    assert found.dark_centre == ("PX",)
    assert found.unjudged == 5


def test_real_panoramics_turned_over_are_found(shared_data: Path) -> None:
    paths = sorted((shared_data / "panoramic" / "images").iterdir())[:120]
    tiny = [cv2.resize(read_radiograph(path).pixels, (32, 32), interpolation=cv2.INTER_AREA) for path in paths]
    films = np.rint(np.array(tiny) * 255).astype(np.uint8)
    assert find_inverted(films, [""] * len(films)).inverted == ()
    turned = list(range(0, 120, 10))
    films[turned] = 255 - films[turned]
    assert find_inverted(films, [""] * len(films)).inverted == tuple(turned)
