import json
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from film_factory import pattern, store_films, write_png

from mim.data import PreparedDataset, is_prepared
from mim.errors import MimError


@pytest.fixture
def dataset(tmp_path: Path) -> PreparedDataset:
    for number in range(3):
        write_png(tmp_path / "films" / f"{number}.png", pattern(number, 30 + number, 50 - number))
    return store_films(tmp_path / "films", tmp_path / "out")


def checksum(dataset: PreparedDataset) -> list[tuple[tuple[int, ...], int]]:
    return [(dataset.image(number).shape, int(dataset.image(number).sum())) for number in range(len(dataset))]


def test_films_are_views_of_one_read_only_memory_map(dataset: PreparedDataset) -> None:
    film = dataset.image(2)
    assert film.shape == (32, 48)
    np.testing.assert_array_equal(film, pattern(2, 32, 48))
    assert np.shares_memory(film, dataset.image(2))
    base = film
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        film[0, 0] = 1


@pytest.mark.parametrize("bits", [8, 16])
def test_films_are_stored_at_half_the_size_as_well(tmp_path: Path, bits: int) -> None:
    sizes = [(30, 50), (31, 49), (1, 7), (2, 2)]
    for number, size in enumerate(sizes):
        write_png(tmp_path / "films" / f"{number}.png", pattern(number, *size))
    dataset = store_films(tmp_path / "films", tmp_path / "out", bits=bits)
    for number, (height, width) in enumerate(sizes):
        levels = dataset.levels(number)
        np.testing.assert_array_equal(levels.full, dataset.image(number))
        assert levels.half.shape == ((height + 1) // 2, (width + 1) // 2)
        assert not levels.half.flags.writeable
        if height % 2 == width % 2 == 0:
            scale = 1 if bits == 8 else 257
            means = pattern(number, height, width).reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) * scale
            assert np.abs(levels.half - means).max() <= 0.51
    stored = (tmp_path / "out" / "pixels.bin").stat().st_size
    assert stored == sum(film.nbytes for number in range(4) for film in dataset.levels(number))


def test_a_dataset_is_sent_to_other_processes_without_its_pixels(dataset: PreparedDataset) -> None:
    assert len(pickle.dumps(dataset)) < 500
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(checksum, dataset).result() == checksum(dataset)


def damage_pixels(path: Path) -> None:
    (path / "pixels.bin").write_bytes((path / "pixels.bin").read_bytes()[:-1])


def damage_index(path: Path) -> None:
    np.save(path / "index.npy", np.load(path / "index.npy")[:-1])


def damage_offsets(path: Path) -> None:
    index = np.load(path / "index.npy")
    index[-1, 0] += 1
    np.save(path / "index.npy", index)


def pickle_index(path: Path) -> None:
    np.save(path / "index.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def remove_row(path: Path) -> None:
    lines = (path / "manifest.csv").read_text().splitlines(keepends=True)
    (path / "manifest.csv").write_text("".join(lines[:-1]))


def forget_row(path: Path) -> None:
    np.save(path / "rows.npy", np.load(path / "rows.npy")[1:])


def mix_row_starts(path: Path) -> None:
    np.save(path / "rows.npy", np.load(path / "rows.npy")[[0, 2, 1, 3]])


def change_version(path: Path) -> None:
    report = json.loads((path / "report.json").read_text())
    (path / "report.json").write_text(json.dumps({**report, "format": 99}))


def empty_report(path: Path) -> None:
    (path / "report.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_pixels, r"pixels\.bin holds \d+ bytes instead of"),
        (damage_index, "does not hold together"),
        (damage_offsets, r"pixels\.bin"),
        (pickle_index, r"index\.npy"),
        (remove_row, "does not hold together"),
        (forget_row, "does not hold together"),
        (mix_row_starts, r"rows\.npy does not say"),
        (lambda path: (path / "rows.npy").unlink(), r"rows\.npy cannot be read"),
        (change_version, "has format 99"),
        (empty_report, "is not the report"),
        (lambda path: (path / "manifest.csv").unlink(), "manifest"),
        (lambda path: (path / "pixels.bin").unlink(), "holds 0 bytes"),
    ],
)
def test_a_damaged_dataset_is_not_opened(damage, said: str, dataset: PreparedDataset) -> None:
    damage(dataset.path)
    with pytest.raises(MimError, match=said) as caught:
        PreparedDataset.open(dataset.path)
    assert str(dataset.path) in str(caught.value)


def test_a_folder_of_films_is_not_a_prepared_dataset(tmp_path: Path, dataset: PreparedDataset) -> None:
    assert is_prepared(dataset.path)
    assert not is_prepared(tmp_path / "films")
    with pytest.raises(MimError, match="is not a prepared dataset"):
        PreparedDataset.open(tmp_path / "films")
