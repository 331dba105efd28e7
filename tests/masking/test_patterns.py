import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from torch.utils.data import default_collate

from mim.config import AugmentConfig
from mim.data.augment import train_transform
from mim.data.loader import FilmDataset, train_loader
from mim.masking import RandPatchMaskd
from mim.masking.patterns import BLOCK_WISE, Blocks, Foreground, Texture, Wanted, create_pattern, hidden_count
from mim.masking.patterns.content import is_tissue

EXACT = ("random", "block", "grid", "inverse_block", "multi_block", "texture")
ALL = (*EXACT, "foreground", "hard", "attention")
GRIDS = st.tuples(st.integers(1, 16), st.integers(1, 16)).filter(lambda grid: grid[0] * grid[1] > 1)
RATIOS = st.one_of(st.sampled_from([0.15, 0.5, 0.75, 0.9]), st.floats(0.01, 0.99))
SEEDS = st.integers(0, 10_000)
CELL = 4


def film(grid, seed):
    """An image (H, W) with black air, flat tissue and noisy tissue in some cells each."""
    generator = np.random.RandomState(seed)
    kind = np.kron(generator.randint(3, size=grid), np.ones((CELL, CELL), dtype=int))
    return np.where(kind == 0, 0.0, 0.5 + (kind == 2) * generator.uniform(-0.3, 0.3, kind.shape)).astype(np.float32)


def draw(pattern, grid, ratio, seed, image=None):
    visible = pattern(Wanted(grid, ratio, np.random.RandomState(seed), image))
    assert visible.shape == grid
    assert visible.dtype == torch.bool
    return visible.numpy()


def pieces(cells):
    """How many pieces cells form that touch along their sides."""
    return label(cells)[1]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(EXACT), GRIDS, RATIOS, SEEDS)
def test_the_count_is_exact_whatever_the_pattern(name, grid, ratio, seed):
    pattern, image = create_pattern(name), film(grid, seed)
    visible = draw(pattern, grid, ratio, seed, image)
    hidden = int((~visible).sum())
    assert hidden == hidden_count(visible.size, ratio)
    assert 1 <= hidden < visible.size
    assert np.array_equal(visible, draw(pattern, grid, ratio, seed, image))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ratio", [0.15, 0.75, 0.9])
def test_masks_differ_from_draw_to_draw_and_any_ratio_is_just_a_value(name, ratio):
    masks = [draw(create_pattern(name), (14, 14), ratio, seed, film((14, 14), 0)) for seed in range(8)]
    assert len({mask.tobytes() for mask in masks}) > 3


@settings(max_examples=60, deadline=None)
@given(GRIDS, RATIOS, SEEDS, st.sampled_from([BLOCK_WISE.smallest, 1, 6]))
def test_one_block_is_in_one_piece_trimmed_or_not(grid, ratio, seed, smallest):
    whole = Blocks(scale=(1.0, 1.0), aspect=(1.0, 1.0), smallest=smallest)  # one block is enough for any ratio
    if grid[0] == grid[1]:
        assert pieces(~draw(whole, grid, ratio, seed)) == 1
    few = hidden_count(grid[0] * grid[1], 0.01)
    assert pieces(~draw(BLOCK_WISE, grid, 0.01, seed)) == 1 or few > 1


def test_blocks_leave_larger_pieces_than_chance():
    def mean_pieces(name):
        return np.mean([pieces(~draw(create_pattern(name), (14, 14), 0.4, seed)) for seed in range(40)])

    assert mean_pieces("multi_block") <= 3
    assert mean_pieces("block") <= 6
    assert mean_pieces("random") > 12


@settings(max_examples=80, deadline=None)
@given(GRIDS, RATIOS, SEEDS)
def test_the_inverse_block_shows_a_window(grid, ratio, seed):
    visible = draw(create_pattern("inverse_block"), grid, ratio, seed)
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    window = visible[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    trimmed = np.argwhere(~window)
    assert len(trimmed) < window.shape[0]
    assert set(trimmed[:, 1]) <= {0} or set(trimmed[:, 1]) <= {window.shape[1] - 1}, "from one edge alone"
    assert pieces(visible) == 1


@settings(max_examples=80, deadline=None)
@given(GRIDS, st.integers(1, 5), RATIOS, SEEDS)
def test_units_are_hidden_whole_but_for_the_one_that_is_trimmed(grid, unit, ratio, seed):
    visible = draw(create_pattern("random", unit=unit), grid, ratio, seed)
    assert int((~visible).sum()) == hidden_count(visible.size, ratio)
    units = [
        visible[top : top + unit, left : left + unit]
        for top in range(0, grid[0], unit)
        for left in range(0, grid[1], unit)
    ]
    broken = [cells for cells in units if cells.any() and not cells.all()]
    assert len(broken) <= 1
    for cells in broken:
        assert list(cells.ravel()) == sorted(cells.ravel()), "row by row"


@settings(max_examples=80, deadline=None)
@given(GRIDS, RATIOS, SEEDS)
def test_the_grid_keeps_its_distance(grid, ratio, seed):
    visible = draw(create_pattern("grid"), grid, ratio, seed)
    rarer = np.argwhere(visible if visible.sum() <= (~visible).sum() else ~visible)
    # ceil(rows / n) * ceil(columns / n) places are n apart
    widest = max(n for n in range(1, max(grid) + 1) if -(-grid[0] // n) * -(-grid[1] // n) >= len(rarer))
    apart = np.abs(rarer[:, None] - rarer[None]).max(-1)[~np.eye(len(rarer), dtype=bool)]
    assert len(rarer) == 1 or apart.min() >= min(widest, 2)
    if grid[0] % widest == 0 and grid[1] % widest == 0:
        assert len(rarer) == 1 or apart.min() >= widest


def test_the_grid_is_that_of_mae_at_three_quarters_and_a_chessboard_at_one_half():
    for seed in range(6):
        visible = draw(create_pattern("grid"), (14, 14), 0.75, seed)
        assert {tuple(v) for v in np.argwhere(visible) % 2} == {tuple(np.argwhere(visible)[0] % 2)}
        assert len({bool(v) for v in draw(create_pattern("grid"), (6, 8), 0.5, seed)[::2, ::2].ravel()}) == 1


@settings(max_examples=80, deadline=None)
@given(GRIDS, RATIOS, SEEDS)
def test_the_ratio_of_foreground_is_of_tissue_and_air_stays_visible(grid, ratio, seed):
    image = film(grid, seed)
    air = image.reshape(grid[0], CELL, grid[1], CELL).max(axis=(1, 3)) == 0
    tissue = ~air if not air.all() else air
    visible = draw(Foreground(), grid, ratio, seed, image)
    hidden = int((~visible).sum())
    assert 1 <= hidden < visible.size
    assert visible[~tissue].all()
    assert abs(hidden - ratio * tissue.sum()) <= 1
    exact = draw(Foreground(exact=True), grid, ratio, seed, image)
    assert int((~exact).sum()) == hidden_count(exact.size, ratio)
    assert abs(int((~exact & tissue).sum()) - ratio * tissue.sum()) <= 1.5


@pytest.mark.parametrize("brightness", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", ["foreground", "texture"])
def test_a_film_of_one_brightness_is_hidden_at_random(brightness, name):
    image = np.full((32, 32), brightness, np.float32)
    masks = [draw(create_pattern(name), (8, 8), 0.75, seed, image) for seed in range(200)]
    assert {int((~mask).sum()) for mask in masks} == {48}
    assert np.abs(np.mean(masks, axis=0) - 0.25).max() < 0.15


def test_dark_lungs_are_tissue_and_black_air_is_not():
    means = np.array([0.01] * 20 + [0.3] * 30 + [0.8] * 50)
    assert is_tissue(means).tolist() == [False] * 20 + [True] * 80
    assert is_tissue(np.array([0.7, 0.71, 0.8])).all()


def test_texture_is_hidden_more_often_than_chance_and_never_always():
    grid = (8, 8)
    image = np.full((32, 32), 0.5, np.float32)
    image[:, 16:] += np.random.RandomState(0).uniform(-0.2, 0.2, (32, 16)).astype(np.float32)
    image[:, :16] += np.random.RandomState(0).uniform(-0.05, 0.05, (32, 16)).astype(np.float32)

    def hidden_shares(share):
        hidden = np.mean([~draw(Texture(share), grid, 0.5, seed, image) for seed in range(200)], axis=0)
        return hidden[:, 4:].mean(), hidden[:, :4].mean()

    rough, flat = hidden_shares(0.5)
    assert rough > 0.6 > 0.4 > flat > 0.1
    assert hidden_shares(1.0)[0] > rough + 0.1
    assert abs(hidden_shares(0.0)[0] - 0.5) < 0.05


def test_whole_numbers_are_looked_at_as_floats():
    pixels = torch.from_numpy(film((8, 8), 3))[None]
    masks = []
    for image in (pixels, (pixels * 255).round().to(torch.uint8), (pixels * 65535).round().to(torch.uint16)):
        transform = RandPatchMaskd("image", CELL, 0.6, pattern="foreground")
        transform.set_random_state(seed=1)
        masks.append(transform({"image": image})["visible"])
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EXACT), SEEDS)
def test_a_range_of_ratios_is_drawn_for_each_film(name, seed):
    transform = RandPatchMaskd("image", CELL, (0.3, 0.8), pattern=name)
    transform.set_random_state(seed=seed)
    image = torch.from_numpy(film((10, 10), seed))[None]
    hidden = [int((~transform({"image": image})["visible"]).sum()) for _ in range(12)]
    assert min(hidden) >= 30
    assert max(hidden) <= 80
    assert len(set(hidden)) > 3


@pytest.mark.parametrize("name", ["hard", "attention"])
def test_guided_patterns_bring_noise_and_a_random_mask(name):
    transform = RandPatchMaskd("image", 8, 0.75, pattern=name)
    transform.set_random_state(seed=5)
    sample = transform({"image": torch.zeros(1, 32, 48)})
    assert int((~sample["visible"]).sum()) == 18
    noise = sample["mask_noise"]
    assert noise.shape == (4, 6)
    assert noise.dtype == torch.float32
    assert 0 <= noise.min() < noise.max() < 1
    assert "mask_noise" not in RandPatchMaskd("image", 8)({"image": torch.zeros(1, 32, 48)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "blok"}, "no mask pattern 'blok'; there are random, block"),
        ({"unit": 0}, "at least 1 cell"),
        ({"guided_share": 1.5}, "between 0 and 1"),
        ({"masking_ratio": (0.8, 0.3)}, "the smaller first"),
        ({"masking_ratio": (0.0, 0.3)}, "between 0 and 1"),
    ],
)
def test_a_setting_that_cannot_be_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandPatchMaskd("image", **arguments)


def test_a_pattern_that_looks_needs_a_film():
    with pytest.raises(ValueError, match="looks at the film"):
        create_pattern("texture")(Wanted((4, 4), 0.5, np.random.RandomState(0)))


class Films:
    """What FilmDataset needs of a prepared dataset."""

    def levels(self, index):
        stored = (film((16, 12), index) * 255).astype(np.uint8)
        return stored, stored[::2, ::2]


def dataset(pattern, seed=7):
    mask = RandPatchMaskd("image", 8, 0.75, pattern=pattern)
    transform = train_transform(AugmentConfig(), (64, 48))
    return FilmDataset(Films(), range(6), transform, seed, transforms=[mask], integers=True)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_is_a_function_of_seed_epoch_and_index(name):
    first, again, other = dataset(name), dataset(name), dataset(name, seed=8)
    backwards = {place: again[place]["visible"] for place in [(1, 3), (0, 3), (0, 0)]}
    for place, visible in reversed(list(backwards.items())):
        assert torch.equal(first[place]["visible"], visible)
    masks = [first[place]["visible"] for place in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    changed = [dataset[0, 0]["visible"] for dataset in (first, other)]
    assert any(not torch.equal(masks[0], mask) for mask in masks[1:])
    assert not torch.equal(*changed) or name in ("grid", "inverse_block")  # few ways to lay these


@pytest.mark.parametrize("name", ["texture", "hard"])
def test_masks_do_not_depend_on_workers(name):
    def batches(workers):
        order = {"batch_size": 3, "seed": 0, "world": 1, "rank": 0, "accumulate": 1, "start_step": 0, "total_steps": 3}
        return default_collate([dict(batch) for batch in train_loader(dataset(name), **order, workers=workers)])

    alone, helped = batches(0), batches(2)
    assert set(alone) == set(helped)
    assert all(torch.equal(alone[key], helped[key]) for key in alone)


def test_the_mask_looks_at_the_film_after_it_was_cropped_and_flipped():
    films = dataset("foreground")
    for place in [(0, 0), (0, 1), (5, 2)]:
        sample = films[place]
        means = sample["image"][0].float().reshape(8, 8, 6, 8).mean((1, 3)) / 255
        assert torch.from_numpy(~is_tissue(means.double().numpy())).logical_and(~sample["visible"]).sum() == 0
