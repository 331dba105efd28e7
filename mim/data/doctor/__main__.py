"""Command line: python -m mim.data.doctor DIR."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mim.data.doctor.films import check_films
from mim.data.doctor.findings import Finding, to_json, to_text
from mim.data.doctor.labels import check_boxes, check_labels, read_sheet
from mim.data.doctor.survey import Survey, survey
from mim.data.matching import folders_of_labels
from mim.errors import MimError

logger = logging.getLogger(__name__)


def examine(
    path: Path,
    *,
    labels: Path | None = None,
    boxes: Path | None = None,
    target: str | None = None,
    workers: int | None = None,
) -> tuple[Survey, list[Finding]]:
    """Look at a dataset and its labels.

    Args:
        path: A folder of films, or a prepared dataset.
        labels: The CSV; None = labels.csv in `path` or the folder above, if there is one.
        boxes: A COCO file; None = boxes.coco.json, or the only *.coco.json, in `path`, if there is one.
        target: The label column to look at; None = all that hold a few classes.
        workers: Processes that decode; None = all cores.

    Raises:
        MimError: The folder is missing or holds no film, or a file that is named is missing.
    """
    for given, option in ((labels, "--labels"), (boxes, "--boxes")):
        if given is not None and not given.is_file():
            raise MimError(f"{given}: there is no such file ({option})")
    found = survey(path, workers)
    findings = list(check_films(found))
    labels = labels or _beside(found)
    if labels is None:
        text = "no labels.csv here or in the folder above: nothing is known of patients, splits and classes"
        findings.append(
            Finding("look", "labels", text, "name it with --labels, or make one (docs/how-to/your-data.md)")
        )
    else:
        findings += _check_sheet(found, labels, target)
    boxes = boxes or _boxes_beside(found)
    if boxes is not None:
        findings += check_boxes(found, boxes)
    return found, findings


def _check_sheet(found: Survey, labels: Path, target: str | None) -> list[Finding]:
    try:
        sheet = read_sheet(found, labels, target)
    except MimError as error:
        return [Finding("stop", "labels", str(error), "no run can use this table as it is")]
    return list(check_labels(found, sheet, target))


def _beside(found: Survey) -> Path | None:
    folders = folders_of_labels(found.path, None if found.path == found.source else found.source)
    return next((folder / "labels.csv" for folder in folders if (folder / "labels.csv").is_file()), None)


def _boxes_beside(found: Survey) -> Path | None:
    for folder in dict.fromkeys((found.path, found.source)):
        if (folder / "boxes.coco.json").is_file():
            return folder / "boxes.coco.json"
        others = sorted(folder.glob("*.coco.json"))
        if len(others) == 1:
            return others[0]
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found; return 1 if something must be mended first, 2 for bad input, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m mim.data.doctor",
        description="Look at a folder of films, or a prepared dataset, and at its labels. Nothing in it is changed.",
    )
    parser.add_argument("path", type=Path, help="folder of films, or prepared dataset")
    parser.add_argument("--labels", type=Path, help="CSV of labels (labels.csv in the folder or the one above)")
    parser.add_argument("--boxes", type=Path, help="COCO file of boxes (boxes.coco.json in the folder)")
    parser.add_argument("--target", help="label column to look at (all that hold a few classes)")
    parser.add_argument("--json", type=Path, help="write all of it, with whole lists, to this file")
    parser.add_argument("--workers", type=int, help="processes that decode (all cores)")
    options = parser.parse_args(arguments)
    if options.workers is not None and options.workers < 1:
        parser.error("--workers must be at least 1")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        found, findings = examine(
            options.path, labels=options.labels, boxes=options.boxes, target=options.target, workers=options.workers
        )
        if options.json is not None:
            _write(options.json, json.dumps(to_json(findings, len(found.rows)), indent=1) + "\n")
    except MimError as error:
        logger.error("error: %s", error)
        return 2
    files = len({row.image for row in found.rows})
    sys.stdout.write(to_text(f"{options.path}: {len(found.rows)} films of {files} files", findings))
    return int(any(finding.level == "stop" for finding in findings))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MimError(f"{path} cannot be written ({error.strerror}) (--json)") from error


if __name__ == "__main__":
    sys.exit(main())
