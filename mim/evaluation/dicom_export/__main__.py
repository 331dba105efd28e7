"""Command line: python -m mim.evaluation.dicom_export PREDICTIONS_JSON [FILES_OR_FOLDERS...]."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mim.errors import MimError
from mim.evaluation.dicom_export.export import export_predictions, load_predictions


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the objects; returns 2 for bad input or where nothing could be written, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m mim.evaluation.dicom_export",
        description="Write what python -m mim.predict said of DICOM films as DICOM Structured Reports (TID 1500) and "
        "Segmentations, which reference the films. They take patient and study over from the film.",
    )
    parser.add_argument("predictions", type=Path, help="predictions.json")
    parser.add_argument(
        "films", type=Path, nargs="*", help="the films, or folders of them (where predictions.json says)"
    )
    parser.add_argument("--output", type=Path, help="folder to write to (dicom, beside predictions.json)")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logger = logging.getLogger(__name__)
    try:
        output = options.output or options.predictions.parent / "dicom"
        done = export_predictions(load_predictions(options.predictions), options.films, output)
        logger.info("%s, in %s", done.in_words(), output)
        if not done.reports:
            raise MimError("nothing was written: give the folder of the DICOM films that were predicted")
    except MimError as error:
        logger.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
