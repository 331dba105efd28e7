import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from film_factory import pattern, store_films, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices

from mim.config import AugmentConfig
from mim.data import PreparedDataset
from mim.data.annotations import Annotations, read_annotations
from mim.data.augment import evaluation_transform, train_transform
from mim.data.cut import Cut
from mim.data.loader import FilmDataset
from mim.data.window_loader import DrawnWindows, SlidingWindows
from mim.data.windows import (
    LEAST_INSIDE,
    check_resolution,
    count_larger_than_overlap,
    enough_inside,
    place_window,
    sliding_windows,
)
from mim.errors import MimError

PLAIN = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0)
LESIONS = {"0.png": [(100, 40, 12, 10)], "1.png": [(5, 150, 14, 14), (200, 60, 30, 20)]}  # 2.png has none


def folder_of_films(root: Path) -> Path:
    for number in range(3):
        write_png(root / f"{number}.png", pattern(number, 180, 260))
    images = [{"id": n, "file_name": f"{n}.png", "width": 260, "height": 180} for n in range(3)]
    boxes = [(int(name[0]), list(box)) for name, own in LESIONS.items() for box in own]
    content = {"images": images, "annotations": [{"image_id": image, "bbox": box} for image, box in boxes]}
    (root / "boxes.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("windows")
    return store_films(folder_of_films(root / "films"), root / "out")


@pytest.fixture(scope="module")
def annotations(films: PreparedDataset) -> Annotations:
    return read_annotations(films, films.source, "boxes.json")


def drawn(films, annotations, augment=PLAIN, size=(64, 64), **more) -> DrawnWindows:
    given_ = {"window": (64, 64), "lesions": annotations.lesions, "lesion_share": 0.0, **more}
    return DrawnWindows(films, [0, 1, 2], train_transform(augment, size), 5, **given_)


@given(
    film=st.tuples(st.integers(16, 300), st.integers(16, 300)),
    window=st.tuples(st.integers(16, 120), st.integers(16, 120)),
    overlap=st.floats(0, 0.9),
)
@settings(deadline=None)
def test_windows_cover_every_pixel_and_lie_where_monai_slides_them(film, window, overlap) -> None:
    windows = sliding_windows(film, window, overlap)
    covered = np.zeros(film, dtype=bool)
    for part in windows:
        assert (part.height, part.width) == (min(film[0], window[0]), min(film[1], window[1]))
        covered[part.slices] = True
    assert covered.all()
    step = [side - min(side - 1, int(np.ceil(side * overlap))) for side in window]
    assert [part.slices for part in windows] == dense_patch_slices(film, window, step)


@given(
    seed=st.integers(0, 10**6),
    wide=st.floats(0.1, 1),
    tall=st.floats(0.1, 1),
    x=st.floats(0, 0.9),
    y=st.floats(0, 0.9),
    side=st.floats(0.01, 0.1),
)
def test_a_window_placed_on_a_lesion_holds_it_or_lies_within_it(seed, wide, tall, x, y, side) -> None:
    lesion = (x, y, x + side, y + side)
    cut = place_window(Cut(0.0, 0.0, wide, tall), (300, 200), (100, 50), random.Random(seed), lesion)
    assert cut.right - cut.left == pytest.approx(wide * 50 / 200)
    assert cut.bottom - cut.top == pytest.approx(tall * 100 / 300)
    assert min(cut.left, cut.top) >= 0
    assert max(cut.right, cut.bottom) <= 1 + 1e-9
    for (low, high), (near, far) in (
        ((cut.left, cut.right), (lesion[0], lesion[2])),
        ((cut.top, cut.bottom), (lesion[1], lesion[3])),
    ):
        held = low <= near + 1e-9 and far <= high + 1e-9
        within = near <= low + 1e-9 and high <= far + 1e-9
        assert held if far - near <= high - low else within


def test_windows_are_the_films_own_pixels(films, annotations) -> None:
    dataset = drawn(films, annotations, per_film=4)
    assert len(dataset) == 12
    corners = set()
    for index in range(12):
        sample = dataset[3, index]
        assert sample["film"] == index % 3
        image, film = sample["image"][0].numpy(), films.image(sample["film"])
        windows = np.lib.stride_tricks.sliding_window_view(film, (64, 64))
        places = np.argwhere((windows[:, :, 0, 0] == image[0, 0]) & (windows[:, :, 63, 63] == image[63, 63]))
        found = [tuple(place) for place in places if (windows[tuple(place)] == image).all()]
        assert len(found) == 1, "cut out, not resampled"
        corners.add(found[0])
        top, left = found[0]
        expected = [
            (x - left, y - top, x + wide - left, y + high - top)
            for x, y, wide, high in LESIONS.get(f"{sample['film']}.png", [])
        ]
        clipped = np.array(expected).reshape(-1, 4).clip(0, 64)
        area = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
        whole = np.array([(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in expected])
        np.testing.assert_allclose(sample["boxes"], clipped[area >= LEAST_INSIDE * whole], atol=1e-3)
    assert len(corners) == 12


def test_a_window_is_a_function_of_seed_epoch_and_number(films, annotations) -> None:
    augment = AugmentConfig(crop_scale=(0.5, 1.0), vertical_flip=0.5, rotate=5.0, brightness=0.2)
    one, same = (drawn(films, annotations, augment, lesion_share=0.5) for _ in range(2))
    for index in (2, 0, 1):
        first, second, later = one[1, index], same[1, index], one[2, index]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["boxes"], second["boxes"])
        assert not torch.equal(first["image"], later["image"])


def test_the_share_of_windows_that_hold_a_lesion_is_the_one_asked_for(films, annotations) -> None:
    augment = AugmentConfig(crop_scale=(0.5, 1.0), vertical_flip=0.5)
    certain = drawn(films, annotations, augment, lesion_share=1.0, per_film=20)
    for index in range(60):
        sample = certain[0, index]
        sides = sample["boxes"][:, 2:] - sample["boxes"][:, :2]
        assert sample["film"] != 2, "it has no lesion"
        assert (sides >= 9).all(dim=1).any(), "whole, and never reduced"
        assert sample["lesion"].any()
        assert sample["box_label"].shape == (len(sides),)
    never = drawn(films, annotations, augment, per_film=100)
    half = drawn(films, annotations, augment, lesion_share=0.5, per_film=100)
    by_chance = np.mean([len(never[0, index]["boxes"]) > 0 for index in range(300)])
    share = np.mean([len(half[0, index]["boxes"]) > 0 for index in range(300)])
    assert share == pytest.approx(0.5 + by_chance / 2, abs=0.08)


def test_films_without_lesions_cannot_give_windows_that_hold_one(films) -> None:
    with pytest.raises(ValueError, match="no film has one"):
        DrawnWindows(
            films, [2], train_transform(PLAIN, (64, 64)), 0, window=(64, 64), lesions={2: ()}, lesion_share=0.5
        )


def test_what_is_left_of_a_box_is_measured_by_what_a_window_can_hold() -> None:
    cut = Cut(0.5, 0.5, 0.7, 0.7)
    boxes = np.array(
        [
            [0.46, 0.5, 0.56, 0.6],  # 60 % inside
            [0.42, 0.5, 0.52, 0.6],  # 20 % inside
            [0.1, 0.1, 0.9, 0.9],  # larger than the part, which it fills
            [0.1, 0.1, 0.55, 0.9],  # a quarter of what the part could hold
            [0.8, 0.8, 0.9, 0.9],
        ],
        np.float32,
    )
    assert enough_inside(boxes, cut).tolist() == [0, 2]


def test_sliding_windows_give_the_pixels_and_where_they_lie(films) -> None:
    windows = SlidingWindows(films, [1, 2], evaluation_transform((64, 96)), window=(64, 96), overlap=0.25)
    assert windows.sizes == [(180, 260)] * 2
    assert len(windows) == 2 * len(windows.windows(0)) == 32
    for index in (0, 5, 15, 16, 31):
        sample = windows[0, index]
        part = windows.windows(index // 16)[index % 16]
        np.testing.assert_allclose(sample["part"] * torch.tensor([260, 180] * 2), [*part], atol=1e-9)
        image = films.image(1 + index // 16)[part.slices]
        np.testing.assert_array_equal((sample["image"][0] * 255).round().byte(), image)


def test_a_film_in_one_window_is_the_whole_film(films) -> None:
    one = SlidingWindows(films, [0], evaluation_transform((64, 96)), window=(180, 300), overlap=0.25)
    whole = FilmDataset(films, [0], evaluation_transform((64, 96)), 0)
    assert len(one) == 1
    assert torch.equal(one[0, 0]["image"], whole[0, 0]["image"])


def test_a_store_that_is_coarser_than_windows_need_is_refused_with_what_would_do(tmp_path: Path) -> None:
    folder = folder_of_films(tmp_path / "films")
    reduced = store_films(folder, tmp_path / "reduced", long_side=130)
    for window, image, side in (((64, 64), (64, 64), 260), ((64, 64), (48, 48), 195), ((64, 64), (128, 128), 260)):
        said = f"detect.window: 3 of 3 films .* {window[0]} x {window[1]} .* 130.*give data.long_side={side}$"
        with pytest.raises(MimError, match=said):
            check_resolution(reduced, range(3), window, image)
    check_resolution(reduced, range(3), (64, 64), (32, 32))
    check_resolution(store_films(folder, tmp_path / "whole", long_side=260), range(3), (64, 64), (128, 128))


def test_boxes_that_no_window_need_hold_whole_are_counted() -> None:
    boxes = [(0.0, 0.0, 0.1, 0.1), (0.0, 0.0, 0.16, 0.1), (0.5, 0.5, 0.6, 0.9)]  # 20 x 10, 32 x 10, 20 x 40 pixels
    assert count_larger_than_overlap((100, 200), boxes, (80, 80), 0.25) == 2
    assert count_larger_than_overlap((100, 200), boxes, (80, 80), 0.5) == 0
    assert count_larger_than_overlap((100, 200), boxes, (100, 80), 0.25) == 1, "never cut from top to bottom"
    for overlap in (0.25, 0.5):
        windows = sliding_windows((100, 200), (80, 80), overlap)
        held = [(r.left, r.top, r.right, r.bottom) for r in windows]
        limit = 80 * overlap
        for left in range(200 - int(limit)):
            assert any(x1 <= left and left + limit <= x2 for x1, _, x2, _ in held)
