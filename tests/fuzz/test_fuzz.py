"""A short run of what `make fuzz` runs long, and the inputs that once failed."""

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_corpus import drawn, real
from fuzz_mutate import mutant
from fuzz_run import Findings, run
from fuzz_worker import Examined

from mim.data.decode import DecodeOptions, Skipped, decode_file

# Numbers of seed 0 that once took long, crashed, or met an "unexpected-error".
ONCE_FAILED = (477, 543, 594, 4741, 5389)


def options(folder: Path) -> DecodeOptions:
    return DecodeOptions(folder, 512, 8, bytes(32))


def test_an_input_is_a_function_of_seed_and_number() -> None:
    films = drawn()
    assert mutant(films, 0, 5) == mutant(films, 0, 5)
    assert len({mutant(films, seed, number)[1] for seed in (0, 1) for number in range(10)}) > 15


def test_films_that_are_not_mutated_are_read_but_for_those_of_unknown_kinds(tmp_path: Path) -> None:
    unread = {}
    for name, data in drawn().items():
        (tmp_path / "film").write_bytes(data)
        for skipped in decode_file("film", options(tmp_path)).skipped:
            unread[name] = skipped.reason
    unread.pop("dicom JPEGExtendedProcess2_4", None)  # 12 bits; not every decoder knows them
    assert unread == {"jpeg cmyk": "colour", "tiff float": "unsupported-object"}


def test_broken_films_are_read_or_refused_and_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    findings = run(drawn(), [*ONCE_FAILED, *range(50_000, 50_200)], seed=0, folder=tmp_path)
    assert findings.violations == []
    assert findings.inputs == 200 + len(ONCE_FAILED)
    assert findings.reasons["read"] > 20
    assert len(findings.reasons) >= 7, "the mutations reach many of the reader's verdicts"


def test_broken_real_films_are_read_or_refused(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(real(shared_data), range(50_000, 50_060), seed=0, folder=tmp_path).violations == []


def test_the_run_can_fail() -> None:
    findings = Findings()
    findings.add(Examined("a", 0, (Skipped("a", None, "unexpected-error", "ValueError in x.py"),), 0.1, 0), "a")
    findings.add(Examined("b", 1, (), 13.0, 0), "b")
    findings.add(Examined("c", 1, (), 0.1, 3 << 30), "c")
    findings.add(Examined("d", 1, (), 0.1, 0, did=("open '/etc/x' w",)), "d")
    findings.add(Examined("e", 0, (), 0.1, 0), "e")
    findings.add(Examined("f", 1, (), 0.1, 0), "f")
    assert [line[0] for line in findings.violations] == ["a", "b", "c", "d", "e"]


def test_what_a_process_writes_is_seen(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import fuzz_worker as w; folder = Path(sys.argv[1])\n"
        "def misbehave(image, options):\n"
        "    (folder / 'stray').write_text('x')\n"
        "    bytearray(64 << 20)\n"
        "    return type('Decoded', (), {'films': (), 'skipped': ()})\n"
        "w.decode_file = misbehave\n"
        "seen = w.examine('x', None)\n"
        "print(seen.did); print(w.examine('x', None).did); print(seen.memory)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    did, again, memory = done.stdout.splitlines()
    assert did.count("stray") == 1
    assert again.count("stray") == 1, "each file is told by itself"
    assert int(memory) > 60 << 20
