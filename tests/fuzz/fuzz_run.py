"""Feed broken and hostile files to the preparation's own worker processes: `make fuzz`.

What must hold: no file takes longer or more memory than its limit, nothing is written, no file is lost, and each is
either read or refused by a reason of which "unexpected-error" is none. The exit status is 1 where it does not hold.

    python tests/fuzz/fuzz_run.py --inputs 20000 --seed 0
    python tests/fuzz/fuzz_run.py --only 1234 --seed 0 --save broken.bin    makes one input again, and says what it does
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_corpus import drawn, real
from fuzz_mutate import mutant
from fuzz_worker import Examined, examine

from mim.data.build import FILE_LIMITS
from mim.data.decode import DecodeOptions, Skipped
from mim.data.processes import Failure, map_in_processes

_SHARED = Path(os.environ.get("MIM_SHARED_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
_SPARE = 1.2  # on the limits, for what a process does around the decoding
_SHOWN = 20


@dataclass
class Findings:
    """What came of a run."""

    inputs: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    notable: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")

    def add(self, examined: Examined, told: str) -> None:
        """Count one file; `told` says which one it is."""
        self.inputs += 1
        words = sorted({skipped.reason for skipped in examined.skipped}) + ["read"] * (examined.films > 0)
        self.reasons.update(words)
        self.slowest = max(self.slowest, (examined.seconds, told))
        self.largest = max(self.largest, (examined.memory, told))
        assert FILE_LIMITS.seconds is not None
        assert FILE_LIMITS.memory is not None
        if examined.seconds > FILE_LIMITS.seconds * _SPARE:
            self.violations.append(f"{told}: took {examined.seconds:.1f} s")
        if examined.memory > FILE_LIMITS.memory * _SPARE:
            self.violations.append(f"{told}: took {examined.memory / 2**30:.2f} GiB")
        self.violations += [f"{told}: {action}" for action in examined.did]
        if not words:
            self.violations.append(f"{told}: neither read nor refused")
        for skipped in examined.skipped:
            if skipped.reason == "unexpected-error":
                self.violations.append(f"{told}: {skipped.detail}")
            elif skipped.reason in ("crashed", "timeout", "out-of-memory"):
                self.notable.append(f"{told}: {skipped.reason}")

    def summary(self) -> str:
        """Say it in lines."""
        lines = [f"{self.inputs} inputs"]
        lines += [f"  {reason}: {count}" for reason, count in self.reasons.most_common()]
        lines.append(f"slowest: {self.slowest[0]:.2f} s ({self.slowest[1]})")
        lines.append(f"most memory: {self.largest[0] / 2**20:.0f} MiB ({self.largest[1]})")
        for title, found in (("contained", self.notable), ("VIOLATIONS", self.violations)):
            lines.append(f"{title}: {len(found)}")
            lines += [f"  {line}" for line in found[:_SHOWN]]
        return "\n".join(lines)


def run(films: dict[str, bytes], numbers: Iterable[int], *, seed: int, folder: Path, workers: int = 1) -> Findings:
    """Mutate films to the inputs of these numbers, in `folder`, and decode them as the preparation does."""
    findings = Findings()
    inputs, told = folder / "inputs", dict[str, str]()
    inputs.mkdir()
    before = _listing(folder)

    def write() -> Iterator[str]:
        for number in numbers:
            said, data = mutant(films, seed, number)
            image = f"{number}.bin"
            told[image] = f"{number} ({said})"
            (inputs / image).write_bytes(data)
            yield image

    examined = map_in_processes(
        partial(examine, options=DecodeOptions(inputs, 512, 8, bytes(32))),
        write(),
        workers=workers,
        failed=_failed,
        limits=FILE_LIMITS,
        preload=["mim.data.decode"],
    )
    for result in examined:
        findings.add(result, told.pop(result.image))
        (inputs / result.image).unlink()
    findings.violations += [f"{image}: lost" for image in told]
    findings.violations += [f"appeared: {path}" for path in sorted(_listing(folder) - before)]
    return findings


def _failed(image: str, failure: Failure) -> Examined:
    # A process that was ended tells nothing; its limits held it.
    return Examined(image, 0, (Skipped(image, None, failure, ""),), 0.0, 0)


def _listing(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn (%(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first input (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode (%(default)s)")
    parser.add_argument("--only", type=int, help="one input, by its number")
    parser.add_argument("--save", type=Path, help="keep the input of --only in this file")
    options = parser.parse_args()
    # Real files have numbers of their own, so that the numbers of drawn ones mean the same on every machine.
    groups = {"drawn": drawn(), "real": real(_SHARED.resolve())}
    numbers = range(options.first, options.first + options.inputs)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    status = 0
    for group, films in groups.items():
        chosen = [number for number in numbers if (number % 3 == 2) == (group == "real")]
        if not chosen or not films:
            sys.stdout.write(f"{group}: nothing to do\n")
            continue
        if options.save is not None:
            options.save.write_bytes(mutant(films, options.seed, chosen[0])[1])
        with TemporaryDirectory() as folder:
            home, started = Path.cwd(), time.monotonic()
            os.chdir(folder)
            try:
                findings = run(films, chosen, seed=options.seed, folder=Path(folder), workers=options.workers)
            finally:
                os.chdir(home)
        sys.stdout.write(f"{group}, {time.monotonic() - started:.0f} s: {findings.summary()}\n")
        status = max(status, int(bool(findings.violations)))
    return status


if __name__ == "__main__":
    sys.exit(main())
