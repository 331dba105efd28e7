"""`report.html`: one page by which a person sees whether the films of a dataset came out right."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from mim.data.manifest import ManifestRow
from mim.data.processes import Failure, Limits, map_in_processes
from mim.data.radiograph import ColourPolicy, UnreadableRadiograph, read_radiograph
from mim.data.regions import Rectangle
from mim.data.store import PreparedDataset

SHEET = "report.html"
TEMPLATES = Path(__file__).parent / "templates"

_SAMPLE = 24
_EXTREMES = 12
_GROUPS, _IN_GROUP = 4, 4
_ENTRIES = 20
_PICTURE_SIDE = 256
_FRAME_COLOUR = (60, 170, 255)  # orange, as OpenCV orders channels


@dataclass(frozen=True, slots=True)
class Picture:
    """A film on the page: a data URI, its size, and what is said below it."""

    source: str
    width: int
    height: int
    image_id: str
    caption: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a histogram; `share` is of the longest one."""

    name: str
    count: int
    share: float


def write_sheet(dataset: PreparedDataset, path: Path, limits: Limits) -> None:
    """Write the page: pictures that tell most, what was skipped, and histograms.

    It depends on nothing but the dataset and, for the films that were cropped, their files, which are read once more
    to show what was taken away. Films are named by their image_id alone.

    Args:
        dataset: The films; it may be half-made.
        path: The file to write.
        limits: What reading a file once more may take.
    """
    rows = tuple(dataset.rows)
    sample = _one_a_file(sorted(range(len(rows)), key=lambda number: rows[number].image_id), rows)
    bright = sorted(sample, key=lambda number: (-(rows[number].edge_brightness or 0), rows[number].image_id))
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("sheet.html.jinja").render(
        summary=_summary(dataset),
        sample=[_stored(dataset, number) for number in sample[:_SAMPLE]],
        bright=[_stored(dataset, number) for number in bright[:_EXTREMES]],
        cropped=_cropped(dataset, limits),
        copies=_copies(dataset),
        skipped=_skipped(dataset.report["skipped"]),
        histograms=_histograms(rows),
    )
    path.write_text(page + "\n", encoding="utf-8")


def _films(rows: Sequence[ManifestRow]) -> list[int]:
    """Numbers of the first row of each film; with tiles a film has several."""
    return [number for number, row in enumerate(rows) if not row.tile]


def _one_a_file(numbers: Iterable[int], rows: Sequence[ManifestRow]) -> list[int]:
    """Keep the first of the given rows of each file, lest a file of many frames or tiles fill the page."""
    first: dict[str, int] = {}
    for number in numbers:
        first.setdefault(rows[number].image, number)
    return list(first.values())


def _summary(dataset: PreparedDataset) -> list[tuple[str, str]]:
    report, rows = dataset.report, dataset.rows
    copies = report["duplicates"]
    patients = {row.patient_id for row in rows} - {""}
    tiles = [("Tiles", str(len(rows)))] if report["options"]["tile"] else []
    return [
        ("Source files", str(report["files"])),
        ("Films", str(len(_films(rows)))),
        *tiles,
        ("Patients known from headers", str(len(patients))),
        ("Skipped files and frames", str(len(report["skipped"]))),
        (
            "Copies of other films",
            f"{copies['exact']} exact, {copies['near']} near; {copies['across_patients']} across patients",
        ),
        ("Said to have burnt-in text", str(sum(rows[number].burned_in == "yes" for number in _films(rows)))),
        ("Options", ", ".join(f"{name} {_show(value)}" for name, value in report["options"].items())),
    ]


def _show(value: object) -> str:
    return "none" if value is None else str(value)


def _cropped(dataset: PreparedDataset, limits: Limits) -> list[Picture]:
    """The films of which least was kept, drawn whole with a frame around it."""
    if dataset.report["options"]["crop"] == "none":
        return []
    parts: dict[tuple[str, int], list[Rectangle]] = defaultdict(list)
    first: dict[tuple[str, int], ManifestRow] = {}
    for row in dataset.rows:
        film = (row.image, row.frame)
        first.setdefault(film, row)
        if row.crop is not None:
            parts[film].append(row.crop)
    kept = {film: _hull(part) for film, part in parts.items()}
    share = {film: box.width * box.height / (first[film].width * first[film].height) for film, box in kept.items()}
    least = sorted((film for film in share if share[film] < 1), key=lambda film: (share[film], first[film].image_id))
    of_files: dict[str, tuple[str, int]] = {}
    for film in least:
        of_files.setdefault(film[0], film)
    chosen = list(of_files.values())[:_EXTREMES]
    options = dataset.report["options"]
    read = partial(_read_small, root=dataset.source, voi=options["voi"], color=options["color"])
    wholes = map_in_processes(read, chosen, workers=1, failed=_not_read, limits=limits, preload=["mim.data.decode"])
    return [
        _picture(_framed(small, kept[film], first[film]), first[film], f"{share[film]:.0%} kept")
        for film, small in zip(chosen, wholes, strict=True)
        if small is not None
    ]


def _hull(parts: Iterable[Rectangle]) -> Rectangle:
    left, top, right, bottom = zip(*parts, strict=True)
    return Rectangle(min(left), min(top), max(right), max(bottom))


def _read_small(film: tuple[str, int], root: Path, voi: int, color: ColourPolicy) -> NDArray[np.uint8] | None:
    try:
        pixels = read_radiograph(root / film[0], film[1], voi=voi, color=color).pixels
    except UnreadableRadiograph:  # it could be read a moment ago: the source is changing under our hands
        return None
    return _shrink(np.rint(pixels * np.float32(255)).astype(np.uint8))


def _not_read(film: tuple[str, int], failure: Failure) -> None:
    return None


def _framed(small: NDArray[np.uint8], kept: Rectangle, row: ManifestRow) -> NDArray[np.uint8]:
    across, down = small.shape[1] / row.width, small.shape[0] / row.height
    drawn = cv2.cvtColor(small, cv2.COLOR_GRAY2BGR)
    corner = (int(kept.left * across), int(kept.top * down))
    opposite = (round(kept.right * across) - 1, round(kept.bottom * down) - 1)
    cv2.rectangle(drawn, corner, opposite, _FRAME_COLOUR, 1)
    return np.asarray(drawn, dtype=np.uint8)


def _copies(dataset: PreparedDataset) -> list[dict[str, Any]]:
    """The largest groups of copies."""
    groups = sorted(dataset.report["duplicates"]["groups"], key=lambda group: (-len(group["films"]), group["films"]))
    shown = groups[:_GROUPS]
    wanted = {image_id for group in shown for image_id in group["films"][:_IN_GROUP]}
    number = {row.image_id: place for place, row in enumerate(dataset.rows) if row.image_id in wanted}
    return [
        {
            "title": f"{len(group['films'])} films, {'exact' if group['exact'] else 'near'} copies, "
            f"{'of more than one patient, or of unknown ones' if group['across_patients'] else 'of one patient'}",
            "pictures": [_stored(dataset, number[image_id]) for image_id in group["films"][:_IN_GROUP]],
        }
        for group in shown
    ]


def _skipped(skipped: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    entries: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(skipped):
        entries[item["reason"]].append(number)
    return [
        {
            "name": reason,
            "count": len(numbers),
            "entries": ", ".join(map(str, numbers[:_ENTRIES])) + (", ..." if len(numbers) > _ENTRIES else ""),
        }
        for reason, numbers in sorted(entries.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _histograms(rows: Sequence[ManifestRow]) -> list[tuple[str, list[Bar]]]:
    films = [rows[number] for number in _films(rows)]
    return [
        ("Longer side in pixels", _bars(_size_class(max(row.width, row.height)) for row in films)),
        ("Bits of a pixel in the file", _bars(row.bits for row in films)),
        ("Modality", _bars(row.modality or "not said" for row in films)),
        ("Brightness of the edges", _bars(min(9, int((row.edge_brightness or 0) * 10)) / 10 for row in films)),
    ]


def _size_class(side: int) -> int:
    """The largest of 1, 1.5, 2, 3, 4, 6, 8, ... times a power of two that is no more than the side."""
    power = 1 << (side.bit_length() - 1)
    return power + power // 2 if side >= power + power // 2 else power


def _bars(values: Iterable[int | float | str]) -> list[Bar]:
    counts = Counter(values)
    longest = max(counts.values(), default=1)
    numeric = all(not isinstance(value, str) for value in counts)
    return [
        Bar(f"from {value}" if numeric else str(value), counts[value], counts[value] / longest)
        for value in sorted(counts, key=lambda value: (str(value) if isinstance(value, str) else "", value))
    ]


def _stored(dataset: PreparedDataset, number: int) -> Picture:
    film, row = dataset.image(number), dataset.rows[number]
    gray = np.asarray(film if film.dtype == np.uint8 else film >> 8, dtype=np.uint8)
    said = f"{row.width} x {row.height}, {row.bits} bits {row.modality}".strip()
    return _picture(_shrink(gray), row, said if row.tile is None else f"{said}, tile {row.tile}")


def _shrink(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = film.shape
    scale = _PICTURE_SIDE / max(height, width)
    if scale >= 1:
        return film
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(film, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _picture(pixels: NDArray[np.uint8], row: ManifestRow, caption: str) -> Picture:
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    source = f"data:image/png;base64,{base64.b64encode(encoded).decode('ascii')}"
    return Picture(source, pixels.shape[1], pixels.shape[0], row.image_id, caption)
