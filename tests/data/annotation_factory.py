"""The same annotations in every format: a box of caries and one of a crown on a.png, nothing on b.png."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from film_factory import pattern, write_png
from PIL import Image

WIDTH, HEIGHT = 60, 40
BOXES = {"caries": (6.0, 4.0, 18.0, 12.0), "crown": (30.0, 20.0, 54.0, 36.0)}
CLASSES = tuple(BOXES)


def make_films(folder: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png")):
        write_png(folder / name, pattern(number, HEIGHT, WIDTH))
    return folder


def coco(boxes: dict[str, tuple[float, ...]] | None = None) -> dict[str, Any]:
    listed = BOXES if boxes is None else boxes
    return {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(("a.png", "b.png"))
        ],
        "annotations": [
            {"id": number, "image_id": 0, "category_id": CLASSES.index(name) + 5, "bbox": [x, y, r - x, b - y]}
            for number, (name, (x, y, r, b)) in enumerate(listed.items())
        ],
        "categories": [{"id": number + 5, "name": name} for number, name in enumerate(CLASSES)],
    }


def dentex() -> dict[str, Any]:
    content = coco()
    for number, annotation in enumerate(content["annotations"]):
        del annotation["category_id"]
        annotation |= {"category_id_1": 2, "category_id_2": 5 + number, "category_id_3": number}
    del content["categories"]
    return content | {
        "categories_1": [{"id": number, "name": number + 1, "supercategory": number + 1} for number in range(4)],
        "categories_2": [{"id": number, "name": str(number + 1)} for number in range(8)],
        "categories_3": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
    }


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def yolo_line(index: int, box: tuple[float, ...]) -> str:
    x, y, r, b = box
    return f"{index} {(x + r) / 2 / WIDTH} {(y + b) / 2 / HEIGHT} {(r - x) / WIDTH} {(b - y) / HEIGHT}\n"


def write_yolo(folder: Path) -> Path:
    (folder / "labels").mkdir(parents=True)
    (folder / "classes.txt").write_text("caries\ncrown\n")
    lines = "".join(yolo_line(number, box) for number, box in enumerate(BOXES.values()))
    (folder / "labels" / "a.txt").write_text(lines)
    (folder / "labels" / "b.txt").write_text("")
    return folder


def voc(name: str, boxes: dict[str, tuple[float, ...]], head: str = "") -> str:
    objects = "".join(
        f"<object><name>{own}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{r}</xmax><ymax>{b}</ymax></bndbox>"
        "</object>"
        for own, (x, y, r, b) in boxes.items()
    )
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>1</depth></size>"
    return f"{head}<annotation><filename>{name}</filename>{size}{objects}</annotation>"


def write_voc(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "a.xml").write_text(voc("a.png", BOXES))
    (folder / "b.xml").write_text(voc("b.png", {}))
    return folder


def write_masks(folder: Path, palette: bool = True) -> Path:
    folder.mkdir(parents=True)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for value, (x, y, r, b) in enumerate(BOXES.values(), start=1):
        mask[int(y) : int(b), int(x) : int(r)] = value
    for name, pixels in (("a", mask), ("b", np.zeros_like(mask))):
        image = Image.fromarray(pixels)
        if palette:
            image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(folder / f"{name}_mask.png")
    return folder
