import os
import random
import subprocess
import sys
import time

import albumentations as A
import cv2
import numpy as np
import pytest
from film_factory import pattern
from scipy.stats import ks_2samp, spearmanr

from mim.config import AugmentConfig
from mim.data.augment import FilmTransform, draw_cut, evaluation_transform, train_transform
from mim.errors import MimError

STILL = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), horizontal_flip=0.0)
EVERYTHING = AugmentConfig(vertical_flip=0.5, rotate=15.0, brightness=0.2, contrast=0.2)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_film_of_the_right_size_comes_out_as_it_is(kind: type) -> None:
    film = pattern(1, 48, 64).astype(kind)
    film.flags.writeable = False
    for transform in (evaluation_transform((48, 64)), train_transform(STILL, (48, 64))):
        out = transform(film, 5)
        assert out.dtype == kind
        assert out.flags.c_contiguous
        assert out.flags.writeable
        np.testing.assert_array_equal(out, film)


def test_shrinking_averages_and_enlarging_interpolates() -> None:
    film = pattern(1, 64, 96)
    for factor in (2, 4, 8):
        size = (64 // factor, 96 // factor)
        means = film.reshape(size[0], factor, size[1], factor).mean(axis=(1, 3))
        for transform in (evaluation_transform(size), train_transform(STILL, size)):
            np.testing.assert_allclose(transform(film), means, atol=1.5)  # rounded at each step
    larger = cv2.resize(film.astype(np.float32), (180, 120), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(evaluation_transform((120, 180))(film), larger, atol=1)


def test_the_same_seed_gives_the_same_film_whatever_came_before() -> None:
    film = pattern(2, 120, 200)
    transform, other = (train_transform(EVERYTHING, (64, 96)) for _ in range(2))
    first = [transform(film, seed) for seed in range(12)]
    for seed in reversed(range(12)):
        np.testing.assert_array_equal(other(film, seed), first[seed])
    assert len({out.tobytes() for out in first}) == 12
    assert all(out.shape == (64, 96) and out.dtype == np.uint8 for out in first)


def test_flips_are_independent_of_each_other() -> None:
    film = np.arange(4, dtype=np.uint8).reshape(2, 2) * 60
    both = STILL.model_copy(update={"horizontal_flip": 0.5, "vertical_flip": 0.5})
    transform = train_transform(both, (2, 2))
    corners = [int(transform(film, seed)[0, 0]) // 60 for seed in range(400)]
    assert all(70 < corners.count(corner) < 130 for corner in range(4))


def crop_of(transform: FilmTransform, height: int, width: int, seed: int) -> tuple[float, float]:
    """Shares of the film's height and width that a crop keeps, from what it shows of two ramps."""
    down = np.repeat(np.linspace(0, 65535, height)[:, None], width, axis=1).round().astype(np.uint16)
    across = np.repeat(np.linspace(0, 65535, width)[None], height, axis=0).round().astype(np.uint16)
    tall, wide = transform(down, seed), transform(across, seed)
    return float(tall[-1].mean() - tall[0].mean()) / 65535, float(wide[:, -1].mean() - wide[:, 0].mean()) / 65535


def test_crops_keep_the_asked_share_and_a_ratio_relative_to_the_film() -> None:
    crops = AugmentConfig(crop_scale=(0.4, 0.6), crop_ratio=(0.8, 1.25), horizontal_flip=0.0)
    transform = train_transform(crops, (400, 400))  # the film is twice as wide as high, the network's square
    shares = np.array([crop_of(transform, 200, 400, seed) for seed in range(60)])
    areas, ratios = shares[:, 0] * shares[:, 1], shares[:, 1] / shares[:, 0]
    assert areas.min() > 0.38
    assert areas.max() < 0.62
    assert areas.std() > 0.03
    assert ratios.min() > 0.77
    assert ratios.max() < 1.3
    assert np.abs(np.log(ratios)).max() > 0.15


def test_what_rotation_brings_in_is_black() -> None:
    transform = train_transform(STILL.model_copy(update={"rotate": 45.0}), (64, 64))
    outs = [transform(np.full((64, 64), 255, np.uint8), seed) for seed in range(10)]
    assert min(out.min() for out in outs) == 0
    assert all(out[32, 32] == 255 for out in outs)


def test_brightness_and_contrast_stay_within_their_limits() -> None:
    brighter = train_transform(STILL.model_copy(update={"brightness": 0.2}), (8, 8))
    grey = np.full((8, 8), 102, np.uint8)
    levels = [float(brighter(grey, seed).mean()) / 255 - 0.4 for seed in range(80)]
    assert -0.202 < min(levels) < -0.1
    assert 0.1 < max(levels) < 0.202
    harder = train_transform(STILL.model_copy(update={"contrast": 0.5}), (8, 8))
    factors = [float(harder(grey, seed).mean()) / 102 for seed in range(80)]
    assert 0.495 < min(factors) < 0.75
    assert 1.25 < max(factors) < 1.505


def cuts(augment: AugmentConfig, count: int) -> np.ndarray:
    """Area, ratio, left and top of parts drawn from a film."""
    drawn = [draw_cut(random.Random(seed), augment) for seed in range(count)]
    sides = [(cut.right - cut.left, cut.bottom - cut.top, cut.left, cut.top) for cut in drawn]
    return np.array([(wide * tall, wide / tall, left, top) for wide, tall, left, top in sides])


def cuts_of_albumentations(augment: AugmentConfig, count: int) -> np.ndarray:
    peer = A.RandomResizedCrop(size=(8, 8), scale=augment.crop_scale, ratio=augment.crop_ratio, p=1)
    side = 4000  # so that rounding to whole pixels is next to nothing
    drawn = []
    for seed in range(count):
        peer.set_random_state(np.random.default_rng(seed), random.Random(10_000 + seed))
        corners = peer.get_params_dependent_on_data({"shape": (side, side)}, {})["crop_coords"]
        left, top, right, bottom = (corner / side for corner in corners)
        drawn.append(((right - left) * (bottom - top), (right - left) / (bottom - top), left, top))
    return np.array(drawn)


@pytest.mark.parametrize("scale", [(0.3, 0.6), (0.08, 1.0)])
def test_parts_are_drawn_as_albumentations_draws_them_from_a_square(scale: tuple[float, float]) -> None:
    augment = AugmentConfig(crop_scale=scale, crop_ratio=(0.75, 4 / 3))
    ours, theirs = cuts(augment, 3000), cuts_of_albumentations(augment, 3000)
    for own, other in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(own, other).pvalue > 0.001


def test_rotation_is_not_tied_to_the_part_that_is_cut_out() -> None:
    # a film of one grey: the corner that rotation makes black says how far it was turned
    film = np.full((64, 64), 255, np.uint8)
    turned = AugmentConfig(crop_scale=(0.3, 1.0), crop_ratio=(1.0, 1.0), rotate=30.0)
    black = [int((train_transform(turned, (64, 64))(film, seed) == 0).sum()) for seed in range(300)]
    assert abs(spearmanr(black, cuts(turned, 300)[:, 0]).statistic) < 0.2


@pytest.mark.parametrize("change", [{"crop_scale": (0.9, 0.5)}, {"crop_ratio": (0.0, 1.0)}, {"crop_scale": (0.0, 1.0)}])
def test_a_range_that_makes_no_sense_is_named(change: dict) -> None:
    with pytest.raises(MimError, match=rf"augment\.{next(iter(change))}"):
        train_transform(AugmentConfig(**change), (8, 8))


def test_reseeding_costs_next_to_nothing() -> None:
    tiny = np.zeros((4, 4), np.uint8)
    transform = train_transform(EVERYTHING, (4, 4))
    start = time.process_time()
    for seed in range(200):
        transform(tiny, seed)
    assert (time.process_time() - start) / 200 < 0.003


def test_albumentations_does_not_ask_the_network_for_its_version() -> None:
    code = (
        "import urllib.request as u\n"
        "def refuse(*a, **k): raise SystemExit('asked')\n"
        "u.urlopen = refuse\nu.OpenerDirector.open = refuse\nimport mim.data.augment"
    )
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
