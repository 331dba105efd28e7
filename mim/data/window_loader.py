"""Windows of films to samples: drawn at random for training, or side by side until they cover a film."""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from mim.data.annotations import Lesion
from mim.data.augment import FilmTransform
from mim.data.loader import Batched, Place, film_sample, to_float
from mim.data.regions import Box, Rectangle
from mim.data.seed import derive_seed
from mim.data.store import PreparedDataset, StoredFilms
from mim.data.windows import Size, as_cut, native_size, place_window, sliding_windows


class DrawnWindows(Batched):
    """Windows of films, drawn anew in each epoch, as samples for training. No more of a film is read than its window.

    Args:
        films: The prepared dataset.
        indices: Which of its films.
        transform: From stored film to pixels; what it crops at random it crops of a window.
        seed: Of all that is random.
        window: Height and width of a window, in pixels of the film before it was reduced.
        lesions: What is annotated on films, by their number in `films` (`Annotations.lesions`).
        lesion_share: Share of the windows that must hold a lesion: with this probability a window is placed where it
            holds one, on its own film or, where that has none, on another that is drawn. (A rotation may turn it out
            again.)
        per_film: Windows of each film in an epoch.

    Raises:
        ValueError: Windows must hold lesions, and no film has one.
    """

    def __init__(
        self,
        films: PreparedDataset,
        indices: Sequence[int],
        transform: FilmTransform,
        seed: int,
        *,
        window: Size,
        lesions: Mapping[int, Sequence[Lesion]],
        lesion_share: float = 0.5,
        per_film: int = 1,
    ) -> None:
        self.films = films
        self.indices = np.asarray(indices, dtype=np.int64)
        self._bearing = np.array([film for film in indices if lesions.get(film)], dtype=np.int64)
        if lesion_share > 0 and not len(self._bearing):
            raise ValueError("windows must hold lesions, and no film has one")
        self._transform = transform
        self._seed = seed
        self._window = window
        self._lesions = lesions
        self._lesion_share = lesion_share
        self._per_film = per_film

    def __len__(self) -> int:
        return len(self.indices) * self._per_film

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return a sample.

        Args:
            place: The epoch, which decides what is random, and the number of the window; its film is the remainder
                by the number of films.

        Returns:
            `image` (1, H, W), whole numbers as they are stored; `boxes`, float32 (M, 4), x1, y1, x2, y2 in pixels of
            the image, cut at its border, those with too little left dropped (`mim.data.windows.enough_inside`);
            `box_label`, int64 (M,); `lesion`, bool (1, H, W); `film`, the number of its film in the dataset; `index`.
        """
        epoch, index = place
        rng = random.Random(derive_seed(self._seed, "window", epoch, index))  # noqa: S311
        film = self.indices.item(index % len(self.indices))
        held: Box | None = None
        if rng.random() < self._lesion_share:
            if not self._lesions.get(film):
                film = self._bearing.item(rng.randrange(len(self._bearing)))
            held = rng.choice(self._lesions[film]).box
        part = partial(place_window, film=native_size(self.films.rows[film]), window=self._window, rng=rng, held=held)
        seed = derive_seed(self._seed, "augment", epoch, index)
        sample = film_sample(self.films, film, self._transform, seed, self._lesions, boxes=True, window=part)
        return {**sample, "film": film, "index": index}


class SlidingWindows(Batched):
    """Windows that cover films, one film after the other, as samples in which something is sought.

    Args:
        films: Films as they are stored.
        indices: Which of them.
        transform: From a part of a stored film to pixels, without chance.
        window: Height and width of a window, in pixels of the film before it was reduced.
        overlap: By which share of a window's sides neighbours overlap at least.

    Attributes:
        sizes: Height and width of each film, in the same pixels.
    """

    def __init__(
        self, films: StoredFilms, indices: Sequence[int], transform: FilmTransform, *, window: Size, overlap: float
    ) -> None:
        self.films = films
        self.indices = np.asarray(indices, dtype=np.int64)
        self._transform = transform
        self.sizes: list[Size] = [native_size(films.rows[film]) for film in self.indices.tolist()]
        self._covers = {size: sliding_windows(size, window, overlap) for size in set(self.sizes)}
        self._starts = np.cumsum([0, *(len(self._covers[size]) for size in self.sizes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def windows(self, place: int) -> list[Rectangle]:
        """List the windows of a film by its place in `indices`, in the order of their samples."""
        return self._covers[self.sizes[place]]

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Return a sample.

        Args:
            place: Any epoch, and the number of the window.

        Returns:
            `image`, float32 (1, H, W) in [0, 1]; `part`, float64 (4,), the pixels of the film that it was made of:
            x1, y1, x2, y2 as shares of the film's width and height; `index`.
        """
        _, index = place
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        part = self.windows(number)[index - int(self._starts[number])]
        cut = as_cut(part, self.sizes[number])
        full, half = self.films.levels(self.indices.item(number))
        changed = self._transform.together(full, 0, half, place=lambda _: cut)
        sides = (changed.cut.left, changed.cut.top, changed.cut.right, changed.cut.bottom)
        taken = torch.tensor(sides, dtype=torch.float64)
        return {"image": to_float(torch.from_numpy(changed.image[None])), "part": taken, "index": index}
