"""Open a prepared dataset, or prepare a folder of films once for all processes that ask for it."""

import logging
import os
import time
from pathlib import Path

from mim.data.build import Bits, build, lock_of
from mim.data.decode import DecodeOptions
from mim.data.locking import locked
from mim.data.privacy import load_salt, salt_check
from mim.data.processes import refuse_unguarded_script
from mim.data.radiograph_types import ColourPolicy
from mim.data.scan import fingerprint, scan
from mim.data.store import FORMAT_VERSION, PreparedDataset, is_prepared, part_of
from mim.errors import MimError

logger = logging.getLogger(__name__)

STALL_SECONDS = 600.0


def open_or_prepare(
    path: Path,
    cache: Path,
    *,
    long_side: int,
    bits: Bits,
    voi: int = 0,
    color: ColourPolicy = "skip",
    workers: int | None = None,
    stall_seconds: float = STALL_SECONDS,
    poll_seconds: float = 1.0,
) -> PreparedDataset:
    """Open `path` if it is a prepared dataset, else the one in `cache` made from it, after making it if need be.

    The name in the cache holds a fingerprint of the files (relative paths, sizes, times of change) and of the options,
    so that a folder is prepared again when, and only when, something changed. Of several ranks (environment RANK) only
    the first prepares; the others wait. Of several processes that ask at once, one prepares.

    Args:
        path: Folder of films, or a prepared dataset.
        cache: Where prepared datasets and their salt are kept.
        long_side: Longer side of a stored film in pixels.
        bits: Bits of a stored pixel.
        voi: Which of several VOI LUTs and windows, see `mim.data.read_radiograph`.
        color: What is done with colour pictures: "skip" or "gray".
        workers: Processes that decode; None = as many as there are cores.
        stall_seconds: How long a waiting rank bears that nothing changes.
        poll_seconds: How often a waiting rank looks.

    Raises:
        MimError: As `prepare`; or the waiting rank saw nothing change for too long.
    """
    if is_prepared(path):
        dataset = PreparedDataset.open(path)
        if (dataset.long_side, dataset.bits) != (long_side, bits):
            logger.warning(
                "%s was prepared with long_side %d and %d bits: data.long_side %d and data.bits %d change nothing",
                *(path, dataset.long_side, dataset.bits, long_side, bits),
            )
        if (dataset.voi, dataset.color) != (voi, color):
            logger.warning(
                "%s was prepared with voi %d and color %s: data.voi %d and data.color %s change nothing",
                *(path, dataset.voi, dataset.color, voi, color),
            )
        return dataset
    files = scan(path, leave_out=[cache])
    salt = load_salt(cache)
    key = fingerprint(files, FORMAT_VERSION, long_side, bits, salt_check(salt), voi, color)
    output = cache.absolute() / f"{path.resolve().name}-{key[:12]}"
    if not is_prepared(output):
        if int(os.environ.get("RANK", "0")) > 0:
            _wait_for(output, stall_seconds, poll_seconds)
        else:
            refuse_unguarded_script()
            with locked(lock_of(output)):
                if not is_prepared(output):
                    logger.info("preparing %d files in %s", len(files), output)
                    options = DecodeOptions(path.resolve(), long_side, bits, salt, voi, color)
                    build(files, output, options, workers)
    return PreparedDataset.open(output)


def dataset_salt(dataset: PreparedDataset, cache: Path) -> bytes:
    """Find the salt that made a dataset's ids: in the cache, or beside the dataset.

    With any other salt, ids hashed from a CSV could not be compared with the dataset's; a warning says so.
    """
    salt = load_salt(cache)
    beside = dataset.path.parent
    if salt_check(salt) != dataset.salt_check and (beside / ".salt").is_file():
        other = load_salt(beside)
        salt = other if salt_check(other) == dataset.salt_check else salt
    if salt_check(salt) != dataset.salt_check:
        logger.warning(
            "%s was prepared with another salt than that of %s: its patients cannot be matched with those of a CSV",
            *(dataset.path, cache),
        )
    return salt


def _wait_for(output: Path, stall_seconds: float, poll_seconds: float) -> None:
    state, since = _state(output), time.monotonic()
    while not is_prepared(output):
        time.sleep(poll_seconds)
        now = _state(output)
        if now != state:
            state, since = now, time.monotonic()
        elif time.monotonic() - since > stall_seconds:
            raise MimError(
                f"{output}: waited {stall_seconds:.0f} s for rank 0 to prepare it and nothing changed; "
                "is data.cache on a disk that all ranks share?"
            )


def _state(output: Path) -> tuple[tuple[str, int, int], ...]:
    """What can be seen of a preparation under way."""
    part = part_of(output)
    if not part.is_dir():
        return ()
    seen = []
    for file in sorted(part.iterdir()):
        try:
            status = file.stat()
        except FileNotFoundError:  # renamed or removed between the two calls: a change as well
            continue
        seen.append((file.name, status.st_size, status.st_mtime_ns))
    return tuple(seen)
