"""Salted hashes that stand for patients, studies and films."""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from mim.data.locking import locked
from mim.errors import MimError

SALT_NAME = ".salt"
_SALT_BYTES = 32


def salted_hash(salt: bytes, identifier: str) -> str:
    """Hash an identifier so that only who holds the salt can tell whom it means.

    HMAC-SHA256 (RFC 2104, FIPS 180-4) of the identifier's UTF-8 bytes, cut to 64 bits.

    Args:
        salt: Secret bytes from `load_salt`.
        identifier: For instance a patient id as it stands in a header; blanks around it do not count.

    Returns:
        16 hexadecimal digits.
    """
    message = identifier.strip().encode("utf-8", "surrogateescape")
    return hmac.new(salt, message, hashlib.sha256).hexdigest()[:16]


def salt_check(salt: bytes) -> str:
    """Name a salt without giving it away, to tell whether two sets of hashes can be compared."""
    return salted_hash(salt, "which salt is this?")[:8]


def load_salt(folder: Path) -> bytes:
    """Read the salt of a folder of prepared datasets; make one, once, where there is none.

    The file `.salt` is readable by its owner only. Whoever holds it can test whether a known patient id is in a
    manifest, so it is not to be given away with a dataset.

    Raises:
        MimError: The file is there but is not a salt, or cannot be read or written.
    """
    return load_salt_file(folder / SALT_NAME)


def load_salt_file(path: Path) -> bytes:
    """Read a salt from a file of any name; make it where it is absent.

    Raises:
        MimError: The file is there but is not a salt, or cannot be read or written.
    """
    try:
        if not path.exists():
            with locked(path.with_name(f"{path.name}.lock")):
                if not path.exists():
                    _write_salt(path)
        return _parse_salt(path.read_text(encoding="ascii"))
    except ValueError as error:
        raise MimError(f"{path} is not a salt (64 hexadecimal digits): restore it, or name another file") from error
    except OSError as error:
        raise MimError(f"{path}: the salt cannot be read or written ({error.strerror})") from error


def _parse_salt(text: str) -> bytes:
    salt = bytes.fromhex(text.strip())
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"{len(salt)} bytes instead of {_SALT_BYTES}")
    return salt


def _write_salt(path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(_SALT_BYTES) + "\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
