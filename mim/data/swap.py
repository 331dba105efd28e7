"""A new folder in the place of an old one, without a moment at which neither is there."""

import ctypes
import errno
import os
import shutil
from pathlib import Path

from mim.files import sync

_CURRENT_FOLDER = -100  # AT_FDCWD of fcntl.h
_EXCHANGE = 2  # RENAME_EXCHANGE of linux/fs.h
_NOT_OFFERED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def put_in_place(new: Path, place: Path) -> None:
    """Rename `new` to `place`; a folder that stands there is removed afterwards.

    Where the system can exchange two names at once (renameat2, Linux 3.15, not on every file system), `place` is always
    the old or the new folder. Elsewhere it is absent for an instant; `mend` repairs what a process leaves that is
    killed then.

    Raises:
        OSError: The folders cannot be renamed; both are still there.
    """
    if not place.exists():
        new.rename(place)
    elif _exchange(new, place):
        sync(place.parent)
        shutil.rmtree(new)
    else:
        aside = _aside(place)
        place.rename(aside)
        new.rename(place)
        sync(place.parent)
        shutil.rmtree(aside)
    sync(place.parent)


def mend(place: Path) -> None:
    """Bring back, or clear away, the old folder where a process was killed while it was being replaced."""
    aside = _aside(place)
    if not aside.exists():
        return
    if place.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(place)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.replaced")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names; return False where the system or the file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if rename(_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_OFFERED:
        return False
    raise OSError(code, os.strerror(code), str(one))
