"""Importing annotations, and reading back what came out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

from annotation_factory import (
    coco,
    dentex,
    write_json,
    write_masks,
    write_voc,
    write_yolo,
)

from mim.data.import_labels import main


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(films: Path, source: Path, kind: str, *more: str) -> tuple[int, Path]:
    output = films.parent / "out"
    status = main([str(source), "--format", kind, "--images", str(films), "--output", str(output), *more])
    return status, output


def problems(output: Path) -> list[tuple[str, str, str]]:
    path = output / "problems.csv"
    return [(row["problem"], row["row"], row["image"]) for row in rows(path)] if path.is_file() else []


def boxes_of(output: Path) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    content = json.loads((output / "boxes.coco.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    classes = {category["id"]: category["name"] for category in content["categories"]}
    found: dict[str, list[tuple[str, tuple[float, ...]]]] = {name: [] for name in names.values()}
    for annotation in content["annotations"]:
        x, y, w, h = annotation["bbox"]
        found[names[annotation["image_id"]]].append((classes[annotation["category_id"]], (x, y, x + w, y + h)))
    return found


SOURCES: dict[str, Callable[[Path], Path]] = {
    "coco": lambda folder: write_json(folder / "boxes.json", coco()),
    "dentex": lambda folder: write_json(folder / "dentex.json", dentex()),
    "yolo": write_yolo,
    "voc": write_voc,
    "masks": write_masks,
}
