"""Films that somebody names: whatever stands at a path, reading it comes to an end."""

import hashlib
import os
from pathlib import Path

from mim.data.given_files import hash_file


def test_only_files_have_a_hash(tmp_path: Path) -> None:
    (tmp_path / "film.png").write_bytes(b"film")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere")
    assert hash_file(tmp_path / "film.png") == hashlib.sha256(b"film").hexdigest()
    for nothing in ("pipe.png", "link.png", "missing.png", "."):
        assert hash_file(tmp_path / nothing) == "", nothing
    assert hash_file(Path("/dev/zero")) == ""
