"""The work of preparing: decode every file of a folder and store its films."""

import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from mim.data.decode import DecodedFile, DecodeOptions, Skipped, decode_file, unreadable
from mim.data.privacy import salt_check
from mim.data.processes import Failure, Limits, available_cores, map_in_processes
from mim.data.scan import SourceFile, fingerprint
from mim.data.store import FORMAT_VERSION, REPORT
from mim.data.writer import StoreWriter, count_by_reason
from mim.errors import MimError

logger = logging.getLogger(__name__)

Bits = Literal[8, 16]

FILE_LIMITS = Limits(seconds=10.0, memory=2 * 2**30)
"""What the decoding of one file may take where nothing else is said."""


def lock_of(output: Path) -> Path:
    """The file that a process locks while it prepares `output`."""
    return output.with_name(f".{output.name}.lock")


def build(
    files: Sequence[SourceFile],
    output: Path,
    options: DecodeOptions,
    workers: int | None,
    limits: Limits = FILE_LIMITS,
) -> None:
    """Decode files into a new dataset; the caller holds the lock of `output`.

    A file that takes more than `limits` is listed among the skipped ones.

    Raises:
        MimError: Nothing is readable, or `output` cannot be written.
    """
    stored = {"long_side": options.long_side, "bits": options.bits, "voi": options.voi, "color": options.color}
    check = salt_check(options.salt)
    header = {
        "format": FORMAT_VERSION,
        **stored,
        "salt_check": check,
        "files": fingerprint(files, *(file.image for file in files)),
    }
    try:
        with StoreWriter(output, header) as writer:
            _decode_all(files[writer.files_done :], writer, options, workers, limits, total=len(files))
            if not writer.rows:
                writer.discard()
                raise MimError(
                    f"{options.root}: no film could be read: {_in_words(writer.skipped, len(files))}; "
                    "data.path must hold DICOM, PNG, JPEG, TIFF or NIfTI radiographs"
                )
            writer.finish(options.root, stored, check)
    except OSError as error:
        raise MimError(f"{output} cannot be written ({error}): make room, or choose another folder") from error
    listed = f"; {_in_words(writer.skipped)}, listed in {output / REPORT}" if writer.skipped else ""
    logger.info("%d films from %d files%s", len(writer.rows), len(files), listed)


def _decode_all(
    files: Sequence[SourceFile],
    writer: StoreWriter,
    options: DecodeOptions,
    workers: int | None,
    limits: Limits,
    total: int,
) -> None:
    count = max(1, min(workers or available_cores(), len(files)))
    decoded = map_in_processes(
        partial(decode_file, options=options),
        (file.image for file in files),
        workers=count,
        failed=partial(_failed, limits),
        limits=limits,
        preload=["mim.data.decode"],
    )
    interval = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(total=total, initial=total - len(files), desc="preparing", unit="file", mininterval=interval) as bar:
        for result in decoded:
            writer.add(result)
            bar.update()


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
