"""What is found window by window, by a detector that marks every bright patch it sees whole or in part."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from mim.config.detection import DetectConfig
from mim.data import PreparedDataset
from mim.data.augment import evaluation_transform
from mim.data.loader import FilmDataset
from mim.data.prepare import prepare
from mim.errors import MimError
from mim.stages.found_boxes import find_boxes
from mim.stages.windows import FilmsInMemory, FilmsInWindows, check_window_settings, stitch

WINDOW = (64, 96)
CPU = torch.device("cpu")
Box = tuple[int, int, int, int]


class BrightPatches(nn.Module):
    """Boxes around connected bright pixels; the larger the surer. White is class 1, grey class 0."""

    def forward(self, batch):
        found = []
        for image in batch["image"][:, 0].numpy():
            marked, _ = ndimage.label(image > 0.4)
            own = [(where[1], where[0], image[where].mean()) for where in ndimage.find_objects(marked)]
            found.append([(x.start, y.start, x.stop, y.stop, bright) for x, y, bright in own])
        most = max(map(len, found))
        boxes, score = torch.full((len(found), most, 4), -1.0), torch.full((len(found), most), -1.0)
        label = torch.full((len(found), most), -1)
        for row, own in enumerate(found):
            for place, (x1, y1, x2, y2, bright) in enumerate(own):
                boxes[row, place] = torch.tensor([x1, y1, x2, y2])
                score[row, place] = 1 - 1 / math.sqrt((x2 - x1) * (y2 - y1))
                label[row, place] = int(bright > 0.8)
        visible = torch.ones(len(found), 4, 6, dtype=torch.bool)
        visible[:, 0, 0] = False  # the corner of every window is hidden
        return {"boxes": boxes, "box_label": label, "box_score": score, "visible": visible}


def film_with(root: Path, *patches: Box, size: tuple[int, int] = (200, 330), white: bool = False) -> PreparedDataset:
    pixels = np.zeros(size, np.uint8)
    pixels[::17, ::13] = 40
    for x1, y1, x2, y2 in patches:
        pixels[y1:y2, x1:x2] = 255 if white else 150
    (root / "films").mkdir(parents=True)
    Image.fromarray(pixels).save(root / "films" / "0.png")
    return prepare(root / "films", root / "out", long_side=4096, bits=8, salt=bytes(32), workers=1)


def in_windows(films: PreparedDataset, overlap: float = 0.25, window: tuple[int, int] = WINDOW) -> FilmsInWindows:
    return FilmsInWindows(films, range(len(films)), WINDOW, DetectConfig(window=window, window_overlap=overlap))


def search(films: PreparedDataset, overlap: float = 0.25) -> np.ndarray:
    """Boxes in pixels of the only film, sorted."""
    found = find_boxes(BrightPatches(), in_windows(films, overlap), 5, CPU)
    height, width = films.image(0).shape
    boxes = found.boxes[0].numpy() * [width, height, width, height]
    assert (boxes >= 0).all(), "a box outside the film"
    assert (boxes <= [width, height, width, height]).all(), "a box outside the film"
    assert (found.scores[0].diff() <= 0).all()
    return boxes[np.lexsort(boxes.T[::-1])]


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize(
    "patch",
    [
        (85, 20, 107, 34),  # across a border of two windows
        (60, 50, 110, 75),  # across a corner of four
        (10, 10, 200, 30),  # wider than any window
        (30, 40, 300, 170),  # larger in both ways
        (0, 0, 9, 9),
        (318, 190, 330, 200),  # in the corner of the film
        (96, 30, 110, 44),  # begins where a window ends
    ],
)
def test_an_object_is_found_once_wherever_it_lies(patch: Box, overlap: float, tmp_path: Path) -> None:
    np.testing.assert_allclose(search(film_with(tmp_path, patch), overlap), [patch], atol=1e-3)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_neighbours_across_a_border_stay_apart(overlap: float, tmp_path: Path) -> None:
    patches = [(80, 10, 100, 22), (80, 26, 100, 38), (102, 10, 115, 38), (85, 40, 115, 47), (85, 49, 115, 80)]
    np.testing.assert_allclose(search(film_with(tmp_path, *patches), overlap), sorted(patches), atol=1e-3)


def test_a_film_moved_by_a_stride_has_its_boxes_moved_by_a_stride(tmp_path: Path) -> None:
    stride = (48, 72)  # of windows of 64 x 96 that overlap by a quarter
    patches = [(20, 15, 31, 25), (66, 30, 90, 58), (40, 70, 120, 90), (101, 44, 128, 60)]
    moved = [(x1 + stride[1], y1 + stride[0], x2 + stride[1], y2 + stride[0]) for x1, y1, x2, y2 in patches]
    before = search(film_with(tmp_path / "before", *patches))
    after = search(film_with(tmp_path / "after", *moved))
    assert len(before) == len(patches)
    np.testing.assert_allclose(after, before + [stride[1], stride[0]] * 2, atol=1e-3)


@pytest.mark.parametrize("size", [(64, 96), (50, 96), (40, 33)])
def test_a_film_that_fits_in_a_window_gives_the_boxes_that_it_gives_as_a_whole(size, tmp_path: Path) -> None:
    films = film_with(tmp_path, (3, 5, 20, 18), (22, 25, 33, 40), size=size)
    whole = FilmDataset(films, [0], evaluation_transform(WINDOW), 0)
    first, second = (find_boxes(BrightPatches(), own, 2, CPU) for own in (in_windows(films), whole))
    for name in ("boxes", "labels", "scores", "visible"):
        (one,), (other,) = getattr(first, name), getattr(second, name)
        assert torch.equal(one, other)
        assert one.dtype == other.dtype
    assert len(first.boxes[0]) == 2


def test_films_of_several_sizes_are_told_apart_and_batches_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    sizes = [(64, 96), (200, 330), (90, 100)]
    for number, size in enumerate(sizes):
        pixels = np.zeros(size, np.uint8)
        pixels[30 : 40 + number, 50:60] = 150
        Image.fromarray(pixels).save(tmp_path / "films" / f"{number}.png")
    films = prepare(tmp_path / "films", tmp_path / "out", long_side=4096, bits=8, salt=bytes(32), workers=1)
    results = [find_boxes(BrightPatches(), in_windows(films), batch, CPU) for batch in (1, 4, 100)]
    for found in results:
        assert [len(boxes) for boxes in found.boxes] == [1, 1, 1]
        for number, ((height, width), boxes) in enumerate(zip(sizes, found.boxes, strict=True)):
            np.testing.assert_allclose(boxes[0] * torch.tensor([width, height] * 2), [50, 30, 60, 40 + number])
        for name in ("boxes", "labels", "scores", "visible"):
            pairs = zip(getattr(found, name), getattr(results[0], name), strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)


def test_windows_that_are_reduced_for_the_network_give_boxes_of_the_film(tmp_path: Path) -> None:
    patches = [(80, 20, 120, 60), (200, 90, 300, 140)]
    films = film_with(tmp_path, *patches)
    found = find_boxes(BrightPatches(), in_windows(films, window=(128, 192)), 4, CPU)
    boxes = found.boxes[0].numpy() * [330, 200, 330, 200]
    np.testing.assert_allclose(boxes[np.argsort(boxes[:, 0])], patches, atol=2)


def test_films_in_memory_are_searched_like_stored_ones(tmp_path: Path) -> None:
    films = film_with(tmp_path, (80, 20, 120, 60), (200, 90, 300, 140))
    given = FilmsInMemory(films.rows[:1], [films.levels(0)])
    settings = DetectConfig(window=WINDOW)
    found = find_boxes(BrightPatches(), FilmsInWindows(given, [0], WINDOW, settings), 4, CPU)
    assert torch.equal(found.boxes[0], find_boxes(BrightPatches(), in_windows(films), 4, CPU).boxes[0])
    assert len(found.boxes[0]) == 2


def test_only_so_many_boxes_of_a_film_are_kept(tmp_path: Path) -> None:
    patches = [(x, y, x + 8, y + 8) for x in range(4, 320, 30) for y in range(4, 190, 30)]
    films = film_with(tmp_path, *patches)
    assert len(search(films)) == len(patches)
    few = FilmsInWindows(films, [0], WINDOW, DetectConfig(window=WINDOW, most=10))
    assert len(find_boxes(BrightPatches(), few, 4, CPU).boxes[0]) == 10


def test_what_was_visible_is_stitched_together(tmp_path: Path) -> None:
    films = film_with(tmp_path, size=(64, 192))
    apart = find_boxes(BrightPatches(), in_windows(films, overlap=0.0), 4, CPU).visible[0]
    expected = torch.ones(4, 12, dtype=torch.bool)
    expected[0, [0, 6]] = False
    assert torch.equal(apart, expected)
    overlapping = find_boxes(BrightPatches(), in_windows(films, overlap=0.5), 4, CPU).visible[0]
    expected[0, 6] = True
    assert torch.equal(overlapping, expected), "where another window has shown it, it was seen"
    every = in_windows(films).windows.windows(0)
    assert not stitch([np.zeros((4, 6), bool)] * len(every), every, (64, 192)).any()


def test_films_to_be_looked_at_are_whole(tmp_path: Path) -> None:
    films = film_with(tmp_path, (10, 10, 100, 60))
    assert tuple(in_windows(films)[0, 0]["image"].shape) == (1, 200, 330)
    assert in_windows(films)[0, 0]["image"].max() <= 1


def test_settings_of_windows_without_windows_are_refused() -> None:
    check_window_settings(DetectConfig())
    check_window_settings(DetectConfig(window=(64, 64), lesion_windows=0.3, windows_per_film=4, window_overlap=0.0))
    with pytest.raises(MimError, match=r"data\.tile has them cut into tiles"):
        check_window_settings(DetectConfig(window=(64, 64)), tile=512)
    for setting in ({"lesion_windows": 0.3}, {"windows_per_film": 4}, {"window_overlap": 0.5}):
        with pytest.raises(MimError, match=rf"detect\.{next(iter(setting))} says nothing without detect\.window"):
            check_window_settings(DetectConfig(**setting))
