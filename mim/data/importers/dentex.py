"""DENTEX: COCO with up to three levels of classes, quadrant, tooth and disease.

Hamamci et al., DENTEX: Dental Enumeration and Tooth Pathosis Detection Benchmark for Panoramic X-ray (2023),
https://doi.org/10.48550/arXiv.2305.19112. Ids of quadrants and teeth begin at 0, their names at 1.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mim.data.importers.coco import categories, key_of, parse_coco
from mim.data.importers.files import read_json
from mim.data.importers.types import Imported
from mim.errors import MimError

_LEVELS = {"category_id_1": "categories_1", "category_id_2": "categories_2", "category_id_3": "categories_3"}


def read_dentex(source: Path) -> Imported:
    """Read one of the three kinds of DENTEX files.

    The class of a box is its disease; where the file has none, its tooth as an FDI number (ISO 3950: quadrant, then
    tooth); where it has no teeth either, its quadrant. The FDI number of a disease's tooth is kept as `tooth_fdi`.

    Raises:
        MimError: The file cannot be read or is not DENTEX.
    """
    content = read_json(source)
    if "categories_1" not in content and "categories_2" not in content and "categories_3" not in content:
        if "categories" in content:  # the set with quadrants only
            quadrants = categories(source, content, "categories")
            return parse_coco(
                source, content, lambda found: (_quadrant(quadrants, found), {}), _quadrant_names(quadrants)
            )
        raise MimError(f"{source} has no categories_1, categories_2 or categories_3: it is not a DENTEX file")
    levels = {key: categories(source, content, name) for key, name in _LEVELS.items() if name in content}
    diseases = levels.get("category_id_3")

    def describe(annotation: Mapping[str, Any]) -> tuple[str | None, dict[str, str]]:
        names = {key: known.get(key_of(annotation.get(key))) for key, known in levels.items()}
        quadrant, tooth = names.get("category_id_1"), names.get("category_id_2")
        if quadrant is None:
            return None, {}
        if "category_id_2" not in levels:
            return f"quadrant {quadrant}", {}
        fdi = _fdi(quadrant, tooth)
        if diseases is None or fdi is None:
            return fdi, {}
        return names["category_id_3"], {"tooth_fdi": fdi}

    if diseases is not None:
        classes = tuple(diseases.values())
    elif "category_id_2" in levels:
        pairs = (
            _fdi(quadrant, tooth)
            for quadrant in levels.get("category_id_1", {}).values()
            for tooth in levels["category_id_2"].values()
        )
        classes = tuple(number for number in pairs if number is not None)
    else:
        classes = _quadrant_names(levels["category_id_1"])
    return parse_coco(source, content, describe, classes)


def _fdi(quadrant: str, tooth: str | None) -> str | None:
    """Return the FDI number of a permanent tooth: quadrant 1 to 4, tooth 1 to 8 from the midline."""
    if quadrant not in tuple("1234") or tooth not in tuple("12345678"):
        return None
    return f"{quadrant}{tooth}"


def _quadrant(quadrants: Mapping[str, str], annotation: Mapping[str, Any]) -> str | None:
    name = quadrants.get(key_of(annotation.get("category_id")))
    return None if name is None else f"quadrant {name}"


def _quadrant_names(quadrants: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"quadrant {name}" for name in quadrants.values())
