"""Annotations of other programs to labels.csv and boxes.coco.json: `python -m mim.data.import_labels SOURCE ...`."""

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mim.data.command import run_command
from mim.data.importers.coco import read_coco
from mim.data.importers.dentex import read_dentex
from mim.data.importers.files import Films, read_names
from mim.data.importers.folder import read_folder
from mim.data.importers.masks import mask_pattern, read_masks
from mim.data.importers.table import KNOWN, read_csv
from mim.data.importers.types import Imported, ImportedImage, Problem
from mim.data.importers.validate import validate
from mim.data.importers.voc import read_voc
from mim.data.importers.write import (
    BOXES,
    LABELS,
    PROBLEMS,
    coco_of,
    label_rows,
    problem_rows,
    write_json,
    write_rows,
)
from mim.data.importers.yolo import read_yolo
from mim.errors import MimError

logger = logging.getLogger(__name__)

Format = Literal["folder", "csv", "coco", "yolo", "voc", "dentex", "masks"]
FORMATS: tuple[Format, ...] = ("folder", "csv", "coco", "yolo", "voc", "dentex", "masks")


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How annotations are read.

    Attributes:
        problems: "stop" to write nothing but the list of problems if there are any; "drop" to leave out what is wrong.
        classes: Names of the classes, or one file that names them; empty = those that the annotations name.
        without_label: "problem" or "negative": what an image is that no annotation names.
        labels: csv: the label columns to take.
        columns: csv and patients: what image, patient_id, split, site and date are called.
        patients: A CSV that says who is on which image, and split, site and date if it has them.
        patient_pattern: A regular expression whose first group, found in an image's path, is the patient.
        mask_name: masks: what the mask of an image is called.
        first_pixel: voc: what the first pixel is called, 0 or 1.
    """

    problems: Literal["stop", "drop"] = "stop"
    classes: tuple[str, ...] = ()
    without_label: Literal["problem", "negative"] = "problem"
    labels: tuple[str, ...] = ()
    columns: Mapping[str, str]
    patients: Path | None = None
    patient_pattern: str | None = None
    mask_name: str = "{stem}.png"
    first_pixel: Literal[0, 1] = 0


def import_labels(source: Path, images: Path, output: Path, kind: Format, options: ImportOptions) -> Path:
    """Read annotations, hold them against their images, and write labels.csv and, for boxes, boxes.coco.json.

    Args:
        source: A file (csv, coco, dentex) or a folder (yolo, voc, masks); for folder the images themselves.
        images: The folder of films.
        output: Folder to write into.
        kind: Format of the annotations.
        options: How they are read.

    Returns:
        The path of labels.csv.

    Raises:
        MimError: Something cannot be read or written, or there are problems and the options say stop.
    """
    targets = [output / LABELS, output / BOXES]
    if there := next((path for path in targets if path.exists()), None):
        raise MimError(f"{there} exists already: remove it, or choose another folder (--output)")
    apart = source.resolve() != images.resolve()
    films = Films(
        images,
        source,
        leave_out=[source] if kind == "masks" and apart else [],
        no_films=mask_pattern(options.mask_name) if kind == "masks" and not apart else None,
    )
    imported = _read(source, films, kind, options)
    allowed = None if kind in ("masks", "yolo") else _class_names(options.classes) or None
    found, problems, classes = validate(
        imported, films, allowed, unnamed_are_negative=options.without_label == "negative"
    )
    found = _with_patients(found, films, options)
    columns = [*imported.columns, *(own for own in classes if own not in imported.columns)]
    rows = label_rows(found, columns)
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / PROBLEMS).unlink(missing_ok=True)
        if problems:
            write_rows(output / PROBLEMS, problem_rows(problems))
            if options.problems == "stop":
                raise MimError(
                    f"{source}: {_in_words(problems)}, listed in {output / PROBLEMS}: mend them, or leave out what is "
                    "wrong with --problems drop"
                )
        if not found:
            raise MimError(f"{source}: nothing is left to write ({_in_words(problems)}; see {output / PROBLEMS})")
        if imported.has_boxes:
            write_json(output / BOXES, coco_of(found, classes))
        write_rows(output / LABELS, rows)
    except OSError as error:
        raise MimError(f"{output} cannot be written ({error.strerror})") from error
    listed = f"; {_in_words(problems)}, left out and listed in {output / PROBLEMS}" if problems else ""
    boxes = f", {sum(len(image.boxes) for image in found)} boxes" if imported.has_boxes else ""
    logger.info("%s: %d images%s, label columns %s%s", output / LABELS, len(found), boxes, ", ".join(columns), listed)
    return output / LABELS


def _read(source: Path, films: Films, kind: Format, options: ImportOptions) -> Imported:
    if kind == "folder":
        return read_folder(films)
    if kind == "csv":
        if not options.labels:
            raise MimError("which columns of the CSV are labels? give --label COLUMN, once for each")
        return read_csv(source, options.columns, options.labels)
    if kind == "coco":
        return read_coco(source)
    if kind == "dentex":
        return read_dentex(source)
    if kind == "voc":
        return read_voc(source, films, options.first_pixel)
    if kind == "yolo":
        return read_yolo(source, films, Path(options.classes[0]) if options.classes else None)
    return read_masks(source, films, options.mask_name, _class_names(options.classes))


def _class_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """The names given, or those in the one file given."""
    if len(given) == 1 and Path(given[0]).is_file():
        return read_names(Path(given[0]))
    return given


def _with_patients(found: Sequence[ImportedImage], films: Films, options: ImportOptions) -> list[ImportedImage]:
    """Add who is on each image, from a table or from its path; what the annotations say comes first."""
    images = list(found)
    if options.patients is not None:
        known: dict[str, ImportedImage] = {}
        for row in read_csv(options.patients, options.columns, ()).images:
            image = films.find(row.name)
            if image is None:
                continue
            first = known.setdefault(image, row)
            if replace(first, place=row.place, name=row.name) != row:
                raise MimError(
                    f"{options.patients}: rows {first.place.row} and {row.place.row} name the same image but differ: "
                    "keep the right one"
                )
        names = KNOWN[1:]
        images = [
            replace(image, **{name: getattr(image, name) or getattr(known[image.name], name) for name in names})
            if image.name in known
            else image
            for image in images
        ]
    if options.patient_pattern is not None:
        pattern = _compile(options.patient_pattern)
        images = [
            replace(image, patient_id=match[1] or "")
            if not image.patient_id and (match := pattern.search(image.name))
            else image
            for image in images
        ]
        missing = sum(not image.patient_id for image in images)
        if missing:
            logger.warning("the patient of %d of %d images is not known by --patient-pattern", missing, len(images))
    return images


def _compile(written: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(written)
    except re.error as error:
        raise MimError(f"--patient-pattern {written}: not a regular expression ({error})") from None
    if pattern.groups < 1:
        raise MimError(f"--patient-pattern {written}: put the part that is the patient in parentheses")
    return pattern


def _in_words(problems: Sequence[Problem]) -> str:
    counts = Counter(problem.kind for problem in problems).most_common()
    listed = ", ".join(f"{kind}: {count}" for kind, count in sorted(counts, key=lambda item: (-item[1], item[0])))
    return f"{len(problems)} problems ({listed})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mim.data.import_labels",
        description="Turn annotations of other programs into labels.csv and boxes.coco.json, after checking them.",
    )
    parser.add_argument("source", type=Path, help="file (csv, coco, dentex) or folder (folder, yolo, voc, masks)")
    parser.add_argument("--format", choices=FORMATS, required=True, help="what the annotations are")
    parser.add_argument("--images", type=Path, help="folder of films (for folder: SOURCE)")
    parser.add_argument("--output", type=Path, required=True, help=f"folder for {LABELS}, {BOXES} and {PROBLEMS}")
    parser.add_argument(
        "--problems",
        choices=("stop", "drop"),
        default="stop",
        help="stop: list what is wrong and write nothing else; drop: list it and leave it out (%(default)s)",
    )
    parser.add_argument("--classes", default="", help="names separated by commas, or a file that names them")
    parser.add_argument(
        "--without-label",
        choices=("problem", "negative"),
        default="problem",
        help="what an image is that no annotation names (%(default)s)",
    )
    parser.add_argument("--label", action="append", default=[], help="csv: a label column to take; may be repeated")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="KNOWN=NAME",
        help=f"what {', '.join(KNOWN)} is called in a CSV; may be repeated",
    )
    parser.add_argument(
        "--patients", type=Path, help="CSV of image and patient_id; split, site and date if it has them"
    )
    parser.add_argument("--patient-pattern", help=r"regular expression for the patient in a path, such as '(P\d+)_'")
    parser.add_argument("--mask-name", default="{stem}.png", help="masks: name by the image's stem (%(default)s)")
    parser.add_argument(
        "--first-pixel", type=int, choices=(0, 1), default=0, help="voc: 1 for the original VOC's count"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    columns = dict(word.split("=", 1) for word in given.column if "=" in word)
    if len(columns) != len(given.column) or not set(columns) <= set(KNOWN):
        parser.error(f"--column must be KNOWN=NAME, each once, where KNOWN is one of {', '.join(KNOWN)}")
    images = given.images or (given.source if given.format == "folder" else None)
    if images is None:
        parser.error("--images is needed: the folder of films")
    options = ImportOptions(
        problems=given.problems,
        classes=tuple(name.strip() for name in given.classes.split(",") if name.strip()),
        without_label=given.without_label,
        labels=tuple(given.label),
        columns=columns,
        patients=given.patients,
        patient_pattern=given.patient_pattern,
        mask_name=given.mask_name,
        first_pixel=given.first_pixel,
    )
    return run_command(lambda: import_labels(given.source, images, given.output, given.format, options))


if __name__ == "__main__":
    sys.exit(main())
