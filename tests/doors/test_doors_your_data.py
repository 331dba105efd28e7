"""The commands of docs/how-to/your-data.md, one after the other, on a made export of a hospital."""

import csv
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, NETWORK, ROOT, TINY, call
from PIL import Image

PAGE = ROOT / "docs" / "how-to" / "your-data.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


@pytest.fixture
def export(phantom: Path, tmp_path: Path) -> Path:
    """Films, a table and annotations in each format, as the page describes them; one box is outside its film."""
    folder = tmp_path / "export"
    shutil.copytree(phantom / "labelled", folder / "films" / "2024", ignore=shutil.ignore_patterns("*.csv", "*.json"))
    with (phantom / "labelled" / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    with (folder / "ris.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["file", "PatID", "name", "exam_date", "caries"])
        for number, row in enumerate(labels):
            writer.writerow(
                [row["image"], row["patient_id"], "Doe^Jane", f"2024-01-{number % 28 + 1:02}", row["caries"]]
            )
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"2024/{image['file_name']}"
    for annotation in content["annotations"]:
        annotation["category_id"] = 1
        del annotation["segmentation"]
    content["categories"] = [{"id": 1, "name": "caries"}]
    notes = folder / "annotations"
    for name in ("yolo", "voc", "masks"):
        (notes / name).mkdir(parents=True)
    draw_others(content, notes)
    by_class = {"0": "sound", "1": "caries"}
    for row in labels[:8]:
        (folder / "by_class" / by_class[row["caries"]]).mkdir(parents=True, exist_ok=True)
        shutil.copy(phantom / "labelled" / row["image"], folder / "by_class" / by_class[row["caries"]] / row["image"])
    outside = {**content["annotations"][0], "id": 9999, "bbox": [120, 90, 50, 50]}
    content["annotations"].append(outside)
    (notes / "coco.json").write_text(json.dumps(content))
    return folder


def draw_others(content: dict[str, list[dict[str, object]]], notes: Path) -> None:
    """The same boxes as YOLO, VOC, masks and DENTEX."""
    (notes / "yolo" / "classes.txt").write_text("caries\n")
    for image in content["images"]:
        stem = Path(str(image["file_name"])).stem
        wide, high = int(str(image["width"])), int(str(image["height"]))
        boxes = [own["bbox"] for own in content["annotations"] if own["image_id"] == image["id"]]
        mask = np.zeros((high, wide), np.uint8)
        lines, objects = [], []
        for x, y, w, h in boxes:  # type: ignore[misc]
            mask[int(y) : int(y + h), int(x) : int(x + w)] = 255
            lines.append(f"0 {(x + w / 2) / wide} {(y + h / 2) / high} {w / wide} {h / high}\n")
            corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax>"
            objects.append(f"<object><name>caries</name><bndbox>{corners}</bndbox></object>")
        (notes / "yolo" / f"{stem}.txt").write_text("".join(lines))
        described = f"<filename>{stem}.dcm</filename>{''.join(objects)}"
        (notes / "voc" / f"{stem}.xml").write_text(f"<annotation>{described}</annotation>")
        Image.fromarray(mask).save(notes / "masks" / f"{stem}_mask.png")
    levels = {"category_id_1": 0, "category_id_2": 5, "category_id_3": 1}
    dentex = {
        "images": content["images"],
        "annotations": [{**own, **levels} for own in content["annotations"]],
        "categories_1": [{"id": number, "name": number + 1} for number in range(4)],
        "categories_2": [{"id": number, "name": number + 1} for number in range(8)],
        "categories_3": [{"id": 1, "name": "Caries"}],
    }
    (notes / "dentex.json").write_text(json.dumps(dentex))


def test_every_command_of_the_page_works_in_its_order(
    export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    ran = []
    for words in commands():
        assert words[0] == "python", words
        if words[1] == "-m":
            module = importlib.import_module(words[2])
            module = importlib.import_module(f"{words[2]}.__main__") if hasattr(module, "__path__") else module
            assert module.main(words[3:]) == 0, (words, capsys.readouterr().out, caplog.text)
        else:
            arguments = [str(ROOT / word) if word.startswith("configs/") else word for word in words[2:]]
            more = {"train.py": TINY, "finetune.py": (*BRIEF, *NETWORK), "evaluate.py": ("bootstrap=100",)}
            said = call(words[1].removesuffix(".py"), *arguments, *more[words[1]])
            assert said.status == 0, (words, said.err)
        ran.append(" ".join(words[1:3]))
    assert {"-m mim.data.doctor", "-m mim.data.prepare", "-m mim.data.write_splits"} <= set(ran)
    assert [word for word in ran if word.endswith(".py") or ".py " in word][-1].startswith("evaluate.py")
    with (export / "films" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "patient_id", "date", "caries", "split"]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    with (export / "films" / "problems.csv").open(newline="") as file:
        assert [row["problem"] for row in csv.DictReader(file)] == ["outside"]
    kinds = ("ris", "yolo", "voc", "masks", "dentex")
    columns = {kind: read_labels(tmp_path / "labels" / kind) for kind in kinds}
    wanted = {row["image"]: row["caries"] for row in rows}
    assert all({image: cells[0] for image, cells in found.items()} == wanted for found in columns.values())
    assert (tmp_path / "runs" / "classify" / "report.html").is_file()
    assert "Doe" not in (export / "films" / "labels.csv").read_text()


def read_labels(folder: Path) -> dict[str, list[str]]:
    """Last cell of each row: the label."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    return {row[0]: row[-1:] for row in rows[1:]}
