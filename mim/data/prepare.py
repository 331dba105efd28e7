"""A folder of radiographs to a prepared dataset: `python -m mim.data.prepare SOURCE --output DIR`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from mim.data.build import FILE_LIMITS, Bits, build, clean_up, lock_of
from mim.data.command import run_command
from mim.data.crop import Crop
from mim.data.decode import DecodeOptions
from mim.data.earlier import EarlierDataset
from mim.data.locking import locked
from mim.data.privacy import SALT_NAME, load_salt_file
from mim.data.processes import Limits
from mim.data.radiograph_types import ColourPolicy
from mim.data.scan import scan
from mim.data.store import PreparedDataset, is_prepared, part_of
from mim.errors import MimError

logger = logging.getLogger(__name__)


def prepare(
    source: Path,
    output: Path,
    *,
    long_side: int,
    bits: Bits,
    salt: bytes,
    workers: int | None = None,
    voi: int = 0,
    color: ColourPolicy = "skip",
    limits: Limits = FILE_LIMITS,
    crop: Crop = "none",
    tile: int | None = None,
    tile_overlap: int = 0,
) -> PreparedDataset:
    """Read every file of a folder once and store its films for memory-mapped access.

    The result does not depend on the number of workers. A preparation that was cut off is taken up where it stopped.
    Where `output` was made of the same folder with the same options, only files that are new or have changed are
    decoded, what is gone is left out, and the result is that of preparing all anew; the old dataset stays in place
    until the new one is whole.

    Args:
        source: Folder of films; hidden files and folders are left out.
        output: Folder to make or to bring up to date.
        long_side: Longer side of a stored film in pixels; larger films are reduced by area, smaller ones kept.
        bits: Bits of a stored pixel.
        salt: What patient, study and image ids are hashed with (`mim.data.privacy.load_salt`).
        workers: Processes that decode; None = as many as there are cores.
        voi: Which of several VOI LUTs and windows of a DICOM, see `mim.data.read_radiograph`.
        color: What is done with colour pictures: "skip" or "gray".
        limits: What one file may take; one that takes more is skipped as "timeout" or "out-of-memory".
        crop: What is taken away around a film (`mim.data.crop`).
        tile: Side of the windows that films are cut into, unreduced; None = they stay whole.
        tile_overlap: Pixels by which neighbouring windows overlap.

    Raises:
        MimError: The folder is missing, empty or holds nothing readable; options contradict each other; `output` is
            something else, or was made of another folder or with other options; it cannot be written, or is being
            written by another process.
    """
    files = scan(source, leave_out=(output, part_of(output)))
    options = DecodeOptions(
        source.resolve(),
        long_side,
        bits,
        salt,
        voi=voi,
        color=color,
        crop=crop,
        tile=tile,
        tile_overlap=tile_overlap,
    )
    with locked(lock_of(output), wait=False) as held:
        if not held:
            raise MimError(f"{output} is being prepared by another process: wait for it, or choose another folder")
        clean_up(output)
        earlier = _find_earlier(output, options) if output.exists() else None
        if earlier is not None and earlier.is_current(files, options):
            logger.info("%s is up to date: %d films from %d files", output, len(earlier.dataset), len(files))
            return earlier.dataset
        if earlier is not None:
            logger.info("%s is brought up to date: %s", output, earlier.in_words(files, options))
        build(files, output, options, workers, earlier, limits)
    return PreparedDataset.open(output)


def _find_earlier(output: Path, options: DecodeOptions) -> EarlierDataset:
    """Open what stands at `output`, which must be an earlier state of the dataset to be made.

    Raises:
        MimError: It is not.
    """
    if not is_prepared(output):
        raise MimError(f"{output} exists already and is not a prepared dataset: choose another folder (--output)")
    earlier = EarlierDataset(output)
    before = earlier.dataset.source
    if before != options.root and before.is_dir():
        raise MimError(
            f"{output} was prepared from {before}, not from {options.root}: choose another folder (--output)"
        )
    if not earlier.fits(options):
        made_with = " ".join(f"{name}={value}" for name, value in earlier.dataset.report["options"].items())
        raise MimError(
            f"{output} was prepared with other options or another salt ({made_with}): "
            "give the same ones, or choose another folder (--output)"
        )
    return earlier


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    options = _read_options(arguments)
    return run_command(
        lambda: prepare(
            options.source,
            options.output.absolute(),
            long_side=options.long_side,
            bits=options.bits,
            salt=load_salt_file(options.salt_file or options.output.absolute().parent / SALT_NAME),
            workers=options.workers,
            voi=options.voi,
            color=options.color,
            limits=Limits(options.file_seconds, round(options.file_memory * 2**30)),
            crop=options.crop,
            tile=options.tile,
            tile_overlap=options.tile_overlap,
        )
    )


def _read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mim.data.prepare",
        description="Decode a folder of radiographs (DICOM, PNG, JPEG, TIFF, NIfTI) once, for memory-mapped access.",
    )
    parser.add_argument("source", type=Path, help="folder of films")
    parser.add_argument("--output", type=Path, required=True, help="folder to make, or to bring up to date")
    parser.add_argument("--long-side", type=int, default=512, help="longer side of a film in pixels (%(default)s)")
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8, help="bits of a stored pixel (%(default)s)")
    parser.add_argument(
        "--crop",
        choices=get_args(Crop),
        default="none",
        help="take away uniform margins (border), and also what lies outside the shutters (collimation) (%(default)s)",
    )
    parser.add_argument("--tile", type=int, help="cut films into windows of this side in pixels, unreduced")
    parser.add_argument("--tile-overlap", type=int, default=0, help="pixels by which windows overlap (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes that decode (all cores)")
    parser.add_argument(
        "--file-seconds", type=float, default=FILE_LIMITS.seconds, help="longest time for a file (%(default)g s)"
    )
    parser.add_argument("--file-memory", type=float, default=2.0, help="most memory for a file in GiB (%(default)g)")
    parser.add_argument("--salt-file", type=Path, help=f"secret that ids are hashed with ({SALT_NAME} beside --output)")
    parser.add_argument(
        "--voi", type=int, default=0, help="which of several VOI LUTs and windows, from 0 (%(default)s)"
    )
    parser.add_argument(
        "--color", choices=("skip", "gray"), default="skip", help="colour pictures: leave out, or read as gray (skip)"
    )
    options = parser.parse_args(arguments)
    if options.long_side < 16:
        parser.error("--long-side must be at least 16")
    if options.tile is not None and options.tile < 16:
        parser.error("--tile must be at least 16")
    if options.workers is not None and options.workers < 1:
        parser.error("--workers must be at least 1")
    if options.voi < 0:
        parser.error("--voi must be at least 0")
    if not all(0 < limit < float("inf") for limit in (options.file_seconds, options.file_memory)):
        parser.error("--file-seconds and --file-memory must be finite and above 0")
    return options


if __name__ == "__main__":
    sys.exit(main())
