"""Detection in windows of films at their own resolution: the samples, and what is found in a film window by window."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from mim.config.detection import DetectConfig
from mim.data.annotations import Lesion
from mim.data.augment import evaluation_transform
from mim.data.loader import Batched, Place, evaluation_loader, film_sample, to_float
from mim.data.manifest import ManifestRow
from mim.data.regions import Rectangle
from mim.data.store import FilmLevels, StoredFilms
from mim.data.window_loader import SlidingWindows
from mim.data.windows import Size, count_larger_than_overlap, native_size
from mim.errors import MimError
from mim.evaluation.merge_boxes import WindowBoxes, merge_boxes

logger = logging.getLogger("mim")

LOOKED_AT = 1024  # longer side of a film in a report, in pixels


@dataclass(frozen=True, eq=False)
class FilmsInMemory:
    """Films that are in no dataset.

    Attributes:
        rows: what is known of each.
        films: what a preparation would store of each.
    """

    rows: Sequence[ManifestRow]
    films: Sequence[FilmLevels]

    def levels(self, number: int) -> FilmLevels:
        """A film at both stored sizes."""
        return self.films[number]


_ONLY_OF_WINDOWS = ("window_overlap", "windows_per_film", "lesion_windows")


def check_window_settings(detect: DetectConfig, tile: int | None = None) -> None:
    """Refuses settings of windows where there are none, and windows of films that are cut up already.

    Args:
        detect: the settings.
        tile: side of the tiles that films are stored as (data.tile); None = films are whole.

    Raises:
        MimError: naming the setting.
    """
    for key in _ONLY_OF_WINDOWS if detect.window is None else ():
        if getattr(detect, key) != DetectConfig.model_fields[key].default:
            raise MimError(f"detect.{key} says nothing without detect.window: give detect.window=[height, width]")
    if detect.window is not None and tile is not None:
        raise MimError("detect.window searches whole films, and data.tile has them cut into tiles; give one of the two")


def warn_of_cut_boxes(
    films: StoredFilms, indices: Sequence[int], lesions: Mapping[int, Sequence[Lesion]], detect: DetectConfig
) -> None:
    """Warns where boxes of the training films are larger than the overlap of windows: they are found in parts."""
    assert detect.window is not None
    larger = total = 0
    for film in indices:
        boxes = [lesion.box for lesion in lesions.get(film, ())]
        size = native_size(films.rows[film]) if boxes else (1, 1)
        larger += count_larger_than_overlap(size, boxes, detect.window, detect.window_overlap)
        total += len(boxes)
    if larger:
        logger.warning(
            "detect.window_overlap: %d of %d boxes of the training films are larger than the overlap of windows, and "
            "may be found in parts only; give a larger overlap, or larger windows",
            *(larger, total),
        )


class FilmsInWindows(Batched):
    """Films that are searched window by window; as samples they are whole films, to be looked at.

    Args:
        films: films as they are stored: a prepared dataset, or films in memory.
        indices: which of them.
        image_size: (height, width) in pixels of what the network meets of a window.
        detect: windows, and how boxes of theirs are put together.
        lesions: what is annotated on films.
    """

    def __init__(
        self,
        films: StoredFilms,
        indices: Sequence[int],
        image_size: Size,
        detect: DetectConfig,
        lesions: Mapping[int, Sequence[Lesion]] | None = None,
    ) -> None:
        assert detect.window is not None
        self.films = films
        self.indices = np.asarray(indices, dtype=np.int64)
        self.detect = detect
        self.windows = SlidingWindows(
            films, indices, evaluation_transform(image_size), window=detect.window, overlap=detect.window_overlap
        )
        self._lesions = lesions

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """A whole film, its longer side 1,024 pixels at most: `image` (1, H, W) in [0, 1], and what is on it."""
        film = self.indices.item(place[1])
        height, width = self.films.levels(film).full.shape
        scale = min(1.0, LOOKED_AT / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        sample = film_sample(self.films, film, evaluation_transform(size), 0, self._lesions, boxes=bool(self._lesions))
        return {**sample, "image": to_float(sample["image"]), "index": place[1]}


@dataclass(frozen=True, eq=False)
class WindowFound:
    """What a detector found in one window.

    Attributes:
        part: (4,) which part of the film it was, x1, y1, x2, y2 as shares of its width and height.
        boxes: (K, 4) as shares of the window's width and height.
        label: (K,)
        score: (K,)
        visible: (gh, gw) bool.
    """

    part: NDArray[np.float64]
    boxes: NDArray[np.float64]
    label: NDArray[np.int64]
    score: NDArray[np.float64]
    visible: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FilmFound:
    """What a detector found on a film: boxes as shares of its width and height, and what was visible of it.

    Attributes:
        boxes: (K, 4), highest score first.
        label: (K,)
        score: (K,)
        visible: (rows, columns) bool, over the whole film.
    """

    boxes: Tensor
    label: Tensor
    score: Tensor
    visible: Tensor


def search_windows(
    task: nn.Module, dataset: FilmsInWindows, batch_size: int, device: torch.device, *, shown: bool = False
) -> Iterator[FilmFound]:
    """Runs a detector, in evaluation mode, over the windows of films, and gives what it found on each film, in order.

    Args:
        task: the detector, on the device.
        dataset: the films.
        batch_size: windows at a time.
        device: where the detector is.
        shown: whether a bar is drawn.
    """
    results = _run(task, dataset.windows, batch_size, device, shown)
    for place, size in enumerate(dataset.windows.sizes):
        windows = dataset.windows.windows(place)
        found = [next(results) for _ in windows]
        yield put_together(found, windows, size, dataset.detect.nms_overlap, dataset.detect.most)


@torch.no_grad()
def _run(
    task: nn.Module, windows: SlidingWindows, batch_size: int, device: torch.device, shown: bool
) -> Iterator[WindowFound]:
    loader = evaluation_loader(windows, batch_size=batch_size, workers=0)
    for batch in tqdm(loader, desc="predict", unit="batch", leave=False, disable=None if shown else True):
        out = {name: value.cpu() for name, value in task({"image": batch["image"].to(device)}).items()}
        height, width = batch["image"].shape[-2:]
        shares = out["boxes"].double() / torch.tensor([width, height] * 2).double()
        for row, label in enumerate(out["box_label"]):
            real = label >= 0
            yield WindowFound(
                batch["part"][row].numpy(),
                shares[row][real].numpy(),
                label[real].numpy(),
                out["box_score"][row][real].double().numpy(),
                out["visible"][row].numpy(),
            )


def put_together(
    found: Sequence[WindowFound], windows: Sequence[Rectangle], size: Size, overlap: float, most: int
) -> FilmFound:
    """Puts what was found in the windows of a film together.

    Args:
        found: of each window.
        windows: where they lie.
        size: height and width of the film, in the same pixels.
        overlap: of two boxes of a class with a larger IoU the one with the lower score is left out.
        most: boxes of the film, at most.
    """
    if len(found) == 1:  # the window is the film: not even the rounding may differ
        (only,) = found
        return FilmFound(*map(torch.from_numpy, (only.boxes, only.label, only.score, only.visible)))
    sides = np.array([size[1], size[0]] * 2, dtype=np.float64)
    boxes = [one.part[[0, 1, 0, 1]] + one.boxes * np.tile(one.part[2:] - one.part[:2], 2) for one in found]
    merged, score, label = merge_boxes(
        WindowBoxes(
            np.concatenate(boxes) * sides,
            np.concatenate([one.score for one in found]),
            np.concatenate([one.label for one in found]),
            np.repeat(np.arange(len(found)), [len(one.score) for one in found]),
            np.array(windows, dtype=np.float64),
            size,
        ),
        overlap,
        most,
    )
    visible = stitch([one.visible for one in found], windows, size)
    return FilmFound(*map(torch.from_numpy, (merged / sides, label, score, visible)))


def stitch(visible: Sequence[NDArray[np.bool_]], windows: Sequence[Rectangle], size: Size) -> NDArray[np.bool_]:
    """What was visible of a film: its cells are as large as those of a window.

    A cell of the film is visible where any window that holds its middle has shown that.

    Args:
        visible: (gh, gw) of each window.
        windows: where they lie.
        size: height and width of the film, in the same pixels.
    """
    first, cells = windows[0], visible[0].shape
    rows, columns = math.ceil(size[0] * cells[0] / first.height), math.ceil(size[1] * cells[1] / first.width)
    down, across = (np.arange(rows) + 0.5) / rows * size[0], (np.arange(columns) + 0.5) / columns * size[1]
    shown = np.zeros((rows, columns), dtype=np.bool_)
    for own, part in zip(visible, windows, strict=True):
        row = np.flatnonzero((down >= part.top) & (down < part.bottom))
        column = np.flatnonzero((across >= part.left) & (across < part.right))
        of_row = ((down[row] - part.top) / part.height * own.shape[0]).astype(np.intp)
        of_column = ((across[column] - part.left) / part.width * own.shape[1]).astype(np.intp)
        shown[np.ix_(row, column)] |= own[np.ix_(of_row, of_column)]
    return shown
