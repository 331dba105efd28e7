"""What a finished run says of films: `python -m mim.predict RUN FILES_OR_FOLDERS...`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mim.config import door
from mim.errors import MimError

_DIFFERENCES = ("modality", "size", "aspect", "brightness", "colour", "unknown")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m mim.predict",
        description="Score films with a finished run of finetune.py, and draw what its network saw of them. Research "
        "software, not a medical device.",
    )
    made.add_argument("run", type=Path, help="folder of the run")
    made.add_argument("films", type=Path, nargs="+", help="files (DICOM, PNG, JPEG, TIFF, NIfTI) and folders of them")
    made.add_argument("--output", type=Path, help="folder of predictions.json and overlays/ (predictions)")
    made.add_argument(
        "--json", metavar="FILE", help="write predictions.json to this file as well; - = to standard output, and "
        "nothing else anywhere unless --output is given"
    )  # fmt: skip
    made.add_argument(
        "--allow",
        action="append",
        default=[],
        choices=_DIFFERENCES,
        metavar="WHAT",
        help="take films that differ from those of the training in modality, size, aspect, brightness (inverted?) or "
        "colour; unknown = the run does not say what it was made for; may be given several times",
    )
    made.add_argument(
        "--threshold", type=float, help="call films, studies or boxes positive from this score on (that of evaluate.py)"
    )
    made.add_argument(
        "--studies", metavar="CSV", type=Path, help="for runs on studies: which study each file is of (columns image, "
        "study_id, series_order); without it the Study Instance UID of DICOM files, and folders of others"
    )  # fmt: skip
    made.add_argument("--batch-size", type=int, default=64, help="films (or studies) at a time (64, as evaluate.py)")
    made.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="device (auto)")
    made.add_argument("--workers", type=int, help="processes that read files (all cores)")
    made.add_argument("--no-overlays", action="store_true", help="draw no pictures")
    made.add_argument("--dicom", action="store_true", help="write DICOM reports and segmentations into dicom/, too")
    made.add_argument("--hide-names", action="store_true", help="call files by the hash of their content")
    made.add_argument("--overwrite", action="store_true", help="predict again what is in the output already")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and predicts.

    Raises:
        MimError: bad input, in one line.
    """
    given = parser().parse_args(arguments)
    if given.batch_size < 1 or (given.workers is not None and given.workers < 1):
        raise MimError("--batch-size and --workers must be at least 1")
    if given.threshold is not None and not 0 <= given.threshold <= 1:
        raise MimError("--threshold must be from 0 to 1")
    from mim.stages.common import start_logging
    from mim.stages.predict import PredictOptions, predict

    start_logging()
    output = given.output or (None if given.json == "-" else Path("predictions"))
    predict(
        PredictOptions(
            run=given.run,
            paths=tuple(given.films),
            output=output,
            json=given.json,
            allow=frozenset(given.allow),
            batch_size=given.batch_size,
            accelerator=given.accelerator,
            threshold=given.threshold,
            overlays=not given.no_overlays,
            studies=given.studies,
            dicom=given.dicom,
            overwrite=given.overwrite,
            hide_names=given.hide_names,
            workers=given.workers,
        )
    )


if __name__ == "__main__":
    sys.exit(door(main))
