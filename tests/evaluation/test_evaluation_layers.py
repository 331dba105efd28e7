import numpy as np
import pytest

from mim.evaluation.layers import explanation_layer, mask_layer
from mim.evaluation.pictures import explanation_picture, film_picture, mask_picture


def lay_over(film: np.ndarray, *layers: np.ndarray) -> np.ndarray:
    """As a browser does: Porter and Duff, over."""
    picture = np.repeat(film[:, :, None], 3, axis=2).astype(np.float64)
    for layer in layers:
        alpha = layer[:, :, 3:].astype(np.float64) / 255
        picture = alpha * layer[:, :, :3] + (1 - alpha) * picture
    return picture


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((60, 100)).astype(np.float32)


@pytest.fixture
def visible() -> np.ndarray:
    return np.random.default_rng(1).random((6, 10)) < 0.6


def test_the_mask_over_the_film_is_the_picture_of_both(image: np.ndarray, visible: np.ndarray) -> None:
    film = film_picture(image, side=200)
    drawn = mask_picture(image, visible, side=200).astype(np.float64)
    assert np.abs(lay_over(film, mask_layer(visible, film.shape)) - drawn).max() <= 1.5
    assert not mask_layer(np.ones_like(visible), film.shape).any()


def test_the_explanation_over_both_is_the_picture_of_all(image: np.ndarray, visible: np.ndarray) -> None:
    scores = np.where(visible, np.random.default_rng(2).normal(size=visible.shape), np.nan)
    film = film_picture(image, side=200)
    layers = (mask_layer(visible, film.shape), explanation_layer(scores, film.shape))
    drawn = explanation_picture(image, scores, side=200).astype(np.float64)
    assert np.abs(lay_over(film, *layers) - drawn).max() <= 2.5


def test_nothing_to_explain_tints_nothing() -> None:
    assert not explanation_layer(np.zeros((2, 3)), (20, 30))[:, :, 3].any()
    assert not explanation_layer(np.full((2, 3), np.nan), (20, 30))[:, :, 3].any()
