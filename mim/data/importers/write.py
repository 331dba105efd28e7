"""mim's own form of annotations: labels.csv, boxes.coco.json, and problems.csv for what was wrong."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mim.data.importers.types import ImportedImage, Problem
from mim.errors import MimError
from mim.files import write_atomically

LABELS, BOXES, PROBLEMS = "labels.csv", "boxes.coco.json", "problems.csv"
_FIRST = ("image", "patient_id", "split", "site", "date")


def label_rows(images: Sequence[ImportedImage], columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of labels.csv with their header; columns about the patient only where something is known.

    Raises:
        MimError: A class or label has the name of one of those columns.
    """
    clash = sorted(set(columns) & set(_FIRST))
    if clash:
        raise MimError(f"a class or label is called {clash[0]!r}, which is a column of labels.csv: rename it")
    known = [name for name in _FIRST[1:] if any(getattr(image, name) for image in images)]
    header = ("image", *known, *columns)
    return [
        header,
        *(
            (image.name, *(getattr(image, name) for name in known), *(image.labels.get(own, "") for own in columns))
            for image in images
        ),
    ]


def coco_of(images: Sequence[ImportedImage], classes: Sequence[str]) -> dict[str, Any]:
    """All boxes in COCO's form; images whose size is not known cannot be in it."""
    sized = [image for image in images if image.size is not None]
    listed = [
        {"id": number, "file_name": image.name, "width": image.size[0], "height": image.size[1]}
        for number, image in enumerate(sized, start=1)
        if image.size is not None
    ]
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(sized, start=1):
        for box in image.boxes:
            left, top, right, bottom = (round(side, 3) for side in box.xyxy)
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": classes.index(box.category) + 1,
                "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
                "area": _area(box.segmentation, (right - left) * (bottom - top)),
                "iscrowd": 0,
            }
            if box.segmentation is not None:
                annotation["segmentation"] = box.segmentation
            if box.attributes:
                annotation["attributes"] = dict(box.attributes)
            annotations.append(annotation)
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return {"images": listed, "annotations": annotations, "categories": categories}


def write_rows(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV whole or not at all; names of files may be of any bytes."""
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\r\n").writerows(rows)  # else a lone carriage return in a name is not quoted
    write_atomically(path, table.getvalue().encode("utf-8", "surrogateescape"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_atomically(path, json.dumps(content) + "\n")


def problem_rows(problems: Sequence[Problem]) -> list[tuple[object, ...]]:
    """Rows of problems.csv with their header, in the order of files and rows."""
    ordered = sorted(problems, key=lambda own: (own.place.file, own.place.row or 0, own.kind, own.detail))
    rows = [(own.place.file, own.place.row or "", own.kind, own.image, own.detail) for own in ordered]
    return [("file", "row", "problem", "image", "detail"), *rows]


def _area(segmentation: Any, of_box: float) -> float:
    """Pixels of a segmentation (shoelace formula for polygons); of a box where it cannot be told without decoding."""
    if isinstance(segmentation, list):
        return round(sum(_polygon_area(points[::2], points[1::2]) for points in segmentation), 3)
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        return float(sum(segmentation["counts"][1::2]))
    return round(of_box, 3)


def _polygon_area(across: Sequence[float], down: Sequence[float]) -> float:
    turned = zip(across, (*down[1:], down[0]), strict=True)
    back = zip((*across[1:], across[0]), down, strict=True)
    return abs(sum(x * y for x, y in turned) - sum(x * y for x, y in back)) / 2
