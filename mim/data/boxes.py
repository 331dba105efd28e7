"""Boxes of lesions from a COCO file, joined to the films of a prepared dataset."""

import json
from collections import defaultdict
from pathlib import Path

from mim.data.matching import FilmFinder, locate
from mim.data.regions import Box, map_box
from mim.data.store import PreparedDataset
from mim.errors import MimError


def read_boxes(dataset: PreparedDataset, source: Path, coco: str) -> dict[int, list[Box]]:
    """Reads the boxes of a COCO file.

    Args:
        dataset: The films.
        source: The folder of films (data.path).
        coco: The file, relative to `source`.

    Returns:
        For each film that has any, by its number in the dataset: boxes xyxy as shares of the width and height of the
        film, or of the part of it that is stored, so that they hold at any size. Boxes of the file count pixels of the
        whole film; those that hardly touch a part are left out of it (`mim.data.regions.map_box`).

    Raises:
        MimError: The file is missing or is not COCO, or names a film that is not in the dataset.
    """
    path = locate(dataset, source, coco)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        found = [(int(entry["image_id"]), [float(v) for v in entry["bbox"]]) for entry in content["annotations"]]
    except OSError as error:
        raise MimError(f"{path}: cannot be read, {error.strerror} (data.boxes)") from error
    except (ValueError, KeyError, TypeError) as error:
        raise MimError(f"{path}: is not a COCO file ({type(error).__name__}: {error}) (data.boxes)") from error
    finder = FilmFinder(dataset, source, path)
    boxes: dict[int, list[Box]] = defaultdict(list)
    for number, (image, box) in enumerate(found):
        if image not in names or len(box) != 4:
            raise MimError(f"{path}: annotation {number} names no image of the file or has no box (data.boxes)")
        left, top, width, height = box
        for film in finder.find(names[image]):
            row = dataset.rows[film]
            part = map_box((left, top, left + width, top + height), row.crop)
            if part is not None:
                wide, high = (row.width, row.height) if row.crop is None else (row.crop.width, row.crop.height)
                boxes[film].append((part[0] / wide, part[1] / high, part[2] / wide, part[3] / high))
    return dict(boxes)
