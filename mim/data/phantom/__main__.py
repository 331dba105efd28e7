"""Command line: python -m mim.data.phantom --output DIR."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mim.data.phantom.files import write_phantom
from mim.data.phantom.settings import PhantomSettings
from mim.errors import MimError


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    default = PhantomSettings()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    line = argparse.ArgumentParser(
        prog="python -m mim.data.phantom",
        description="Draw bitewing radiographs with caries as DICOM files. They are drawings, not patients.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    line.add_argument("--output", type=Path, required=True, help="folder to write; an equal phantom there is kept")
    line.add_argument("--unlabelled", type=int, default=800, help="films without labels")
    line.add_argument("--labelled", type=int, default=400, help="films with labels, boxes and pixels")
    line.add_argument("--height", type=int, default=default.height, help="rows in pixels")
    line.add_argument("--width", type=int, default=default.width, help="columns in pixels")
    line.add_argument(
        "--films-per-study",
        type=int,
        nargs=2,
        metavar=("FEWEST", "MOST"),
        help="one study of so many films for each patient; without it one to four films",
    )
    line.add_argument("--seed", type=int, default=0, help="seed of everything drawn")
    line.add_argument("--workers", type=int, default=cores, help="processes that draw; they do not change the result")
    line.add_argument(
        "--caries-fraction",
        type=float,
        default=default.caries_fraction,
        help="share of films, or of studies, with caries",
    )
    line.add_argument(
        "--lesion-contrast", type=float, default=default.lesion_contrast, help="share of mineral a lesion has lost"
    )
    line.add_argument(
        "--distractors", type=float, default=default.distractors, help="factor on the number of look-alikes"
    )
    line.add_argument("--noise", type=float, default=default.noise, help="factor on the quantum noise")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the phantom and say where; give the exit status."""
    options = parser().parse_args(arguments)
    try:
        settings = PhantomSettings(
            height=options.height,
            width=options.width,
            caries_fraction=options.caries_fraction,
            lesion_contrast=options.lesion_contrast,
            distractors=options.distractors,
            noise=options.noise,
        )
        summary = write_phantom(
            options.output,
            settings,
            unlabelled=options.unlabelled,
            labelled=options.labelled,
            seed=options.seed,
            workers=options.workers,
            films_per_study=None if options.films_per_study is None else tuple(options.films_per_study),
        )
    except MimError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    verb = "kept: it already holds these" if summary.kept else "written:"
    sys.stdout.write(f"{summary.output} {verb} {summary.films} drawn films\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
