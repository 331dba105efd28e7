from collections.abc import Callable

import numpy as np
import pytest

from mim.evaluation import Detections, Header, Lesions, Predictions, Searched
from mim.evaluation.detections import join


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


def draw_detections(
    seed: int = 0, *, images: int = 40, labels: tuple[str, ...] = ("caries", "filling"), whole: bool = False
) -> tuple[Detections, Lesions]:
    """Boxes near and far from lesions; a quarter of the images have no lesion; scores tie; two images a patient."""
    draws = np.random.default_rng(seed)
    there, found = [], []
    for image in range(images):
        for _ in range(draws.integers(0, 4) if image % 4 else 0):
            corner = draws.uniform(0, 300, 2)
            box = np.r_[corner, corner + draws.uniform(10, 150, 2)]
            label = labels[draws.integers(len(labels))]
            there.append((image, np.round(box) if whole else box, label))
            for _ in range(draws.integers(0, 3)):
                near = box + (draws.integers(-3, 4, 4) if whole else draws.normal(0, 5, 4))
                if (near[2:] > near[:2]).all():
                    found.append((image, np.round(near) if whole else near, label, np.round(draws.random(), 2)))
        for _ in range(draws.integers(0, 5)):
            corner = draws.uniform(0, 300, 2)
            box = np.r_[corner, corner + draws.uniform(8, 120, 2)]
            found.append((image, box, labels[draws.integers(len(labels))], np.round(0.8 * draws.random(), 2)))
    detections = Detections(
        [f"image{number:03d}" for number in range(images)],
        [f"{number // 2:08x}" for number in range(images)],
        ["val" if (number // 2) % 3 == 0 else "test" for number in range(images)],
        np.array([row[0] for row in found], dtype=np.int64),
        np.array([row[1] for row in found]).reshape(-1, 4),
        np.array([row[3] for row in found]),
        [row[2] for row in found],
    )
    grades = {"grade": [f"D{1 + number % 3}" for number in range(len(there))]}
    names = [f"image{row[0]:03d}" for row in there]
    return detections, Lesions(names, np.array([row[1] for row in there]).reshape(-1, 4), [r[2] for r in there], grades)


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
