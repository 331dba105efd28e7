import contextlib
import io
from collections.abc import Callable

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mim.evaluation import Detections, Lesions, Searched
from mim.evaluation.coco import coco_names, coco_statistic, coco_values
from mim.evaluation.detections import join

Drawn = Callable[..., tuple[Detections, Lesions]]
PLACES = {"ap": 0, "ap50": 1, "ap75": 2, "ar": 8, "ar_small": 9, "ar_medium": 10, "ar_large": 11}


def by_pycocotools(searched: Searched) -> dict[str, float]:
    found, lesions = searched.detections, searched.lesions
    labels = {name: number for number, name in enumerate(sorted({*found.label, *lesions.label}), 1)}

    def entries(image: np.ndarray, boxes: np.ndarray, names: tuple[str, ...]) -> list[dict[str, object]]:
        sizes = boxes[:, 2:] - boxes[:, :2]
        return [
            {
                "id": number,
                "image_id": int(image[number - 1]),
                "bbox": [*boxes[number - 1, :2].tolist(), *sizes[number - 1].tolist()],
                "area": float(sizes[number - 1].prod()),
                "iscrowd": 0,
                "category_id": labels[name],
            }
            for number, name in enumerate(names, 1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": place} for place in range(len(found))],
            "categories": [{"id": number} for number in labels.values()],
            "annotations": entries(searched.lesion_image, lesions.boxes, tuple(lesions.label)),
        }
        truth.createIndex()
        results = entries(found.image, found.boxes, tuple(found.label))
        for own, score in zip(results, found.score.tolist(), strict=True):
            own["score"] = score
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = {name: float(evaluation.stats[place]) for name, place in PLACES.items()}
    return {name: np.nan if value == -1 else value for name, value in values.items()}  # -1: no lesion counts


@pytest.mark.parametrize("seed", range(6))
def test_values_and_weighted_figures_are_those_of_pycocotools(draw: Drawn, seed: int) -> None:
    searched = join(*draw(seed, whole=seed % 2 == 0))
    expected = by_pycocotools(searched)
    assert coco_values(searched) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    once = coco_statistic(searched)(np.ones((1, 40), dtype=np.int64))[0]
    assert dict(zip(coco_names(), once, strict=True)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_more_than_a_hundred_boxes_and_labels_that_are_never_there_count_as_in_pycocotools(draw: Drawn) -> None:
    found, lesions = draw(4, images=6)
    crowd = np.random.default_rng(0).uniform(0, 200, (150, 2))
    extra = np.concatenate([crowd, crowd + 30], axis=1)
    many = Detections(
        found.image_id,
        found.patient_id,
        found.split,
        np.r_[found.image, np.full(150, 1)],
        np.concatenate([found.boxes, extra]),
        np.r_[found.score, np.linspace(0.3, 0.9, 150)],
        [*found.label, *["caries"] * 140, *["bridge"] * 10],
    )
    searched = join(many, lesions)
    expected = by_pycocotools(searched)
    once = coco_statistic(searched)(np.ones((1, 6), dtype=np.int64))[0]
    assert coco_values(searched) == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert dict(zip(coco_names(), once, strict=True)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_a_weighted_resample_is_the_written_out_one(
    draw: Drawn, written_out: Callable[[Searched, np.ndarray], Searched]
) -> None:
    found, lesions = draw(3)
    found.score[:] += 1e-6 * np.arange(len(found.score))  # pycocotools orders ties by where the copies stand
    searched = join(found, lesions)
    weights = np.random.default_rng(1).integers(0, 4, (4, 40))
    for row, values in zip(weights, coco_statistic(searched)(weights), strict=True):
        expected = by_pycocotools(written_out(searched, row))
        assert dict(zip(coco_names(), values, strict=True)) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_sizes_are_settable(draw: Drawn) -> None:
    searched = join(*draw(5))
    sizes = {"tiny": (0.0, 20.0**2), "rest": (20.0**2, 1e10)}
    values = coco_values(searched, sizes)
    once = coco_statistic(searched, sizes)(np.ones((1, 40), dtype=np.int64))[0]
    assert list(values) == ["ap", "ap50", "ap75", "ar", "ar_tiny", "ar_rest"]
    assert dict(zip(coco_names(sizes), once, strict=True)) == pytest.approx(values, abs=1e-9, nan_ok=True)


def test_resamples_without_lesions_have_no_value(draw: Drawn) -> None:
    searched = join(*draw(5))
    weights = np.zeros((1, 40), dtype=np.int64)
    weights[0, 0] = 3  # every fourth image has no lesion
    assert np.isnan(coco_statistic(searched)(weights)).all()
