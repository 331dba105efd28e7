"""One process at a time, by a lock the system lets go of when its holder dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mim.errors import MimError


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on a file, which is made if need be and left in place.

    Args:
        path: The lock file.
        wait: Whether to wait for another holder; if not, the block runs without the lock.

    Yields:
        Whether the lock is held.

    Raises:
        MimError: The file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise MimError(f"{path.parent} cannot be written ({error.strerror}): choose another folder") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
