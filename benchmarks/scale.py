"""What a dataset costs to open and to shuffle, without its pixels: manifest, index, order of films.

    python benchmarks/scale.py --films 200000

Writes the files of a prepared dataset of many films of 2 by 2 pixels, opens it, and measures processor time and memory.
The files are as for films of any size but for `pixels.bin`. Prints tables for docs/explanation/scale.md.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mim.data.manifest import ManifestRow, read_manifest, write_manifest
from mim.data.rows import find_rows
from mim.data.store import FORMAT_VERSION, INDEX, MANIFEST, PIXELS, REPORT, ROW_STARTS, PreparedDataset

MIB = 1 << 20


def write_dataset(path: Path, films: int) -> None:
    """Writes a dataset whose rows are as long as real ones."""
    path.mkdir(parents=True)

    def rows() -> list[ManifestRow]:
        return [make_row(number) for number in range(films)]

    began = time.process_time()
    write_manifest(path / MANIFEST, rows())
    report("write the manifest", time.process_time() - began)
    began = time.process_time()
    np.save(path / ROW_STARTS, find_rows(path / MANIFEST))
    report("find where its rows begin", time.process_time() - began)
    offsets = np.arange(films, dtype=np.int64) * 5  # 2 x 2 pixels and the 1 x 1 of the half size
    index = np.stack([offsets, np.full_like(offsets, 2), np.full_like(offsets, 2)], axis=1)
    np.save(path / INDEX, index)
    (path / PIXELS).write_bytes(bytes(films * 5))
    options = {"long_side": 512, "bits": 8}
    about = {"format": FORMAT_VERSION, "films": films, "source": "/films", "salt_check": "", "options": options}
    (path / REPORT).write_text(json.dumps(about))


def make_row(number: int) -> ManifestRow:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return ManifestRow(
        image_id=digest[:16],
        image=f"hospital-{number % 7}/2019/{number // 1000:05}/IMG{number:08}.dcm",
        frame=0,
        patient_id=digest[16:32],
        study_id=digest[32:48],
        series_order=number % 10,
        width=2000,
        height=1500,
        bits=12,
        spacing_mm=(0.0371, 0.0371),
        modality="IO",
        sha256=digest,
        content=digest[::-1],
    )


def resident() -> float:
    """Memory of this process that no other has, in MiB: the page cache does not count."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not say")


def report(what: str, seconds: float, mebibytes: float | None = None) -> None:
    memory = "" if mebibytes is None else f"{mebibytes:.1f} MiB"
    time_taken = f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds:.3f} s"
    print(f"| {what} | {time_taken} | {memory} |", flush=True)


def measure(what: str, work: Callable[[], object]) -> object:
    before = resident()
    began = time.process_time()
    result = work()
    report(what, time.process_time() - began, resident() - before)
    return result


def read(path: Path) -> None:
    """Measures what a process that reads films does before the first of them."""
    from mim.data.loader import SampleStream

    dataset = measure("open the dataset", lambda: PreparedDataset.open(path))
    assert isinstance(dataset, PreparedDataset)
    films = len(dataset)
    chosen = np.random.default_rng(0).integers(0, films, 10_000).tolist()
    began = time.process_time()
    for number in chosen:
        dataset.rows[number]
    report("parse one row, anywhere", (time.process_time() - began) / len(chosen))
    measure("go through all rows once, keeping none", lambda: sum(row.width for row in dataset.rows))
    stream = SampleStream(films, 0)
    measure("shuffle an epoch", lambda: stream[0])
    began = time.process_time()
    for position in range(10_000):
        stream[position]
    report("take one place of it", (time.process_time() - began) / 10_000)
    huge = SampleStream(50 * films, 0)
    measure("shuffle an epoch of 50 times as many films", lambda: huge[0])
    rows = measure("for comparison: all rows as Python objects", lambda: read_manifest(path / MANIFEST))
    assert isinstance(rows, tuple)
    assert len(rows) == films


def main() -> None:
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--films", type=int, default=200_000)
    line.add_argument("--folder", type=Path, help="where to write; null = a temporary folder")
    line.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = line.parse_args()
    if options.read:
        read(options.read)
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder)) / "dataset"
    try:
        print(f"{options.films} films\n\n| what | time | private memory |\n|---|---|---|", flush=True)
        write_dataset(folder, options.films)
        subprocess.run([sys.executable, __file__, "--read", str(folder)], check=True)
        print("\n| file | bytes a film |\n|---|---|")
        for name in (MANIFEST, ROW_STARTS, INDEX):
            print(f"| `{name}` | {(folder / name).stat().st_size / options.films:.1f} |")
    finally:
        shutil.rmtree(folder.parent)


if __name__ == "__main__":
    main()
