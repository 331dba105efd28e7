"""The ways to keep films on disk that the benchmarks compare: ours, and those of others as one would use them."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mim.data.build import build
from mim.data.decode import DecodeOptions
from mim.data.phantom import PhantomSettings, write_phantom
from mim.data.radiograph import read_radiograph
from mim.data.scan import scan
from mim.data.store import PreparedDataset

Pixels = NDArray[Any]
Reader = Callable[[int], Pixels]

SHAPE = (512, 683)
DRAWN = 16


def one_core() -> None:
    """Keeps this process, and all that it starts, on one core and one thread."""
    import torch

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def write_films(folder: Path, count: int) -> list[Path]:
    """Writes films of 683 by 512 pixels and 8 bits as PNG: drawn bitewings, shifted and each with noise of its own."""
    phantom, films = folder / "phantom", folder / "png"
    write_phantom(phantom, PhantomSettings(), unlabelled=DRAWN, labelled=0, seed=0, workers=1)
    drawn = [
        cv2.resize(read_radiograph(path).pixels, SHAPE[::-1], interpolation=cv2.INTER_AREA)
        for path in sorted((phantom / "unlabelled").glob("*.dcm"))
    ]
    films.mkdir()
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pixels = np.roll(drawn[number % len(drawn)], rng.integers(0, 80), axis=1) + rng.normal(0, 0.006, SHAPE)
        paths.append(films / f"{number:06}.png")
        cv2.imwrite(str(paths[-1]), np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))
    return paths


@dataclass(frozen=True)
class Format:
    """One way.

    Attributes:
        name: What it is called in the table.
        bytes_a_film: On disk.
        mapped: Whether what is read only maps the file, so that a copy is needed to have the pixels.
        reader: Opens it, and gives what reads film number so and so; the pixels may be a view, or a tensor.
        in_order: Opens it for going through all films in its own order; None where any order is as good.
    """

    name: str
    bytes_a_film: float
    mapped: bool
    reader: Callable[[], Reader] | None = None
    in_order: Callable[[], Iterator[Pixels]] | None = None


def write_store(films: Sequence[Path], folder: Path) -> PreparedDataset:
    """Ours."""
    source = films[0].parent
    build(scan(source), folder / "store", DecodeOptions(source, max(SHAPE), 8, bytes(32)), 1)
    return PreparedDataset.open(folder / "store")


def all_formats(films: Sequence[Path], folder: Path) -> list[Format]:
    """Writes the same films in every way."""
    return [
        as_store(films, folder),
        as_lmdb(films, folder),
        as_webdataset(films, folder),
        as_persistent(films, folder, "float32"),
        as_persistent(films, folder, "uint8"),
        Format(
            "PNG files", size_of(films[0].parent) / len(films), False, lambda: lambda number: read_png(films[number])
        ),
    ]


def as_store(films: Sequence[Path], folder: Path) -> Format:
    dataset = write_store(films, folder)
    size = size_of(dataset.path) / len(films)
    return Format("mim (memory map)", size, True, lambda: PreparedDataset.open(dataset.path).image)


def as_lmdb(films: Sequence[Path], folder: Path) -> Format:
    """LMDB with raw pixels, read without a copy: the fastest way it has."""
    import lmdb

    path = folder / "lmdb"
    room = len(films) * (SHAPE[0] * SHAPE[1] + 8192) + (1 << 24)
    with lmdb.open(str(path), map_size=room) as environment, environment.begin(write=True) as transaction:
        for number, film in enumerate(films):
            transaction.put(f"{number:08}".encode(), read_png(film).tobytes())

    def open_reader() -> Reader:
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        transaction = environment.begin(buffers=True)

        def read(number: int) -> Pixels:
            # The view is good for as long as the transaction, which holds the environment.
            return np.frombuffer(transaction.get(f"{number:08}".encode()), np.uint8).reshape(SHAPE)

        return read

    return Format("LMDB, raw pixels", size_of(path) / len(films), True, open_reader)


def as_webdataset(films: Sequence[Path], folder: Path) -> Format:
    """Shards of 1,000 arrays (.npy), which cost less to decode than PNG."""
    import webdataset

    path = folder / "webdataset"
    path.mkdir()
    shards = []
    for first in range(0, len(films), 1000):
        shards.append(path / f"{first // 1000:04}.tar")
        with tarfile.open(shards[-1], "w") as shard:
            for film in films[first : first + 1000]:
                content = io.BytesIO()
                np.save(content, read_png(film))
                entry = tarfile.TarInfo(f"{film.stem}.npy")
                entry.size = content.tell()
                shard.addfile(entry, io.BytesIO(content.getvalue()))

    def go_through() -> Iterator[Pixels]:
        dataset = webdataset.WebDataset([str(shard) for shard in shards], shardshuffle=False).decode().to_tuple("npy")
        return (sample[0] for sample in dataset)

    return Format("webdataset, .npy in shards", size_of(path) / len(films), False, in_order=go_through)


def as_persistent(films: Sequence[Path], folder: Path, kind: str) -> Format:
    """MONAI's cache of what its deterministic transforms give; float32 is what it comes to without further ado."""
    path = folder / f"persistent-{kind}"
    dataset = persistent_dataset(films, path, kind)
    for number in range(len(films)):
        dataset[number]
    name = "MONAI PersistentDataset" + (", kept as uint8" if kind == "uint8" else "")
    return Format(name, size_of(path) / len(films), False, lambda: lambda number: dataset[number]["image"][0])


def persistent_dataset(films: Sequence[Path], path: Path, kind: str, then: Sequence[Any] = ()) -> Any:
    """MONAI's PersistentDataset.

    Args:
        films: PNG files.
        path: Where it keeps what it made.
        kind: float32, pixels in [0, 1]; or uint8.
        then: Random transforms, which are not kept.
    """
    from monai.data import PersistentDataset
    from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, ScaleIntensityRanged

    load: list[Any] = [
        LoadImaged("image", reader="PILReader", image_only=True, reverse_indexing=False),  # else (width, height)
        EnsureChannelFirstd("image"),
    ]
    if kind == "float32":
        load.append(ScaleIntensityRanged("image", 0, 255, 0, 1))
    else:
        load.append(EnsureTyped("image", dtype=np.uint8, track_meta=False))
    return PersistentDataset([{"image": str(film)} for film in films], Compose([*load, *then]), path)


def read_png(path: Path) -> Pixels:
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    return pixels


def fill_page_cache(folder: Path) -> None:
    """Drops the files of a folder from the page cache and reads each through.

    How large the pieces are in which the kernel keeps a file, and so what it costs to map, depends on how the file came
    into the cache: by many small writes or a few large ones. This makes it the same for all.
    """
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            while os.read(descriptor, 1 << 23):
                pass
        finally:
            os.close(descriptor)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(row) + " |", flush=True)
