from collections.abc import Callable

import numpy as np
import pytest

from mim.evaluation import Header, Predictions


def make_predictions(
    films: int = 300, *, seed: int = 0, decimals: int = 2, films_a_patient: int = 2, prevalence: float = 0.4
) -> Predictions:
    draws = np.random.default_rng(seed)
    patients = np.arange(films) // films_a_patient
    labels = (draws.random(films) < prevalence).astype(int)
    scores = np.round(1 / (1 + np.exp(-draws.normal(1.8 * (labels - 0.5), 1.0))), decimals)
    return Predictions(
        [f"film{number:04d}" for number in range(films)],
        [f"{patient:08x}" for patient in patients],
        np.where(patients % 3 == 0, "val", "test").tolist(),
        labels,
        scores,
        np.round(draws.uniform(0.4, 0.6, films), 3),
    )


@pytest.fixture
def predictions() -> Predictions:
    return make_predictions()


@pytest.fixture
def make() -> Callable[..., Predictions]:
    return make_predictions


@pytest.fixture
def header() -> Header:
    return Header(
        target="caries",
        data="d" * 64,
        split="e" * 64,
        checkpoint="f" * 64,
        version="0.1.0",
        seed=7,
        image_size=(224, 448),
        more={"Backbone": "vit_tiny_patch16_224"},
    )
