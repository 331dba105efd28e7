from collections.abc import Callable

import numpy as np
import pytest
from drawn_tables import draw_detections, make_predictions

from mim.evaluation import Detections, Header, Lesions, Predictions, Searched
from mim.evaluation.detections import join


@pytest.fixture
def predictions() -> Predictions:
    return make_predictions()


@pytest.fixture(scope="session")
def make() -> Callable[..., Predictions]:
    return make_predictions


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[Detections, Lesions]]:
    return draw_detections


def write_out(searched: Searched, weights: np.ndarray) -> Searched:
    """A resample with every image copied as often as it was drawn, for comparison with weights."""
    found, lesions, place = searched.detections, searched.lesions, searched.lesion_image
    drawn = np.repeat(np.arange(len(found)), weights)
    boxes = [(copy, row) for copy, image in enumerate(drawn) for row in np.flatnonzero(found.image == image)]
    there = [(copy, row) for copy, image in enumerate(drawn) for row in np.flatnonzero(place == image)]
    names = [f"copy{number:04d}" for number in range(len(drawn))]
    rows = [row for _, row in boxes]
    detections = Detections(
        names,
        names,
        ["test"] * len(names),
        np.array([copy for copy, _ in boxes], dtype=np.int64),
        found.boxes[rows],
        found.score[rows],
        [found.label[row] for row in rows],
    )
    kept = [row for _, row in there]
    truth = Lesions([names[copy] for copy, _ in there], lesions.boxes[kept], [lesions.label[row] for row in kept])
    return join(detections, truth)


@pytest.fixture(scope="session")
def written_out() -> Callable[[Searched, np.ndarray], Searched]:
    return write_out
