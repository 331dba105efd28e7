from pathlib import Path

import cv2
import numpy as np
import pytest

from mim.data import read_radiograph
from mim.data.crop import find_crop
from mim.data.phantom import PhantomSettings, draw_film
from mim.data.regions import Rectangle


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Drawn bitewings, enlarged to the size of real ones, without the unexposed strips that some have at an edge."""
    drawn = [draw_film(PhantomSettings(), 3, patient, 0).pixels for patient in range(3)]
    large = [cv2.resize(film.astype(np.float32) / 4095, None, fx=4, fy=4) for film in drawn]
    return [np.ascontiguousarray(film[64:-64, 64:-64]) for film in large]


def compressed(pixels: np.ndarray, quality: int = 75) -> np.ndarray:
    coded = cv2.imencode(".jpg", np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8), [1, quality])[1]
    return cv2.imdecode(coded, 0).astype(np.float32) / 255


def shuttered(film: np.ndarray, level: float, angle: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Cover all but a turned rectangle with a nearly constant margin; also return where the field is."""
    height, width = film.shape
    corners = cv2.boxPoints(((width / 2, height / 2), (width * 0.72, height * 0.7), angle))
    field = cv2.fillConvexPoly(np.zeros(film.shape, np.uint8), np.rint(corners).astype(np.int32), 1).astype(bool)
    scatter = np.add.outer(np.linspace(0, 4, height), np.linspace(0, 3, width)) / 255
    noise = np.random.default_rng(seed).normal(0, 3 / 255, film.shape)
    margin = level + (scatter if level < 0.5 else -scatter) + noise
    return np.clip(np.where(field, film, margin), 0, 1).astype(np.float32), field


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("frame", [(0, 0, 0, 9), (40, 7, 0, 0), (100, 60, 33, 81)])
def test_a_uniform_frame_is_taken_off_to_the_pixel(level: float, frame: tuple[int, ...], films) -> None:
    top, bottom, left, right = frame
    for film in films:
        framed = cv2.copyMakeBorder(film, top, bottom, left, right, cv2.BORDER_CONSTANT, value=level)
        expected = Rectangle(left, top, left + film.shape[1], top + film.shape[0])
        assert find_crop(framed, "border") == expected
        assert find_crop(framed, "none") == Rectangle(0, 0, framed.shape[1], framed.shape[0])


def test_a_compressed_frame_is_taken_off_and_the_film_kept(films) -> None:
    for film in films:
        found = find_crop(
            compressed(cv2.copyMakeBorder(film, 50, 50, 50, 50, cv2.BORDER_CONSTANT, value=0.0)), "border"
        )
        assert all(50 - 16 <= side <= 50 for side in (found.left, found.top))
        assert 0 <= found.right - 50 - film.shape[1] <= 16
        assert 0 <= found.bottom - 50 - film.shape[0] <= 16


@pytest.mark.parametrize("level", [0.02, 0.97])
@pytest.mark.parametrize("angle", [0.0, 2.0, -4.0])
def test_shutters_are_found_and_the_field_is_never_cut(level: float, angle: float, films) -> None:
    found = 0
    for seed, film in enumerate(films):
        brightness = 0.25 + 0.5 * film  # tissue everywhere: neither as dark nor as bright as the margins
        covered, field = shuttered(brightness, level, angle, seed)
        part = find_crop(covered, "collimation")
        outside = np.ones(field.shape, dtype=bool)
        outside[part.slices] = False
        assert not (field & outside).any()
        found += np.mean(field[part.slices]) > 0.85 * np.mean(field[field.any(axis=1)][:, field.any(axis=0)])
    assert found == len(films)


def test_films_without_shutters_stay_whole(films) -> None:
    for film in films:
        for pixels in (film, 1 - film, compressed(film), film[:, ::-1], film.T):
            assert find_crop(np.ascontiguousarray(pixels), "collimation") == Rectangle(0, 0, *pixels.shape[::-1])


def test_a_curved_outline_is_no_shutter() -> None:
    height, width = 900, 700
    down, across = np.mgrid[:height, :width]
    inside = ((down - 450) / 380) ** 2 + (across / 500) ** 2 < 1  # a breast on a dark ground
    rng = np.random.default_rng(0)
    film = np.where(inside, 0.5, 0.02) + rng.normal(0, 0.02, inside.shape)
    part = find_crop(np.clip(film, 0, 1).astype(np.float32), "collimation")
    assert part == Rectangle(0, 0, width, height)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_blank_films_and_nearly_blank_ones_stay_whole(value: float) -> None:
    film = np.full((200, 300), value, dtype=np.float32)
    assert find_crop(film, "collimation") == Rectangle(0, 0, 300, 200)
    film[90:100, 140:160] = 0.7
    assert find_crop(film, "collimation") == Rectangle(0, 0, 300, 200)
    assert find_crop(film[:1, :1], "collimation") == Rectangle(0, 0, 1, 1)


def test_next_to_nothing_is_cut_off_real_films(shared_data: Path) -> None:
    """Of these only one has a frame of any size (8 %); chests have dark margins of up to a fifth."""
    for folder, allowed, every in (("panoramic", 1, 6), ("chest", 12, 40)):
        paths = sorted((shared_data / folder / "images").rglob("*.jp*g"))[::every]
        kept = []
        for path in paths:
            pixels = read_radiograph(path).pixels
            part = find_crop(pixels, "collimation")
            outside = np.ones(pixels.shape, dtype=bool)
            outside[part.slices] = False
            assert not outside.any() or pixels[outside].std() < 0.06
            kept.append(part.width * part.height / pixels.size)
        assert len(paths) > 60
        assert min(kept) > 0.75
        assert sum(share < 0.95 for share in kept) <= allowed


def test_the_frame_of_a_real_panoramic_in_dicom_is_taken_off(shared_data: Path) -> None:
    pixels = read_radiograph(shared_data / "dicom" / "fo_CR-ModalitySequenceLUT.dcm").pixels
    part = find_crop(pixels, "border")
    assert 0.4 < part.width * part.height / pixels.size < 0.6
    outside = np.ones(pixels.shape, dtype=bool)
    outside[part.slices] = False
    assert pixels[outside].max() < 0.06 or np.mean(pixels[outside] > 0.06) < 0.01
