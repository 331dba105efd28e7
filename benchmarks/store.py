"""Reading prepared films back: ours against MONAI's PersistentDataset, webdataset, LMDB and PNG files.

    pip install lmdb webdataset
    python benchmarks/store.py --films 2000

The same films, in the same run, on one core, from a warm page cache, opened once and gone through several times, as in
training. A film is read when its pixels (or those of a crop of 224 by 224 at a random place) are in memory that belongs
to the process: what only maps them pays for a copy. Then a process forks 1 and 8 workers, as torch's DataLoader does,
each of which reads all films of our store, and the memory of all of them is measured, shared pages counted once. Prints
tables for docs/benchmarks.md.
"""

import argparse
import multiprocessing
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from formats import SHAPE, Format, Reader, all_formats, fill_page_cache, one_core, print_table, write_films

from mim.data.store import PIXELS, PreparedDataset

CROP = 224
WORKERS = 8


def films_per_second(way: Format, read: Reader | None, order: np.ndarray, corners: np.ndarray | None) -> float:
    """Reads all films once.

    Args:
        way: How they are kept.
        read: From `way.reader`; None where films come in an order of their own.
        order: Of the films.
        corners: (N, 2) where crops begin; None = whole films.
    """
    buffer = torch.empty(SHAPE if corners is None else (CROP, CROP), dtype=torch.uint8).numpy()  # aligned to 64 bytes
    pixels: Iterator[np.ndarray]
    if read is None:
        assert way.in_order is not None
        pixels = way.in_order()
    else:
        pixels = (read(number) for number in order.tolist())
    began = time.process_time()
    for place, film in enumerate(pixels):
        if corners is not None:
            y, x = corners[place].tolist()
            film = film[y : y + CROP, x : x + CROP]
        if way.mapped:
            np.copyto(buffer, film)
    return len(order) / (time.process_time() - began)


def compare(formats: list[Format], films: int, rounds: int) -> None:
    rates: dict[str, dict[bool, list[float]]] = {way.name: {False: [], True: []} for way in formats}
    readers = [None if way.reader is None else way.reader() for way in formats]
    for turn in range(rounds + 1):
        rng = np.random.default_rng(turn)
        order = rng.permutation(films)
        corners = np.stack([rng.integers(0, side - CROP, films) for side in SHAPE], axis=1)
        for way, read in zip(formats, readers, strict=True):
            for crops in (False, True):
                rate = films_per_second(way, read, order, corners if crops else None)
                if turn:  # the first turn fills the page cache
                    rates[way.name][crops].append(rate)
    middle = {name: {crops: statistics.median(rate) for crops, rate in both.items()} for name, both in rates.items()}
    ours = middle[formats[0].name]
    rows = [
        [
            way.name,
            *(f"{middle[way.name][crops]:,.0f}" for crops in (False, True)),
            *(f"{ours[crops] / middle[way.name][crops]:.2f}" for crops in (False, True)),
            f"{way.bytes_a_film:,.0f}",
        ]
        for way in formats
    ]
    times = "ours / this"
    print_table(["format", "films/s", "crops/s", f"{times}, films", f"{times}, crops", "bytes a film"], rows)


def read_all(path: Path, wait: Barrier, memory: "multiprocessing.Queue[tuple[float, float]]") -> None:
    """A worker: reads every pixel, and says what memory it has while all the others have theirs."""
    dataset = PreparedDataset.open(path)
    sum(int(level.max()) for number in range(len(dataset)) for level in dataset.levels(number))
    wait.wait()
    memory.put((memory_share(), memory_share(PIXELS)))
    wait.wait()


def memory_share(name: str = "") -> float:
    """Memory of this process in MiB; of a page that n processes have, 1/n.

    Args:
        name: Only what is mapped from files whose name ends so.
    """
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):  # a mapping: its addresses, and at the end its file
            counts = line.endswith(name)
        elif key == "Pss:" and counts:
            total += int(rest.split()[0])
    return total / 1024


def measure_memory(path: Path, workers: int) -> None:
    """Forks workers that read a store, and prints the memory in MiB of them and this process: all, and pixels alone."""
    import mim.data.loader  # noqa: F401  what a training process has in memory before it forks

    context = multiprocessing.get_context("fork")
    wait, memory = context.Barrier(workers + 1), context.Queue()
    started = [context.Process(target=read_all, args=(path, wait, memory)) for _ in range(workers)]
    for process in started:
        process.start()
    wait.wait()
    answers = [(memory_share(), memory_share(PIXELS)), *(memory.get(timeout=600) for _ in started)]
    wait.wait()
    for process in started:
        process.join()
    print(*(sum(part) for part in zip(*answers, strict=True)))


def compare_memory(path: Path) -> None:
    """Measures 1 and 8 workers, each time in a process of its own."""
    totals = []
    for workers in (1, WORKERS):
        command = [sys.executable, __file__, "--memory", str(path), "--workers", str(workers)]
        words = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        everything, pixels = (float(word) for word in words)
        totals.append((pixels, everything - pixels, everything))
    names = (f"`{PIXELS}` in the page cache", "Python and its libraries, all processes", "together")
    rows = [
        [name, f"{one:,.0f} MiB", f"{many:,.0f} MiB", f"{many / one:.3f}"]
        for name, one, many in zip(names, *totals, strict=True)
    ]
    print()
    print_table(["memory, shared pages counted once", "1 worker", f"{WORKERS} workers", "ratio"], rows)


def main() -> None:
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--films", type=int, default=2000)
    line.add_argument("--rounds", type=int, default=5)
    line.add_argument("--folder", type=Path, help="where to write; null = a temporary folder")
    line.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    line.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    options = line.parse_args()
    if options.memory:
        measure_memory(options.memory, options.workers)
        return
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        one_core()
        films = write_films(folder, options.films)
        formats = all_formats(films, folder)
        fill_page_cache(folder)
        compare(formats, options.films, options.rounds)
        compare_memory(folder / "store")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
