"""Open a prepared dataset, or prepare a folder of films once for all processes that ask for it."""

import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path

from mim.data.build import Bits, build, clean_up, header_of, lock_of
from mim.data.crop import Crop
from mim.data.decode import DecodeOptions
from mim.data.earlier import EarlierDataset
from mim.data.journal import adopt
from mim.data.locking import locked
from mim.data.privacy import load_salt, salt_check
from mim.data.processes import refuse_unguarded_script
from mim.data.radiograph_types import ColourPolicy
from mim.data.scan import SourceFile, fingerprint, scan
from mim.data.store import FORMAT_VERSION, REPORT, PreparedDataset, is_prepared, part_of
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
    crop: Crop = "none",
    tile: int | None = None,
    tile_overlap: int = 0,
    workers: int | None = None,
    stall_seconds: float = STALL_SECONDS,
    poll_seconds: float = 1.0,
) -> PreparedDataset:
    """Open `path` if it is a prepared dataset, else the one in `cache` made from it, after making it if need be.

    The name in the cache holds a fingerprint of the files (relative paths, sizes, times of change) and of the options,
    so that a folder is prepared again when, and only when, something changed. Films of files that have not changed are
    then taken over from the dataset before, which stays for the runs that read it. Of several ranks (environment RANK)
    only the first prepares; the others wait. Of several processes that ask at once, one prepares.

    Args:
        path: Folder of films, or a prepared dataset.
        cache: Where prepared datasets and their salt are kept.
        long_side: Longer side of a stored film in pixels.
        bits: Bits of a stored pixel.
        voi: Which of several VOI LUTs and windows, see `mim.data.read_radiograph`.
        color: What is done with colour pictures: "skip" or "gray".
        crop: What is taken away around a film (`mim.data.crop`).
        tile: Side of the windows that films are cut into, unreduced; None = they stay whole.
        tile_overlap: Pixels by which neighbouring windows overlap.
        workers: Processes that decode; None = as many as there are cores.
        stall_seconds: How long a waiting rank bears that nothing changes.
        poll_seconds: How often a waiting rank looks.

    Raises:
        MimError: As `prepare`; or the waiting rank saw nothing change for too long.
    """
    wanted = DecodeOptions(
        path.resolve(), long_side, bits, b"", voi=voi, color=color, crop=crop, tile=tile, tile_overlap=tile_overlap
    )
    if is_prepared(path):
        return _open_as_it_is(path, wanted)
    files = scan(path, leave_out=[cache])
    options = replace(wanted, salt=load_salt(cache))
    key = fingerprint(files, FORMAT_VERSION, *options.stored().values(), salt_check(options.salt))
    output = cache.absolute() / f"{path.resolve().name}-{key[:12]}"
    if not is_prepared(output):
        if int(os.environ.get("RANK", "0")) > 0:
            _wait_for(output, stall_seconds, poll_seconds)
        else:
            _make(output, files, options, workers)
    return PreparedDataset.open(output)


def _make(output: Path, files: Sequence[SourceFile], options: DecodeOptions, workers: int | None) -> None:
    """Prepare into the cache, unless another process has done so meanwhile."""
    refuse_unguarded_script()
    with locked(lock_of(output)):
        clean_up(output)
        if is_prepared(output):
            return
        _adopt_half_made(output, options)
        earlier = _latest(output, options)
        change = f" ({earlier.in_words(files, options)} since {earlier.dataset.path})" if earlier else ""
        logger.info("preparing %d files in %s%s", len(files), output, change)
        build(files, output, options, workers, earlier)


def _open_as_it_is(path: Path, wanted: DecodeOptions) -> PreparedDataset:
    dataset = PreparedDataset.open(path)
    made_with = dataset.report["options"]
    for name, value in wanted.stored().items():
        if made_with.get(name, value) != value:
            logger.warning(
                "%s was prepared with %s %s: data.%s %s changes nothing", *(path, name, made_with[name], name, value)
            )
    return dataset


def _latest(output: Path, options: DecodeOptions) -> EarlierDataset | None:
    """Find the newest dataset in the cache that was made of the same folder with the same options."""
    found = filter(is_prepared, _siblings(output))
    for path in sorted(found, key=lambda path: (path / REPORT).stat().st_mtime_ns, reverse=True):
        try:
            earlier = EarlierDataset(path)
        except MimError as error:
            logger.warning("nothing can be taken over from an earlier preparation: %s", error)
            continue
        if earlier.dataset.source == options.root and earlier.fits(options):
            return earlier
    return None


def _adopt_half_made(output: Path, options: DecodeOptions) -> None:
    """Go on with a preparation of the same folder that was cut off before files came or went."""
    for part in sorted(_siblings(output, ".part")):
        with locked(lock_of(part.with_name(part.name.removesuffix(".part"))), wait=False) as held:
            if held and adopt(output, part, header_of(options)):
                return


def _siblings(output: Path, suffix: str = "") -> Iterator[Path]:
    """What else the cache holds of a folder of this name."""
    stem = output.name.rpartition("-")[0]
    found = output.parent.glob(f"{escape(stem)}-{'[0-9a-f]' * 12}{suffix}")
    return (path for path in found if path not in (output, part_of(output)))


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
