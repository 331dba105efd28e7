"""From prepared films to batches for training: ours against the ways of others, in images a second and core.

    pip install lmdb webdataset
    python benchmarks/loader.py --films 1000

A batch is 64 films of 683 by 512 pixels, in random order, of each a random part (half to all of its area) resized to
224 by 224 and flipped or not, as floats that are normalised, in one tensor. One process on one core, its processor
time, a warm page cache. Two kinds of peers: the transforms that come with MONAI, and our cut on pixels that others
keep, which tells what the store is worth and what the cut. Prints a table for docs/benchmarks.md.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from formats import (
    Format,
    all_formats,
    fill_page_cache,
    one_core,
    persistent_dataset,
    print_table,
    write_films,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mim.config import AugmentConfig
from mim.data import PreparedDataset, derive_seed
from mim.data.augment import train_transform
from mim.data.loader import FilmDataset, to_float, train_loader

SIZE = (224, 224)
BATCH = 64
MEAN, STD = 0.45, 0.225
AUGMENT = AugmentConfig(crop_scale=(0.5, 1.0), crop_ratio=(0.8, 1.25), horizontal_flip=0.5)

Batches = Callable[[int], Iterator[Tensor]]


def normalise(images: Tensor) -> Tensor:
    return to_float(images).sub_(MEAN).div_(STD)


def ours(path: Path, *, halves: bool) -> Batches:
    """Our loader as the training uses it, with or without the half size."""
    films = PreparedDataset.open(path)
    if not halves:
        films.levels = lambda number: (films.image(number), None)  # type: ignore[method-assign, assignment, return-value]

    def go_through(turn: int) -> Iterator[Tensor]:
        dataset = FilmDataset(films, range(len(films)), train_transform(AUGMENT, SIZE), turn, integers=True)
        loader = train_loader(
            dataset,
            batch_size=BATCH,
            seed=turn,
            world=1,
            rank=0,
            accumulate=1,
            start_step=0,
            total_steps=len(films) // BATCH,
            workers=0,
        )
        return (normalise(batch["image"]) for batch in loader)

    return go_through


class CutOut(Dataset[Tensor]):
    """A cut on pixels that are kept in another way."""

    def __init__(self, way: Format, films: int, transform: Callable[..., np.ndarray]) -> None:
        assert way.reader is not None
        self.read, self.films = way.reader(), films
        self.transform = transform
        self.turn = 0

    def __len__(self) -> int:
        return self.films

    def __getitem__(self, number: int) -> Tensor:
        return cut_out(self.read(number), self.transform, derive_seed(self.turn, number))


def cut_out(film: np.ndarray | Tensor, transform: Callable[..., np.ndarray], seed: int) -> Tensor:
    return torch.from_numpy(transform(np.asarray(film), seed)[None])  # what is kept as floats is cut as floats


def in_random_order(way: Format, films: int, transform: Callable[..., np.ndarray]) -> Batches:
    dataset = CutOut(way, films, transform)

    def go_through(turn: int) -> Iterator[Tensor]:
        dataset.turn = turn
        generator = torch.Generator().manual_seed(turn)
        loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, generator=generator)
        return (normalise(images) for images in loader)

    return go_through


def in_own_order(way: Format) -> Batches:
    """Goes through shards as webdataset does: in order, with a buffer from which samples are drawn."""
    import webdataset

    transform = train_transform(AUGMENT, SIZE)

    def go_through(turn: int) -> Iterator[Tensor]:
        assert way.in_order is not None
        drawn = webdataset.filters.shuffle(256)(way.in_order())
        samples = (cut_out(film, transform, derive_seed(turn, place)) for place, film in enumerate(drawn))
        batched = webdataset.filters.batched(BATCH, collation_fn=torch.stack, partial=False)(samples)
        return (normalise(images) for images in batched)

    return go_through


def monai_alone(films: list[Path], path: Path) -> Batches:
    """What one writes with MONAI and nothing else."""
    from monai.transforms import NormalizeIntensityd, RandFlipd, RandSpatialCropd, Resized, ToTensord

    height, width = (round(side * 0.7071) for side in (512, 683))  # it draws sides, not areas
    random = [
        RandSpatialCropd("image", roi_size=(height, width), random_size=True),
        Resized("image", SIZE, mode="bilinear"),
        RandFlipd("image", prob=0.5, spatial_axis=1),
        NormalizeIntensityd("image", subtrahend=MEAN, divisor=STD),
        ToTensord("image", track_meta=False),
    ]
    dataset = persistent_dataset(films, path, "float32", random)

    def go_through(turn: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(turn)
        loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, generator=generator)
        return (batch["image"] for batch in loader)

    return go_through


def albumentations_alone() -> Callable[..., np.ndarray]:
    """The cut as one writes it with albumentations."""
    import albumentations

    steps = [
        albumentations.RandomResizedCrop(SIZE, scale=AUGMENT.crop_scale, ratio=AUGMENT.crop_ratio),
        albumentations.HorizontalFlip(p=0.5),
    ]
    compose = albumentations.Compose(steps)
    return lambda pixels, seed: np.ascontiguousarray(compose(image=pixels)["image"])


def images_per_second(batches: Iterator[Tensor]) -> float:
    began, images = time.process_time(), 0
    for batch in batches:
        assert batch.shape[1:] == (1, *SIZE)
        assert batch.dtype == torch.float32
        images += len(batch)
    return images / (time.process_time() - began)


def main() -> None:
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--films", type=int, default=1000)
    line.add_argument("--rounds", type=int, default=5)
    line.add_argument("--folder", type=Path, help="where to write; null = a temporary folder")
    options = line.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        one_core()
        films = write_films(folder, options.films)
        formats = all_formats(films, folder)
        fill_page_cache(folder)
        ways = {
            "mim": ours(folder / "store", halves=True),
            "mim without the half size": ours(folder / "store", halves=False),
            "MONAI PersistentDataset, MONAI's transforms": monai_alone(films, folder / "persistent-float32"),
        }
        persistent = next(way for way in formats if "Persistent" in way.name)
        ways[f"{persistent.name}, albumentations"] = in_random_order(persistent, len(films), albumentations_alone())
        cut = train_transform(AUGMENT, SIZE)
        for way in formats[1:]:
            ways[f"{way.name}, our cut"] = in_random_order(way, len(films), cut) if way.reader else in_own_order(way)
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(options.rounds + 1):
            for name, go_through in ways.items():
                rate = images_per_second(go_through(turn))
                if turn:  # the first turn fills caches
                    rates[name].append(rate)
        middle = {name: statistics.median(rate) for name, rate in rates.items()}
        print_table(
            ["from prepared films to batches of 64", "images/s and core", "mim / this"],
            [[name, f"{rate:,.0f}", f"{middle['mim'] / rate:.1f}"] for name, rate in middle.items()],
        )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
