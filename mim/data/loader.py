"""Films to batches: what is random depends on (seed, epoch, index), the order on (seed, position), on nothing else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mim.data.annotations import Lesion
from mim.data.augment import FilmTransform
from mim.data.balanced import BalancedStream
from mim.data.collate import collate_films
from mim.data.cut import Cut
from mim.data.planes import draw_planes, take_planes
from mim.data.seed import derive_seed
from mim.data.store import PreparedDataset, StoredFilms
from mim.data.windows import enough_inside

Place = tuple[int, int]  # epoch and index
Transform = Callable[[dict[str, Any]], dict[str, Any]]


class Batched(Dataset[dict[str, Any]], ABC):
    """Samples by epoch and index, and how a batch is made of them."""

    @abstractmethod
    def __len__(self) -> int:
        """Count the samples of an epoch."""

    @abstractmethod
    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return the sample of an epoch and an index."""

    @staticmethod
    def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Make a batch of samples."""
        return collate_films(samples)


class FilmDataset(Batched):
    """Films of a prepared dataset, as samples.

    Args:
        films: The prepared dataset.
        indices: Which of its films, in the order in which `index` below counts them.
        transform: From stored film to pixels.
        seed: Of all that is random.
        labels: Class of each film, if known; or of each film several labels.
        transforms: Dictionary transforms (MONAI's contract) applied to each sample, one after the other; those with a
            `set_random_state(seed=...)` are reseeded before each sample.
        integers: Whether images stay whole numbers as they are stored, for `to_float` to turn into floats on the
            device: a quarter of the bytes to move for films of 8 bits. The transforms then meet whole numbers, too.
        lesions: What is annotated on films, by their number in `films` (`Annotations.lesions`); a film that is not
            there has no lesion. None = it is not known, and nothing is drawn.
        boxes: Whether samples have the boxes of lesions, beside their pixels.
        planes: How many planes the pixels of lesions are drawn on: 1 = all on one; else each on that of its label.
        features: (N, F) float32, what else is known of each film, NaN where it is not (`mim.data.clinical`).
    """

    def __init__(
        self,
        films: PreparedDataset,
        indices: Sequence[int],
        transform: FilmTransform,
        seed: int,
        labels: Sequence[int] | Sequence[Sequence[int]] | None = None,
        transforms: Sequence[Transform] = (),
        *,
        integers: bool = False,
        lesions: Mapping[int, Sequence[Lesion]] | None = None,
        boxes: bool = False,
        planes: int = 1,
        features: NDArray[np.float32] | None = None,
    ) -> None:
        if features is not None and len(features) != len(indices):
            raise ValueError(f"{len(features)} rows of features for {len(indices)} films")
        if boxes and lesions is None:
            raise ValueError("boxes of lesions that are not given")
        if labels is not None and len(labels) != len(indices):
            raise ValueError(f"{len(labels)} labels for {len(indices)} films")
        self.films = films
        # Arrays, not Python numbers: whoever looks at those writes to them, so that no worker could share their memory.
        self.indices = np.asarray(indices, dtype=np.int64)
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        self._transform = transform
        self._transforms = tuple(transforms)
        self._seed = seed
        self._integers = integers
        self._lesions = lesions
        self._boxes = boxes
        self._planes = planes
        self._features = features

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return a sample.

        Args:
            place: The epoch, which decides what is random, and the number of the film in `indices`.

        Returns:
            `image`, float32 (1, H, W) in [0, 1], or with `integers` uint8 or uint16; `index`, the number of the film
            in `indices`; `label` if known; where lesions are given, `lesion`, bool (planes, H, W), and on request
            `boxes`, float32 (M, 4), x1, y1, x2, y2 in pixels of the image, and `box_label`, int64 (M,), places in
            `Annotations.categories`; `features`, float32 (F,), where they are given; and what the transforms add.
        """
        epoch, index = place
        film = self.indices.item(index)
        seed = derive_seed(self._seed, "augment", epoch, index)
        sample = film_sample(
            self.films, film, self._transform, seed, self._lesions, boxes=self._boxes, planes=self._planes
        )
        if not self._integers:
            sample["image"] = to_float(sample["image"])
        sample["index"] = index
        if self.labels is not None:
            several = self.labels.ndim > 1
            sample["label"] = torch.from_numpy(self.labels[index].copy()) if several else self.labels.item(index)
        if self._features is not None:
            sample["features"] = torch.from_numpy(self._features[index].copy())
        for number, transform in enumerate(self._transforms):
            reseed = getattr(transform, "set_random_state", None)
            if reseed is not None:
                reseed(seed=derive_seed(self._seed, "transform", number, epoch, index))
            sample = transform(sample)
        return sample


def film_sample(
    films: StoredFilms,
    film: int,
    transform: FilmTransform,
    seed: int,
    lesions: Mapping[int, Sequence[Lesion]] | None,
    *,
    boxes: bool = False,
    planes: int = 1,
    window: Callable[[Cut], Cut] | None = None,
) -> dict[str, Any]:
    """Transform one film, and what is annotated on it along with it.

    Args:
        films: Films as they are stored.
        film: Which of them.
        transform: From stored film to pixels.
        seed: Of all that is random.
        lesions: What is annotated on films, by their number; None = nothing is drawn.
        boxes: Whether boxes are wanted beside pixels.
        planes: How many planes the pixels are drawn on: 1 = all on one; else each lesion on that of its label.
        window: Where a window of the film is taken, given the part that the transform draws. Boxes of which too little
            lies in it are left out (`mim.data.windows.enough_inside`). None = the whole film.

    Returns:
        `image` (1, H, W) as stored; with lesions `lesion`, bool (planes, H, W), and on request `boxes` and `box_label`.
    """
    full, half = films.levels(film)
    if lesions is None:
        return {"image": torch.from_numpy(transform.together(full, seed, half, place=window).image[None])}
    own = lesions.get(film, ())
    mask = draw_planes(own, full.shape, planes) if own else None
    given = np.array([lesion.box for lesion in own], np.float32).reshape(-1, 4) if boxes else None
    changed = transform.together(full, seed, half, given, mask, window)
    pixels = np.zeros((planes, *changed.image.shape), np.bool_)
    if changed.mask is not None:
        pixels = take_planes(changed.mask, planes)
    sample: dict[str, Any] = {"image": torch.from_numpy(changed.image[None]), "lesion": torch.from_numpy(pixels)}
    if boxes:
        assert given is not None
        enough = slice(None) if window is None else enough_inside(given[changed.kept], changed.cut)
        sample["boxes"] = torch.from_numpy(changed.boxes[enough])
        labels = [own[kept].label for kept in changed.kept[enough].tolist()]
        sample["box_label"] = torch.tensor(labels, dtype=torch.int64)
    return sample


def to_float(image: Tensor) -> Tensor:
    """Turn whole numbers into [0, 1], where they are: on the device of a network this costs next to nothing.

    Args:
        image: uint8 or uint16 of any shape, 0 = black, the largest value of the type = white. Floats are given back.
    """
    if image.is_floating_point():
        return image
    return image.to(torch.float32).div_(torch.iinfo(image.dtype).max)


class SampleStream:
    """An endless order of films: one permutation of all of them after the other.

    Args:
        count: Number of films.
        seed: Of the permutations.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError("a stream needs at least one film")
        self.count = count
        self._seed = seed
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, dtype=np.int64)

    def __getitem__(self, position: int) -> Place:
        """Return the epoch and the film at a position, counted from the start of training."""
        epoch, place = divmod(position, self.count)
        if epoch != self._epoch:
            self._order = np.random.default_rng(derive_seed(self._seed, "order", epoch)).permutation(self.count)
            self._epoch = epoch
        return epoch, int(self._order[place])


class RankBatches(Sampler[list[Place]]):
    """The batches of one rank, from a step on.

    Step s takes the positions [s G, (s + 1) G) of the stream, G = batch_size x world x accumulate, whoever takes them:
    two ranks with batches of B meet together what one rank with batches of 2 B meets.

    Args:
        stream: The order of films: all equally often, or all classes.
        batch_size: Films in a batch.
        world: Number of ranks.
        rank: Which one, from 0.
        accumulate: Batches a rank takes in a step.
        start_step: The first step.
        total_steps: The step before which to stop.
    """

    def __init__(
        self,
        stream: SampleStream | BalancedStream,
        batch_size: int,
        world: int,
        rank: int,
        accumulate: int,
        start_step: int,
        total_steps: int,
    ) -> None:
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self._stream = stream
        self._batch_size = batch_size
        self._stride = batch_size * world
        self._first = batch_size * rank
        self._batches = range(start_step * accumulate, max(start_step, total_steps) * accumulate)

    def __iter__(self) -> Iterator[list[Place]]:
        for batch in self._batches:
            start = batch * self._stride + self._first
            yield [self._stream[position] for position in range(start, start + self._batch_size)]

    def __len__(self) -> int:
        return len(self._batches)


class InOrder(Sampler[list[Place]]):
    """All films once, in order, as of epoch 0."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[list[Place]]:
        for start in range(0, self._count, self._batch_size):
            yield [(0, index) for index in range(start, min(start + self._batch_size, self._count))]

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)


def train_loader(
    dataset: Batched,
    *,
    batch_size: int,
    seed: int,
    world: int,
    rank: int,
    accumulate: int,
    start_step: int,
    total_steps: int,
    workers: int,
    balance: Sequence[int] | None = None,
) -> DataLoader[dict[str, Any]]:
    """Load the batches of one rank from `start_step` to `total_steps`, `accumulate` of them a step.

    Batches do not depend on the number of workers; a loader that starts at step k begins with the batches that one
    that started at 0 gives at step k. With `balance`, the class of each sample, all classes come equally often.
    """
    stream = SampleStream(len(dataset), seed) if balance is None else BalancedStream(balance, seed)
    return _load(dataset, RankBatches(stream, batch_size, world, rank, accumulate, start_step, total_steps), workers)


def evaluation_loader(dataset: Batched, *, batch_size: int, workers: int) -> DataLoader[dict[str, Any]]:
    """Load every film (or study) once, in order; the last batch may be smaller."""
    return _load(dataset, InOrder(len(dataset), batch_size), workers)


def _load(dataset: Batched, batches: Sampler[list[Place]], workers: int) -> DataLoader[dict[str, Any]]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=dataset.collate,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else each epoch's start would advance the global one
        pin_memory=torch.cuda.is_available(),
    )


def _start_worker(number: int) -> None:
    cv2.setNumThreads(0)  # workers are the parallelism; threads of a forked parent would not be there
