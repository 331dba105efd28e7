"""Annotations held against the images they are of: what is sound goes on, what is not is listed."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from mim.data.importers.types import Imported, ImportedBox, ImportedImage, Place, Problem, plain

_MARGIN = 1.0  # pixels by which rounding may carry a box beyond its image


class KnownFilms(Protocol):
    """The films that annotations are held against."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""

    def find(self, name: str) -> str | None:
        """Return the film that a name means, or None."""

    def size(self, image: str) -> tuple[int, int] | None:
        """Return (width, height) in pixels; None where it cannot be told."""


def validate(
    imported: Imported, films: KnownFilms, allowed: Collection[str] | None, *, unnamed_are_negative: bool = False
) -> tuple[list[ImportedImage], list[Problem], tuple[str, ...]]:
    """Check every image and box.

    A box that cannot be drawn (outside, empty, on an image of another size) is left out, but not its class: somebody
    saw it there, so the image is still labelled with it. Where a class was not understood, the image is labelled with
    the classes that were found and neither way with the others.

    Args:
        imported: What an importer gave.
        films: The images.
        allowed: The classes there may be; None = all that the annotations name.
        unnamed_are_negative: Whether nothing was found on images that no annotation names; else they are listed.

    Returns:
        The images that are sound, under their names in the folder and sorted by them, with `labels` complete; the
        problems; and the classes.
    """
    problems = list(imported.problems)
    classes = tuple(imported.classes if allowed is None else allowed)
    entries = _by_image(imported.images, films, problems)
    images = []
    for name, entry in sorted(entries.items()):
        images.append(_checked(entry, name, films, imported, classes, problems))
    named = entries.keys() | {problem.image for problem in problems}
    for name in films.names:
        if name in named:
            continue
        if unnamed_are_negative:
            entry = ImportedImage(name, Place(name))
            images.append(_checked(entry, name, films, imported, classes, problems))
        else:
            problems.append(Problem("file-without-label", Place(name), name, "no annotation names this image"))
    return sorted(images, key=lambda image: image.name), problems, classes


def _by_image(entries: Iterable[ImportedImage], films: KnownFilms, problems: list[Problem]) -> dict[str, ImportedImage]:
    """Find each entry's image; entries for one image that differ are all left out, for none is known to be right."""
    found: dict[str, ImportedImage] = {}
    differing: set[str] = set()
    for entry in entries:
        image = films.find(entry.name)
        if image is None:
            problems.append(
                Problem("image-without-file", entry.place, plain(entry.name), "it is not in the folder of films")
            )
        elif image in found and _said(found[image]) != _said(entry):
            first = found[image].place
            detail = f"row {first.row} says something else" if first.row else "another file says something else"
            problems.append(Problem("image-twice", entry.place, image, detail))
            differing.add(image)
        else:
            found.setdefault(image, entry)
    return {image: entry for image, entry in found.items() if image not in differing}


def _said(entry: ImportedImage) -> tuple[Any, ...]:
    boxes = [(box.category, box.xyxy) for box in entry.boxes]
    return dict(entry.labels), boxes, entry.patient_id, entry.split, entry.site, entry.date


def _checked(
    entry: ImportedImage,
    name: str,
    films: KnownFilms,
    imported: Imported,
    classes: Sequence[str],
    problems: list[Problem],
) -> ImportedImage:
    size = films.size(name) if imported.has_boxes else None
    unsure = entry.unsure
    if imported.has_boxes and size is None:
        problems.append(Problem("unreadable-image", entry.place, name, "its size cannot be told, nor where boxes are"))
    if size is not None and entry.size is not None and size != entry.size:
        detail = f"annotated at {entry.size[0]} x {entry.size[1]}, the image has {size[0]} x {size[1]} pixels"
        problems.append(Problem("other-size", entry.place, name, detail))
        size = None
    seen: set[str] = set()
    boxes: list[ImportedBox] = []
    places: set[tuple[Any, ...]] = set()
    for box in entry.boxes:
        if box.category not in classes:
            problems.append(
                Problem("unknown-class", box.place, name, f"class {box.category!r} is not among the classes")
            )
            unsure = True
            continue
        seen.add(box.category)
        where = (box.category, *(round(side) for side in box.xyxy))
        if size is None:
            continue
        if found := _fault(box, size):
            problems.append(Problem(found[0], box.place, name, found[1]))
        elif where in places:
            problems.append(Problem("duplicate-box", box.place, name, f"another {box.category!r} is in the same place"))
        else:
            places.add(where)
            boxes.append(_fit(box, size))
    labels = dict(entry.labels)
    if "class" in imported.columns:
        seen.add(labels["class"])
        if labels["class"] not in classes:
            detail = f"class {labels['class']!r} is not among the classes"
            problems.append(Problem("unknown-class", entry.place, name, detail))
            unsure, labels["class"] = True, ""
    labels |= {own: "1" if own in seen else "" if unsure else "0" for own in classes}
    return replace(entry, name=name, labels=labels, boxes=tuple(boxes), size=size, unsure=unsure)


def _fault(box: ImportedBox, size: tuple[int, int]) -> tuple[Any, str] | None:
    left, top, right, bottom = box.xyxy
    width, height = size
    if right <= left or bottom <= top:
        return "empty-box", f"{right - left:.4g} x {bottom - top:.4g} pixels"
    beyond = max(-left, -top, right - width, bottom - height)
    if beyond > _MARGIN:
        return "outside", f"reaches {beyond:.4g} pixels beyond the image of {width} x {height}"
    lengths = box.segmentation if isinstance(box.segmentation, dict) else None
    if lengths is not None and list(lengths["size"]) != [height, width]:
        return "other-size", "its run lengths are of an image of another size"
    return None


def _fit(box: ImportedBox, size: tuple[int, int]) -> ImportedBox:
    """Clip what rounding carried over the edge."""
    left, top, right, bottom = box.xyxy
    fitted = (max(0.0, left), max(0.0, top), min(float(size[0]), right), min(float(size[1]), bottom))
    return replace(box, xyxy=fitted)
