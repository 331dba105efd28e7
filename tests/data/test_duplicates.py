import io
import json
import logging
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_dicom, write_png
from PIL import Image

from mim.data import attach_labels, excluded_from_pretraining, split_films
from mim.data.decode import thumbnail
from mim.data.duplicates import NEAR, copies_between, find_pairs, perceptual_hash
from mim.data.phantom import PhantomSettings, draw_film
from mim.data.prepare import prepare


def hash_of(pixels: np.ndarray) -> str:
    return perceptual_hash(thumbnail(np.ascontiguousarray(pixels, dtype=np.float32)))


def apart(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def copies_of(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """What becomes of a film on its way through another export."""
    height, width = pixels.shape
    file = io.BytesIO()
    Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(file, "JPEG", quality=30)
    return {
        "JPEG at quality 30": np.asarray(Image.open(file), dtype=np.float32) / 255,
        "half the size": cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA),
        "0.77 of the size": cv2.resize(pixels, (int(width * 0.77), int(height * 0.77))),
        "brighter": np.clip(pixels + 0.1, 0, 1),
        "more contrast": np.clip((pixels - 0.5) * 1.2 + 0.5, 0, 1),
        "16 bits": np.rint(pixels * 65535) / 65535,
    }


@pytest.fixture(scope="module")
def mouths() -> list[np.ndarray]:
    """Two films of each of four mouths."""
    drawn = [draw_film(PhantomSettings(), 5, patient, film).pixels for patient in range(4) for film in range(2)]
    return [film.astype(np.float32) / 4095 for film in drawn]


def test_copies_are_near_and_two_films_of_a_mouth_are_not(mouths) -> None:
    hashes = [hash_of(film) for film in mouths]
    assert all(len(value) == 64 for value in hashes)
    for film, own in zip(mouths, hashes, strict=True):
        for name, copy in copies_of(film).items():
            assert apart(hash_of(copy), own) <= NEAR, name
        assert apart(hash_of(film[:, ::-1]), own) > NEAR
    assert min(apart(first, second) for first, second in combinations(hashes, 2)) > NEAR


@pytest.mark.parametrize(("folder", "every"), [("panoramic", 1), ("chest", 3)])
def test_different_real_films_are_told_apart_and_their_copies_found(folder: str, every: int, shared_data: Path) -> None:
    paths = sorted((shared_data / folder / "images").rglob("*.jp*g"))[::every]
    films = [np.asarray(Image.open(path).convert("L"), dtype=np.float32) / 255 for path in paths]
    hashes = [hash_of(film) for film in films]
    assert len(find_pairs(hashes)) == 0
    copies = [hash_of(copy) for film in films[::40] for copy in copies_of(film).values()]
    assert copies_between(dict(enumerate(copies)), dict(enumerate(hashes))) == set(range(len(copies)))
    assert copies_between(dict(enumerate(hashes)), dict(enumerate(copies))) == set(range(0, len(films), 40))


def test_pairs_are_those_of_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (600, 256), dtype=np.uint8)
    for place in range(300, 600):  # copies at every distance from 0 to twice the limit
        bits[place] = bits[place - 300]
        bits[place, rng.choice(256, place % (2 * NEAR), replace=False)] ^= 1
    hashes = [row.tobytes().hex() for row in np.packbits(bits, axis=1)]
    hashes += [hashes[0], hashes[0], hashes[7]]
    found = {tuple(pair) for pair in find_pairs(hashes).tolist()}
    unique = [value for place, value in enumerate(hashes) if value not in hashes[:place]]
    expected = {
        tuple(sorted((hashes.index(first), hashes.index(second))))
        for first, second in combinations(unique, 2)
        if apart(first, second) <= NEAR
    }
    equal = {(hashes.index(value), place) for place, value in enumerate(hashes) if hashes.index(value) != place}
    assert equal <= found
    assert found - equal <= expected
    assert len(expected - found) <= 1  # by chance, once in thousands
    assert find_pairs(hashes[:1]).shape == find_pairs([]).shape == (0, 2)


def test_one_film_a_million_times_is_no_trouble() -> None:
    film = hash_of(np.random.default_rng(0).random((10, 10)))
    assert len(find_pairs([film] * 100_000)) == 99_999


def test_copies_between_two_sets() -> None:
    first = {10: hash_of(pattern(1) / 255), 11: hash_of(pattern(2) / 255), 12: ""}
    second = {20: hash_of(pattern(1) / 300), 21: hash_of(pattern(3) / 255), 22: ""}
    assert copies_between(first, second) == {10}
    assert copies_between(second, first) == {20}
    assert copies_between(first, {}) == copies_between({}, second) == set()


@pytest.fixture
def copied(tmp_path: Path):
    """Films of patients A and B, an exact copy of A's as a file of patient C, and a reduced one of B's as a PNG."""
    films = {
        name: cv2.GaussianBlur(pattern(number, 300, 400), None, 9).astype(int) for number, name in enumerate("ABD")
    }
    for name, film in films.items():
        write_dicom(tmp_path / "films" / f"{name}.dcm", film * 16, patient=name)
    write_dicom(tmp_path / "films" / "C.dcm", films["A"] * 16, patient="C")
    still = np.stack([pattern(7, 90, 90).astype(int) * 16] * 3)
    write_dicom(tmp_path / "films" / "frames.dcm", still, patient="F")  # no copies of each other: they are one file
    write_png(tmp_path / "films" / "b.png", cv2.resize(films["B"].astype(np.uint8), (200, 150)))
    return tmp_path / "films"


@pytest.mark.parametrize("options", [{}, {"tile": 64}])
def test_copies_are_counted_and_listed(options: dict, copied: Path, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    films = prepare(copied, tmp_path / "out", long_side=256, bits=8, salt=SALT, workers=1, **options)
    ids = {row.image: row.image_id for row in films.rows if not row.tile}
    report = json.loads((films.path / "report.json").read_text())["duplicates"]
    assert (report["distance"], report["exact"], report["near"], report["across_patients"]) == (NEAR, 1, 1, 2)
    groups = [(set(group["films"]), group["exact"], group["across_patients"]) for group in report["groups"]]
    assert groups == [({ids["A.dcm"], ids["C.dcm"]}, True, True), ({ids["B.dcm"], ids["b.png"]}, False, True)]
    assert "1 exact and 1 near copies of other films, 2 of them across patients" in caplog.text


def test_copies_across_splits_are_said_and_kept_out_of_pretraining(copied: Path, tmp_path: Path, caplog) -> None:
    films = store_films(copied, tmp_path / "out")
    split = [("A.dcm", 0, "train"), ("D.dcm", 1, "train"), ("C.dcm", 1, "val"), ("B.dcm", 0, "train")]
    write_csv(copied / "labels.csv", ("image", "caries", "split"), *split, ("b.png", 1, "test"))
    labelled = attach_labels(films, copied, "labels.csv", "caries", SALT)
    split_films(labelled, val_fraction=0.2, test_fraction=0.2, seed=0, copies="report")
    assert "1 validation or test films have the same pixels as a training film of another patient" in caplog.text
    assert "1 validation or test films look like copies of training films" in caplog.text
    excluded = excluded_from_pretraining(films, copied, "auto", SALT)
    assert {films.rows[number].image for number in excluded} == {"b.png", "B.dcm"}
