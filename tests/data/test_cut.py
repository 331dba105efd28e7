import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from mim.config import AugmentConfig
from mim.data.augment import train_transform
from mim.data.cut import Cut
from mim.data.decode import halve, quantise

SHARE = st.floats(0, 1, width=32)
EVERYWHERE = AugmentConfig(crop_scale=(0.3, 1.0), vertical_flip=0.5)
TURNED = EVERYWHERE.model_copy(update={"rotate": 20.0, "brightness": 0.2})


def smooth_film(height: int, width: int, detail: float = 1.5) -> np.ndarray:
    """(height, width) float32 in [0, 1], noise blurred by a Gaussian of so many pixels."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(height, width)), detail)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 70), st.integers(1, 70), SHARE, SHARE, SHARE, SHARE, st.booleans(), st.booleans())
def test_any_part_of_any_film_comes_out_in_the_asked_size(
    height: int, width: int, x1: float, x2: float, y1: float, y2: float, mirrored: bool, upside_down: bool
) -> None:
    film = (np.arange(height * width) % 251).astype(np.uint8).reshape(height, width)
    cut = Cut(min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2), mirrored, upside_down)
    half = quantise(halve(film.astype(np.float32) / 255), 8)
    image, taken = cut.image(film, half, (12, 9))
    assert image.shape == (12, 9)
    assert 0 <= taken.left < taken.right <= 1
    assert 0 <= taken.top < taken.bottom <= 1
    assert film.min() <= image.min()
    assert image.max() <= film.max()


@pytest.mark.parametrize(
    ("shape", "cut"),
    [
        ((200, 300), Cut(20 / 300, 40 / 200, 220 / 300, 190 / 200)),
        ((200, 300), Cut(0.0, 0.0, 1.0, 0.75, mirrored=True)),
        ((201, 301), Cut.whole()),
    ],
)
def test_what_is_taken_from_the_half_size_looks_as_if_taken_from_the_whole(shape: tuple[int, int], cut: Cut) -> None:
    floats = smooth_film(*shape)
    film, half = quantise(floats, 8), quantise(halve(floats), 8)
    (near, taken), (far, whole) = (cut.image(film, level, (60, 70)) for level in (half, None))
    assert taken == whole
    difference = np.abs(near.astype(float) - far) / 255
    assert 0 < difference.mean() < 0.015
    assert difference.max() < 0.1


def test_the_half_size_is_taken_only_where_it_has_pixels_enough() -> None:
    film, half = np.zeros((100, 100), np.uint8), np.full((50, 50), 200, np.uint8)
    cut = Cut(0.0, 0.0, 0.5, 0.5)
    assert cut.image(film, half, (25, 25))[0].min() == 200
    assert cut.image(film, half, (26, 25))[0].max() == 0


@pytest.mark.parametrize("size", [(64, 64), (40, 120), (48, 50), (100, 100)])
def test_shrinking_comes_close_to_averaging_over_areas(size: tuple[int, int]) -> None:
    floats = smooth_film(200, 300, detail=6)
    image, _ = Cut.whole().image(quantise(floats, 16), quantise(halve(floats), 16), size)
    areas = cv2.resize(floats, size[::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(image / 65535 - areas).mean() < 0.15 * areas.std()


def test_no_pixel_is_passed_over_when_a_film_shrinks() -> None:
    for height, width in ((64, 64), (100, 150), (127, 40), (128, 40), (129, 40), (300, 70), (700, 20)):
        for place in np.random.default_rng(height).integers(0, (height, width), (40, 2)):
            film = np.zeros((height, width), np.uint16)
            film[tuple(place)] = 65535
            image, _ = Cut.whole().image(film, None, (64, 64))
            assert image.max() > 0


def blobs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A black film with white rectangles that lie apart, and their boxes as shares."""
    corners = np.array([[20, 30, 60, 50], [100, 20, 130, 70], [30, 90, 50, 140], [150, 100, 190, 130]])
    film = np.zeros((height, width), np.uint8)
    for x1, y1, x2, y2 in corners:
        film[y1:y2, x1:x2] = 255
    return film, (corners / [width, height, width, height]).astype(np.float32)


@pytest.mark.parametrize("augment", [EVERYWHERE, TURNED.model_copy(update={"rotate": 0.0})])
def test_image_boxes_and_mask_go_together(augment: AugmentConfig) -> None:
    film, boxes = blobs(160, 200)
    numbers = label(film)[0].astype(np.uint8)
    order = [int(numbers[int((y1 + y2) * 80), int((x1 + x2) * 100)]) for x1, y1, x2, y2 in boxes]
    half = quantise(halve(film / np.float32(255)), 8)
    transform = train_transform(augment, (96, 120))
    seen = 0
    for seed in range(40):
        out = transform.together(film, seed, half, boxes, numbers)
        np.testing.assert_array_equal(out.image, transform(film, seed, half))
        assert out.mask is not None
        assert ((out.mask > 0) == (out.image > out.image.max() // 2)).mean() > 0.97
        for box, which in zip(out.boxes, out.kept, strict=True):
            rows, columns = np.nonzero(out.mask == order[which])
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box, found, atol=1.01)
            seen += 1
        assert {order[which] for which in out.kept} >= set(np.unique(out.mask)) - {0} - thin(out.mask)
    assert seen > 100


def thin(mask: np.ndarray) -> set[int]:
    """Numbers of which the border of the image leaves a line of one pixel."""
    found = {int(number): np.nonzero(mask == number) for number in np.unique(mask)}
    return {number for number, places in found.items() if min(np.ptp(place) for place in places) == 0}


def test_rotated_boxes_hold_what_they_held() -> None:
    film, boxes = blobs(160, 200)
    numbers = label(film)[0].astype(np.uint8)
    order = [int(numbers[int((y1 + y2) * 80), int((x1 + x2) * 100)]) for x1, y1, x2, y2 in boxes]
    transform = train_transform(TURNED, (96, 120))
    for seed in range(30):
        out = transform.together(film, seed, None, boxes, numbers)
        np.testing.assert_array_equal(out.image, transform(film, seed))
        assert out.mask is not None
        for (x1, y1, x2, y2), which in zip(out.boxes, out.kept, strict=True):
            rows, columns = np.nonzero(out.mask == order[which])
            if len(rows):
                assert x1 - 1.5 <= columns.min() <= columns.max() + 1 <= x2 + 1.5
                assert y1 - 1.5 <= rows.min() <= rows.max() + 1 <= y2 + 1.5


def test_a_film_of_16_bits_goes_the_same_way() -> None:
    deep = (smooth_film(160, 200) * 65535).round().astype(np.uint16)
    flat = np.rint(deep / 257).astype(np.uint8)
    for augment in (EVERYWHERE, TURNED):
        transform = train_transform(augment, (64, 80))
        for seed in range(10):
            one, other = transform(deep, seed), transform(flat, seed)
            assert one.dtype == np.uint16
            np.testing.assert_allclose(one / 257, other, atol=2.1)


def test_the_whole_film_is_resized_as_opencv_does_it() -> None:
    film = quantise(smooth_film(90, 70), 8)
    image, cut = Cut.whole().image(film, None, (64, 50))
    assert cut == Cut.whole()
    np.testing.assert_array_equal(image, cv2.resize(film, (50, 64), interpolation=cv2.INTER_LINEAR))
