"""The work of preparing: decode every file of a folder and store its films."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from mim.data.decode import DecodedFile, DecodeOptions, Skipped, decode_file, unreadable
from mim.data.duplicates import find_copies, report_copies
from mim.data.earlier import EarlierDataset, save_sources
from mim.data.privacy import salt_check
from mim.data.processes import Failure, Limits, available_cores, map_in_processes
from mim.data.scan import SourceFile, is_note, source_key
from mim.data.sheet import SHEET, write_sheet
from mim.data.store import FORMAT_VERSION, JOURNAL, REPORT, PreparedDataset, is_prepared, part_of
from mim.data.swap import mend
from mim.data.writer import StoreWriter, count_by_reason
from mim.errors import MimError

logger = logging.getLogger(__name__)

Bits = Literal[8, 16]

FILE_LIMITS = Limits(seconds=10.0, memory=2 * 2**30)
"""What the decoding of one file may take where nothing else is said."""


def lock_of(output: Path) -> Path:
    """The file that a process locks while it prepares `output`."""
    return output.with_name(f".{output.name}.lock")


def clean_up(output: Path) -> None:
    """Clear away what a process left that was killed just after, or while, it put a dataset in its place."""
    mend(output)
    if is_prepared(output):
        (output / JOURNAL).unlink(missing_ok=True)
        if is_prepared(part_of(output)):  # whole, so it is the dataset that was replaced
            shutil.rmtree(part_of(output))


def build(
    files: Sequence[SourceFile],
    output: Path,
    options: DecodeOptions,
    workers: int | None,
    earlier: EarlierDataset | None = None,
    limits: Limits = FILE_LIMITS,
) -> None:
    """Make a dataset of files; the caller holds the lock of `output`.

    The result is the same whether films are decoded or taken over.

    Args:
        files: What to read, in order.
        output: Where the dataset goes; one that stands there is replaced when the new one is whole.
        options: How films are stored.
        workers: Processes that decode; None = as many as there are cores.
        earlier: A dataset with the same options, whose films are taken over where their files have not changed.
        limits: What a file may take; one that takes more is listed among the skipped ones.

    Raises:
        MimError: Nothing is readable, or `output` cannot be written.
    """
    sources = [source_key(file, options.salt) for file in files]
    try:
        with StoreWriter(output, header_of(options), sources) as writer:
            decode = partial(_decode, options=options, workers=workers, limits=limits)
            _fill(files, sources, writer, partial(_read, decode=decode, options=options, earlier=earlier))
            if not writer.rows:
                writer.discard()
                raise MimError(
                    f"{options.root}: no film could be read: {_in_words(writer.skipped, len(files))}; "
                    "data.path must hold DICOM, PNG, JPEG, TIFF or NIfTI radiographs"
                )
            copies = _complete(writer, files, options, limits)
            writer.finish()
    except OSError as error:
        raise MimError(f"{output} cannot be written ({error}): make room, or choose another folder") from error
    listed = f"; {_in_words(writer.skipped)}, listed in {output / REPORT}" if writer.skipped else ""
    logger.info("%d films from %d files%s", len(writer.rows), len(files), listed)
    if copies["groups"]:
        logger.warning(
            "among them are %d exact and %d near copies of other films, %d of them across patients, listed in %s",
            *(copies["exact"], copies["near"], copies["across_patients"], output / REPORT),
        )
    logger.info("look at %s: are films inverted, or cropped wrong?", output / SHEET)


def header_of(options: DecodeOptions) -> dict[str, Any]:
    """What two preparations must have in common for one to take over what the other did."""
    return {"format": FORMAT_VERSION, "options": options.stored(), "salt_check": salt_check(options.salt)}


def _fill(
    files: Sequence[SourceFile],
    sources: Sequence[str],
    writer: StoreWriter,
    read: Callable[[Sequence[SourceFile]], Iterator[DecodedFile]],
) -> None:
    """Add the files that the writer does not have yet."""
    done = writer.files_done
    left_over = [source in writer.leftover and not is_note(file) for file, source in zip(files, sources, strict=True)]
    to_read = [file for file, old in zip(files[done:], left_over[done:], strict=True) if not old]
    results = read(to_read)
    interval = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(total=len(files), initial=done, desc="preparing", unit="file", mininterval=interval) as bar:
        for source, old in zip(sources[done:], left_over[done:], strict=True):
            if old:
                writer.restore(source)
            else:
                writer.add(next(results))
            bar.update()


def _read(
    files: Sequence[SourceFile],
    decode: Callable[[Sequence[str]], Iterator[DecodedFile]],
    options: DecodeOptions,
    earlier: EarlierDataset | None,
) -> Iterator[DecodedFile]:
    """Yield the films of each file in order, from the earlier dataset where that has them."""
    if earlier is None:
        yield from decode([file.image for file in files])
        return
    known = [earlier.knows(file, options) for file in files]
    decoded = decode([file.image for file, old in zip(files, known, strict=True) if not old])
    for file, old in zip(files, known, strict=True):
        taken = earlier.take(file) if old else next(decoded)
        if taken is None:
            logger.warning("the stored pixels of a file are damaged: it is decoded again")
            taken = next(decode([file.image]))
        yield taken


def _decode(
    images: Sequence[str], options: DecodeOptions, workers: int | None, limits: Limits
) -> Iterator[DecodedFile]:
    return map_in_processes(
        partial(decode_file, options=options),
        images,
        workers=max(1, min(workers or available_cores(), len(images))),
        failed=partial(_failed, limits),
        limits=limits,
        preload=["mim.data.decode"],
    )


def _complete(
    writer: StoreWriter, files: Sequence[SourceFile], options: DecodeOptions, limits: Limits
) -> dict[str, Any]:
    """Write what stands beside the pixels; return what the report says of copies."""
    copies = report_copies(writer.rows, find_copies(writer.rows))
    writer.write_tables({**writer.describe(options.root), "duplicates": copies})
    save_sources(writer.part, files, options.salt)
    write_sheet(PreparedDataset.open(writer.part), writer.part / SHEET, limits)
    return copies


def _failed(limits: Limits, image: str, failure: Failure) -> DecodedFile:
    details = {
        "crashed": "a decoder brought its process down",
        "timeout": f"it took longer than {limits.seconds:g} s (--file-seconds)",
        "out-of-memory": f"it needed more than {(limits.memory or 0) / 2**30:g} GiB (--file-memory)",
    }
    return unreadable(image, failure, details[failure])


def _in_words(skipped: Sequence[Skipped], files: int | None = None) -> str:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in count_by_reason(skipped).items())
    lead = f"{len(skipped)} skipped" if files is None else f"{files} files"
    return f"{lead} ({reasons})"
