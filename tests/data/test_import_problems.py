"""What is wrong with annotations is listed, and stops an import or is left out of it."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_factory import (
    BOXES,
    CLASSES,
    HEIGHT,
    WIDTH,
    coco,
    make_films,
    voc,
    write_json,
    write_masks,
    write_voc,
    write_yolo,
    yolo_line,
)
from film_factory import pattern, write_csv, write_dicom, write_png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_calls import boxes_of, problems, rows, run
from PIL import Image

from mim.data import read_radiograph
from mim.data.import_labels import main
from mim.data.radiograph import read_size


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return make_films(tmp_path / "films")


def change(field: str, value: Any, number: int = 0, of: str = "annotations") -> dict[str, Any]:
    content = coco()
    content[of][number][field] = value
    return content


@pytest.mark.parametrize(
    ("content", "problem", "labels"),
    [
        (change("bbox", [50, 4, 12, 8]), ("outside", "1", "a.png"), "1 1"),
        (change("bbox", [-3, 4, 12, 8]), ("outside", "1", "a.png"), "1 1"),
        (change("bbox", [6, 4, 0, 8]), ("empty-box", "1", "a.png"), "1 1"),
        (change("bbox", [6, 4, 12, -8]), ("empty-box", "1", "a.png"), "1 1"),
        (change("bbox", [6, 4, 12]), ("malformed", "1", "a.png"), " 1"),
        (change("bbox", [6, 4, "12", 8]), ("malformed", "1", "a.png"), " 1"),
        (change("bbox", [6, 4, 1e400, 8]), ("malformed", "1", "a.png"), " 1"),
        (change("segmentation", [[1, 2]]), ("malformed", "1", "a.png"), " 1"),
        (change("segmentation", {"size": [4, 4], "counts": [16]}), ("other-size", "1", "a.png"), "1 1"),
        (change("category_id", 77), ("unknown-class", "1", "a.png"), " 1"),
        (change("image_id", 77), ("image-without-file", "1", ""), "0 1"),
        (change("file_name", "c.png", 1, "images"), ("image-without-file", "2", "c.png"), "1 1"),
        (change("width", 61, 0, "images"), ("other-size", "1", "a.png"), "1 1"),
        (change("id", 0, 1, "images"), ("malformed", "2", "b.png"), "1 1"),
    ],
)
def test_what_is_wrong_is_listed_and_stops_or_is_left_out(
    content: dict[str, Any],
    problem: tuple[str, str, str],
    labels: str,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = write_json(tmp_path / "c.json", content)
    status, output = run(films, source, "coco")
    assert status == 2
    assert problem in problems(output)
    assert sorted(path.name for path in output.iterdir()) == ["problems.csv"]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert f"{problem[0]}: 1" in errors[0]
    assert "--problems drop" in errors[0]
    assert "\n" not in errors[0]
    status, output = run(films, source, "coco", "--problems", "drop")
    assert status == 0
    row = rows(output / "labels.csv")[0]
    assert f"{row['caries']} {row['crown']}" == labels
    assert all(name != "caries" for name, _ in boxes_of(output).get("a.png", [])) or problem[2] != "a.png"


def test_a_box_over_the_edge_by_rounding_is_clipped(films: Path, tmp_path: Path) -> None:
    source = write_json(tmp_path / "c.json", change("bbox", [-0.4, 4, 12, 36.7]))
    status, output = run(films, source, "coco")
    assert status == 0
    assert boxes_of(output)["a.png"][0][1] == (0, 4, 11.6, 40)


def test_the_same_box_twice_is_kept_once(films: Path, tmp_path: Path) -> None:
    content = coco()
    content["annotations"].append({**content["annotations"][0], "bbox": [6.1, 4, 12.2, 8]})
    status, output = run(films, write_json(tmp_path / "c.json", content), "coco", "--problems", "drop")
    assert status == 0
    assert problems(output) == [("duplicate-box", "3", "a.png")]
    assert len(boxes_of(output)["a.png"]) == 2


def test_rows_that_differ_are_all_left_out_and_equal_ones_are_one(films: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", ("image", "caries"), ("a.png", 1), ("a.png", 0), ("b.png", 1), ("b.png", 1))
    status, output = run(films, table, "csv", "--label", "caries", "--problems", "drop")
    assert status == 0
    assert problems(output) == [("image-twice", "3", "a.png")]
    assert [row["image"] for row in rows(output / "labels.csv")] == ["b.png"]


def test_only_the_classes_that_are_allowed(films: Path, tmp_path: Path) -> None:
    source = write_voc(tmp_path / "voc")
    status, output = run(films, source, "voc", "--classes", "caries", "--problems", "drop")
    assert status == 0
    assert problems(output) == [("unknown-class", "2", "a.png")]
    assert rows(output / "labels.csv")[0] == {"image": "a.png", "caries": "1"}


def test_images_that_nobody_names_are_problems_or_negative(films: Path, tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "yolo")
    (source / "labels" / "b.txt").unlink()
    assert run(films, source, "yolo")[0] == 2
    status, output = run(films, source, "yolo", "--without-label", "negative")
    assert status == 0
    assert rows(output / "labels.csv")[1] == {"image": "b.png", "caries": "0", "crown": "0"}
    assert boxes_of(output)["b.png"] == []


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.5 0.5 0.1\n", "malformed"),
        ("caries 0.5 0.5 0.1 0.1\n", "malformed"),
        ("0 0.5 nan 0.1 0.1\n", "malformed"),
        ("0 0.5 0.5 0.1 0.1 0.9\n", "malformed"),
        ("7 0.5 0.5 0.1 0.1\n", "unknown-class"),
        ("-1 0.5 0.5 0.1 0.1\n", "malformed"),
        ("0 300 200 30 20\n", "outside"),
        ("0 0.5 0.5 0 0.1\n", "empty-box"),
    ],
)
def test_lines_of_yolo_that_are_none(line: str, problem: str, films: Path, tmp_path: Path) -> None:
    source = write_yolo(tmp_path / "yolo")
    (source / "labels" / "b.txt").write_text(yolo_line(0, BOXES["caries"]) + line)
    status, output = run(films, source, "yolo", "--problems", "drop")
    assert status == 0
    assert problems(output) == [(problem, "2", "b.png")]
    assert len(boxes_of(output)["b.png"]) == 1


def test_yolo_with_polygons_data_yaml_and_split_folders(tmp_path: Path) -> None:
    for number, name in enumerate(("train/images/a.png", "valid/images/a.png")):
        write_png(tmp_path / "set" / name, pattern(number, HEIGHT, WIDTH))
    for split, text in (("train", "1 0.1 0.1 0.5 0.1 0.5 0.5\n"), ("valid", "")):
        (tmp_path / "set" / split / "labels").mkdir()
        (tmp_path / "set" / split / "labels" / "a.txt").write_text(text)
    (tmp_path / "set" / "data.yaml").write_text("names: {0: caries, 1: crown}\nnc: 2\n")
    status, output = run(tmp_path / "set", tmp_path / "set", "yolo")
    assert status == 0
    assert [(row["split"], row["crown"]) for row in rows(output / "labels.csv")] == [("train", "1"), ("val", "0")]
    (box,) = boxes_of(output)["train/images/a.png"]
    np.testing.assert_allclose(box[1], (6, 4, 30, 20))


def test_the_original_voc_counts_from_one(films: Path, tmp_path: Path) -> None:
    (tmp_path / "voc").mkdir()
    (tmp_path / "voc" / "a.xml").write_text(voc("a.png", {"caries": (1, 1, WIDTH, HEIGHT)}))
    status, output = run(films, tmp_path / "voc", "voc", "--first-pixel", "1", "--without-label", "negative")
    assert status == 0
    assert boxes_of(output)["a.png"] == [("caries", (0, 0, WIDTH, HEIGHT))]


BOMB = (
    "<!DOCTYPE a [<!ENTITY b 'bbbbbbbbbb'>"
    + "".join(f"<!ENTITY b{number} '{f'&b{number - 1 if number else str()};' * 10}'>" for number in range(9))
    + "]>"
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (voc("&b8;", BOXES, BOMB), "document type"),
        (voc("&x;", BOXES, "<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>"), "document type"),
        ("<annotation>" * 5000, "within each other"),
        ("<annotation><object>", "not well-formed"),
        ("<html/>", "root is not"),
        ("", "not well-formed"),
        ("x" * (17 << 20), "larger than 16 MiB"),
    ],
)
def test_hostile_xml_is_one_problem_and_costs_no_time(text: str, said: str, films: Path, tmp_path: Path) -> None:
    source = write_voc(tmp_path / "voc")
    (source / "b.xml").write_text(text)
    started = time.perf_counter()
    status, output = run(films, source, "voc", "--problems", "drop")
    assert time.perf_counter() - started < 5
    assert status == 0
    listed = rows(output / "problems.csv")
    assert [(row["file"], row["problem"]) for row in listed] == [
        ("b.png", "file-without-label"),
        ("b.xml", "malformed"),
    ]
    assert said in listed[1]["detail"]
    assert [row["image"] for row in rows(output / "labels.csv")] == ["a.png"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [("RGB", "mode RGB"), ("I;16", "mode I;16"), ("grey", "254 values beside 0"), ("text", "not a readable PNG")],
)
def test_masks_that_are_none(mode: str, said: str, films: Path, tmp_path: Path) -> None:
    write_masks(tmp_path / "masks")
    broken = tmp_path / "masks" / "b_mask.png"
    ramp = np.linspace(0, 254.999, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH)
    images = {"RGB": np.stack([ramp] * 3, axis=2), "I;16": ramp.astype(np.uint16), "grey": ramp}
    if mode == "text":
        broken.write_text("no picture")
    else:
        Image.fromarray(images[mode]).save(broken)
    (tmp_path / "masks" / "a_mask.png").unlink()
    named = ["--mask-name", "{stem}_mask.png", "--classes", "caries", "--problems", "drop"]
    status, output = run(films, tmp_path / "masks", "masks", *named)
    listed = {row["problem"]: row["detail"] for row in rows(output / "problems.csv")}
    assert status == 0
    assert said in listed["malformed"]
    assert rows(output / "labels.csv") == [{"image": "b.png", "caries": ""}]


@pytest.mark.parametrize(
    ("kind", "make", "more", "said"),
    [
        ("coco", lambda path: path.write_text("[1]"), (), "is no JSON object but a list"),
        ("coco", lambda path: path.write_text("{"), (), "is not valid JSON (line 1)"),
        ("coco", lambda path: path.write_text("[" * 200_000), (), "is not valid JSON"),
        ("coco", lambda path: path.write_text("{}"), (), "has no list 'categories': it is not a COCO file"),
        ("coco", lambda path: path.write_bytes(b"\xff\xfe{}"), (), "is not UTF-8"),
        ("coco", lambda path: None, (), "cannot be read"),
        ("dentex", lambda path: path.write_text("{}"), (), "it is not a DENTEX file"),
        ("csv", lambda path: path.write_text("image,caries\na.png,1\n"), (), "give --label COLUMN"),
        ("csv", lambda path: path.write_text("image,caries\n"), ("--label", "carries"), "did you mean 'caries'?"),
        ("csv", lambda path: path.write_text("file,caries\n"), ("--label", "caries"), "has no column 'image'"),
        (
            "csv",
            lambda path: path.write_text("image,c\nx.png,1\n"),
            ("--label", "c", "--problems", "drop"),
            "nothing is",
        ),
        ("yolo", lambda path: path.mkdir(), (), "give the names of the classes with --classes FILE"),
        ("yolo", lambda path: path.write_text(""), (), "give the names of the classes"),
        ("voc", lambda path: path.write_text(""), (), "is not a folder"),
        ("voc", lambda path: path.mkdir(), (), "holds no .xml file"),
        ("masks", lambda path: path.mkdir(), (), "give --classes NAME"),
        ("masks", lambda path: path.mkdir(), ("--classes", "a", "--mask-name", "m.png"), "must hold {stem} once"),
        ("masks", lambda path: path.mkdir(), ("--classes", "a"), "holds no .png file"),
    ],
)
def test_sources_that_are_none_are_answered_in_one_line(
    kind: str,
    make: Callable[[Path], object],
    more: tuple[str, ...],
    said: str,
    films: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make(tmp_path / "source")
    status, output = run(films, tmp_path / "source", kind, *more)
    assert status == 2
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert said in errors[0]
    assert "\n" not in errors[0]
    assert not (output / "labels.csv").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--patient-pattern", "(("), "not a regular expression"),
        (("--patient-pattern", "a"), "put the part that is the patient in parentheses"),
        (("--patients", "nowhere.csv"), "nowhere.csv cannot be read"),
    ],
)
def test_patients_that_cannot_be_had(
    more: tuple[str, ...], said: str, films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status, _ = run(films, write_json(tmp_path / "c.json", coco()), "coco", *more)
    assert status == 2
    assert said in caplog.text


def test_a_class_with_the_name_of_a_column_and_work_that_is_there_are_refused(
    films: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = coco()
    content["categories"][0]["name"] = "split"
    assert run(films, write_json(tmp_path / "c.json", content), "coco")[0] == 2
    assert "a class or label is called 'split'" in caplog.text
    source = write_json(tmp_path / "d.json", coco())
    assert run(films, source, "coco")[0] == 0
    before = (tmp_path / "out" / "labels.csv").read_bytes()
    assert run(films, source, "coco")[0] == 2
    assert "labels.csv exists already: remove it" in caplog.text
    assert (tmp_path / "out" / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("wrong", [["--column", "image"], ["--column", "name=x"], ["--format", "excel"], []])
def test_a_command_that_is_none(wrong: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), "--output", str(tmp_path), "--format", "csv", *wrong])
    assert caught.value.code == 2


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.sampled_from([*CLASSES, "a.png"]),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["images", "annotations", "categories", "id", "name", "file_name", "bbox", "image_id"]),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
def test_no_json_brings_the_import_down(content: Any, films: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert run(films, tmp_path / "c.json", "coco")[0] == 2


@pytest.mark.parametrize(("orientation", "wanted"), [(1, (60, 40)), (3, (60, 40)), (6, (40, 60)), (8, (40, 60))])
def test_the_size_in_the_header_is_that_of_the_film_as_it_is_read(
    orientation: int, wanted: tuple[int, int], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "a.png", "a.tif"):
        Image.fromarray(pattern(0, 40, 60)).save(tmp_path / name, exif=exif)
        height, width = read_radiograph(tmp_path / name).pixels.shape
        assert read_size(tmp_path / name) == (width, height) == wanted, name


def test_the_size_of_a_dicom_film_is_that_of_its_square_pixels(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", pattern(0, 40, 60))
    assert read_size(path) == (60, 40)


def test_sizes_of_real_films(shared_data: Path) -> None:
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        try:
            height, width = read_radiograph(path).pixels.shape
        except Exception:
            continue
        assert read_size(path) == (width, height), path.name
