from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from film_factory import pattern, store_films, write_png
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import RandGaussianNoised, Randomizable, Transform

from mim.config import AugmentConfig
from mim.data import PreparedDataset, derive_seed
from mim.data.augment import evaluation_transform, train_transform
from mim.data.loader import FilmDataset, RankBatches, SampleStream, evaluation_loader, to_float, train_loader
from mim.masking import RandPatchMaskd

COUNT = 11
PLAN = {
    "batch_size": 4,
    "seed": 1,
    "world": 1,
    "rank": 0,
    "accumulate": 1,
    "start_step": 0,
    "total_steps": 6,
    "workers": 0,
}


class AddDraw(Randomizable, Transform):
    """Adds a random number to the sample."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "draw": self.R.random()}


class AddConstant:
    """A transform without randomness."""

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "constant": torch.ones(2, dtype=torch.bool)}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("loader")
    for number in range(COUNT + 2):
        write_png(root / "films" / f"{number:02}.png", pattern(number))
    return store_films(root / "films", root / "out")


@pytest.fixture(scope="module")
def dataset(films: PreparedDataset) -> FilmDataset:
    noise = RandGaussianNoised(keys=["image"], prob=0.5)
    transforms = [noise, AddDraw(), AddConstant()]
    augment = train_transform(AugmentConfig(vertical_flip=0.5), (16, 24))
    return FilmDataset(films, range(2, COUNT + 2), augment, 9, [n % 2 for n in range(COUNT)], transforms)


def batches(dataset: FilmDataset, **change: int) -> list[dict[str, torch.Tensor]]:
    return list(train_loader(dataset, **{**PLAN, **change}))


def joined(parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {key: torch.cat([torch.as_tensor(part[key]) for part in parts]) for key in parts[0]}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_batch_is_what_the_rooms_agreed_on(dataset: FilmDataset) -> None:
    batch = batches(dataset)[0]
    assert batch["image"].shape == (4, 1, 16, 24)
    assert batch["image"].dtype == torch.float32
    assert batch["index"].dtype == batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [index % 2 for index in batch["index"].tolist()]
    assert batch["constant"].shape == (4, 2)


@pytest.fixture(scope="module")
def expected(dataset: FilmDataset) -> list[dict[str, torch.Tensor]]:
    """What one process that loads by itself meets in steps of 8 films, over several epochs."""
    return batches(dataset, batch_size=8)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_neither_workers_nor_ranks_change_a_byte(
    dataset: FilmDataset, expected: list[dict[str, torch.Tensor]], workers: int, world: int
) -> None:
    share = {"batch_size": 8 // world, "world": world, "workers": workers}
    ranks = [batches(dataset, rank=rank, **share) for rank in range(world)]
    assert len(expected) == len(ranks[0]) == 6
    for whole, parts in zip(expected, zip(*ranks, strict=True), strict=True):
        assert same(whole, joined(list(parts)))


@pytest.mark.parametrize("bits", [8, 16])
def test_films_stay_whole_numbers_until_the_device_if_asked(tmp_path: Path, bits: int) -> None:
    for number in range(COUNT):
        write_png(tmp_path / "films" / f"{number:02}.png", pattern(number, 90, 120))
    films = store_films(tmp_path / "films", tmp_path / "out", bits=bits)
    augment = train_transform(AugmentConfig(vertical_flip=0.5), (32, 48))
    mask = RandPatchMaskd("image", patch_size=16)
    whole, floats = (
        FilmDataset(films, range(COUNT), augment, 0, None, [mask], integers=kept) for kept in (True, False)
    )
    for workers in (0, 2):
        for stored, expected in zip(batches(whole, workers=workers), batches(floats), strict=True):
            assert stored["image"].dtype == (torch.uint8 if bits == 8 else torch.uint16)
            assert torch.equal(to_float(stored["image"]), expected["image"])
            assert torch.equal(stored["visible"], expected["visible"])
            assert stored["visible"].shape == (4, 2, 3)


def test_whole_numbers_become_shares_of_white() -> None:
    for kind, white in ((torch.uint8, 255), (torch.uint16, 65535)):
        shares = to_float(torch.tensor([0, 1, white - 1, white], dtype=kind))
        assert shares.dtype == torch.float32
        expected = np.array([0, 1, white - 1, white], dtype=np.float32) / np.float32(white)
        np.testing.assert_array_equal(shares.numpy(), expected)
    floats = torch.tensor([0.25])
    assert to_float(floats) is floats


@settings(deadline=None, max_examples=40)
@given(step=st.integers(0, 12), accumulate=st.integers(1, 3), world=st.integers(1, 4), count=st.integers(1, 9))
def test_the_batches_of_a_step_do_not_depend_on_where_the_run_began(
    step: int, accumulate: int, world: int, count: int
) -> None:
    for rank in range(world):
        all_steps, resumed = (
            list(RankBatches(SampleStream(count, 3), 2, world, rank, accumulate, start, 13)) for start in (0, step)
        )
        assert resumed == all_steps[step * accumulate :]


def test_accumulation_divides_the_same_step(dataset: FilmDataset) -> None:
    whole = batches(dataset, batch_size=8)
    parts = batches(dataset, batch_size=2, world=1, accumulate=4)
    assert len(parts) == 24
    assert all(same(whole[step], joined(parts[4 * step : 4 * step + 4])) for step in range(6))
    ranks = [batches(dataset, batch_size=2, world=2, accumulate=2, rank=rank) for rank in (0, 1)]
    for step in range(6):
        order = [ranks[rank][2 * step + part] for part in (0, 1) for rank in (0, 1)]
        assert same(whole[step], joined(order))


def test_a_resumed_loader_goes_on_where_it_stopped(dataset: FilmDataset) -> None:
    whole = batches(dataset, accumulate=2)
    resumed = batches(dataset, accumulate=2, start_step=3, workers=1)
    assert len(resumed) == 6
    assert all(same(one, other) for one, other in zip(whole[6:], resumed, strict=True))
    assert batches(dataset, start_step=6) == batches(dataset, start_step=9) == []


def test_a_film_changes_from_epoch_to_epoch_and_with_the_seed(films: PreparedDataset, dataset: FilmDataset) -> None:
    first, again, later = dataset[0, 3], dataset[0, 3], dataset[1, 3]
    assert torch.equal(first["image"], again["image"])
    assert first["draw"] == again["draw"] != later["draw"]
    assert not torch.equal(first["image"], later["image"])
    other = FilmDataset(films, range(2, COUNT + 2), train_transform(AugmentConfig(), (16, 24)), 10, None, [AddDraw()])
    assert other[0, 3]["draw"] != first["draw"]
    assert "label" not in other[0, 3]


@settings(deadline=None, max_examples=40)
@given(count=st.integers(1, 40), seed=st.integers(0, 3), start=st.integers(0, 100))
def test_every_epoch_holds_every_film_once(count: int, seed: int, start: int) -> None:
    stream = SampleStream(count, seed)
    places = [stream[position] for position in range(3 * count)]
    for epoch in range(3):
        part = places[epoch * count : (epoch + 1) * count]
        assert {where for where, _ in part} == {epoch}
        assert sorted(index for _, index in part) == list(range(count))
    assert SampleStream(count, seed)[start % (3 * count)] == places[start % (3 * count)]


def test_epochs_and_seeds_have_different_orders() -> None:
    orders = [[SampleStream(50, seed)[50 * epoch + n][1] for n in range(50)] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@settings(deadline=None, max_examples=40)
@given(batch=st.integers(1, 5), world=st.integers(1, 4), accumulate=st.integers(1, 3), start=st.integers(0, 4))
def test_the_ranks_of_a_step_take_its_positions_once(batch: int, world: int, accumulate: int, start: int) -> None:
    stream = SampleStream(7, 0)
    ranks = [list(RankBatches(stream, batch, world, rank, accumulate, start, 5)) for rank in range(world)]
    size = batch * world * accumulate
    taken = [ranks[r][n][b] for n in range((5 - start) * accumulate) for r in range(world) for b in range(batch)]
    assert taken == [stream[position] for position in range(start * size, 5 * size)]


def test_evaluation_takes_every_film_once_in_order(films: PreparedDataset) -> None:
    dataset = FilmDataset(films, range(COUNT), evaluation_transform((40, 60)), 0)
    for workers in (0, 2):
        parts = list(evaluation_loader(dataset, batch_size=4, workers=workers))
        assert [len(part["index"]) for part in parts] == [4, 4, 3]
        assert joined(parts)["index"].tolist() == list(range(COUNT))
    first = parts[0]["image"][0, 0].numpy()
    np.testing.assert_array_equal(first, pattern(0).astype(np.float32) / np.float32(255))


def test_loading_leaves_the_global_generators_alone(dataset: FilmDataset) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    batches(dataset, workers=1)
    assert (torch.rand(1), np.random.random()) == expected


def test_seeds_are_fixed_and_unrelated() -> None:
    assert derive_seed(0, "augment", 1, 2) == 3809250628
    seeds = {derive_seed(seed, word, n) for seed in range(3) for word in ("a", "b") for n in range(200)}
    assert len(seeds) > 1198
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed(np.int64(5)) == derive_seed(5)
    assert derive_seed("5") != derive_seed(5)


def test_labels_and_films_must_be_as_many(films: PreparedDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 labels for 3 films"):
        FilmDataset(films, range(3), evaluation_transform((8, 8)), 0, [0, 1])
