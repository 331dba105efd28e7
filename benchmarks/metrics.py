"""Intervals and COCO's figures: ours against a loop over scikit-learn, and against faster-coco-eval as it is used.

    pip install pycocotools
    python benchmarks/metrics.py

AUROC with 1,000 resamples of 10,000 films: the loop draws rows with replacement and calls scikit-learn's roc_auc_score
for each resample (a part of them is timed, and scaled up). All resamples of ours are first held against scikit-learn on
the written-out films. COCO: the same boxes given as arrays to `coco_values`, as dictionaries to faster-coco-eval
(`loadRes`, `evaluate`, `accumulate`, `summarize`), and to pycocotools; building the dictionaries is not counted for the
peers. Values must agree to 1e-6 before anything is timed. Prints tables for docs/benchmarks.md.
"""

import argparse
import contextlib
import gc
import io
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import faster_coco_eval as faster
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import roc_auc_score

from mim.evaluation import Detections, Lesions
from mim.evaluation.bootstrap import auroc_statistic, patient_weights, resample_patients
from mim.evaluation.coco import coco_statistic, coco_values
from mim.evaluation.detections import Searched, join

FILMS = 10_000
RESAMPLES = 1_000
TIMED_OF_LOOP = 50


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call, so that other processes do not count; nor does the garbage of the call before."""
    gc.collect()
    began = time.process_time()
    work()
    return time.process_time() - began


def compare_bootstrap(repeats: int, decimals: int | None) -> tuple[str, ...]:
    """One row of the table: AUROC over resamples, ours and the loop."""
    draws = np.random.default_rng(0)
    labels = (draws.random(FILMS) < 0.3).astype(np.int64)
    scores = 1 / (1 + np.exp(-draws.normal(labels, 1.5)))
    scores = scores if decimals is None else np.round(scores, decimals)
    patients = [str(number) for number in range(FILMS)]
    weights = next(patient_weights(patients, 20, seed=0))
    for row, area in zip(weights, auroc_statistic(labels, scores)(weights), strict=True):
        films = np.repeat(np.arange(FILMS), row)
        assert abs(area - roc_auc_score(labels[films], scores[films])) < 1e-12

    def ours() -> None:
        statistic = {"auroc": auroc_statistic(labels, scores)}
        resample_patients(labels, patients, statistic, resamples=RESAMPLES, seed=0)

    def loop() -> None:
        for _ in range(TIMED_OF_LOOP):
            films = draws.integers(FILMS, size=FILMS)
            roc_auc_score(labels[films], scores[films])

    pairs = [(seconds(ours), seconds(loop) * RESAMPLES / TIMED_OF_LOOP) for _ in range(repeats)]
    ties = "no ties" if decimals is None else f"{decimals} decimals"
    return ties, *_row(pairs)


def draw_boxes(images: int, labels: int) -> Searched:
    """Boxes near and far from lesions, and images without lesions."""
    draws = np.random.default_rng(1)
    there: list[tuple[int, np.ndarray, int]] = []
    found: list[tuple[int, np.ndarray, int]] = []
    for image in range(images):
        for _ in range(draws.integers(0, 6)):
            corner = draws.uniform(0, 900, 2)
            box = np.r_[corner, corner + draws.uniform(10, 120, 2)]
            label = int(draws.integers(labels))
            there.append((image, box, label))
            found += [(image, box + np.r_[step, step], label) for step in draws.normal(0, 6, (2, 2))]
        for corner in draws.uniform(0, 900, (int(draws.integers(5, 20)), 2)):
            found.append((image, np.r_[corner, corner + draws.uniform(10, 120, 2)], int(draws.integers(labels))))
    names = [f"image{number:06d}" for number in range(images)]
    detections = Detections(
        names,
        names,
        ["test"] * images,
        np.array([row[0] for row in found]),
        np.stack([row[1] for row in found]),
        draws.random(len(found)),
        [f"label{row[2]:02d}" for row in found],
    )
    truth = Lesions(
        [names[row[0]] for row in there], np.stack([row[1] for row in there]), [f"label{row[2]:02d}" for row in there]
    )
    return join(detections, truth)


def as_dictionaries(searched: Searched) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Truth and results as COCO's files hold them."""
    found, lesions = searched.detections, searched.lesions
    numbers = {name: number for number, name in enumerate(sorted({*found.label, *lesions.label}), 1)}

    def entries(image: np.ndarray, boxes: np.ndarray, labels: tuple[str, ...]) -> list[dict[str, Any]]:
        sizes = boxes[:, 2:] - boxes[:, :2]
        rows = zip(
            image.tolist(), np.c_[boxes[:, :2], sizes].tolist(), sizes.prod(axis=1).tolist(), labels, strict=True
        )
        return [
            {"id": number, "image_id": own, "bbox": box, "area": area, "iscrowd": 0, "category_id": numbers[label]}
            for number, (own, box, area, label) in enumerate(rows, 1)
        ]

    truth = {
        "images": [{"id": place, "width": 1024, "height": 1024} for place in range(len(found))],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": entries(searched.lesion_image, lesions.boxes, tuple(lesions.label)),
    }
    results = entries(found.image, found.boxes, tuple(found.label))
    for own, score in zip(results, found.score.tolist(), strict=True):
        own["score"] = score
    return truth, results


def by_library(loader: type, evaluator: type, truth: Mapping[str, Any], results: list[dict[str, Any]]) -> np.ndarray:
    """COCO's twelve figures by pycocotools or faster-coco-eval, as their pages show it."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground = loader()
        ground.dataset = dict(truth)
        ground.createIndex()
        evaluation = evaluator(ground, ground.loadRes([dict(row) for row in results]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)


def compare_coco(repeats: int, images: int, labels: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Rows of both tables: one evaluation, and 1,000 resamples of it."""
    searched = draw_boxes(images, labels)
    truth, results = as_dictionaries(searched)
    places = [0, 1, 2, 8, 9, 10, 11]
    ours = list(coco_values(searched).values())
    resampled = coco_statistic(searched)
    for library in ((faster.COCO, faster.COCOeval_faster), (COCO, COCOeval)):
        expected = by_library(*library, truth, results)[places]
        assert np.abs(np.array(ours) - expected).max() < 1e-6
        assert np.abs(resampled(np.ones((1, images), dtype=np.int64))[0] - expected).max() < 1e-6
    triples = [
        (
            seconds(lambda: coco_values(searched)),
            seconds(lambda: by_library(faster.COCO, faster.COCOeval_faster, truth, results)),
            seconds(lambda: by_library(COCO, COCOeval, truth, results)),
        )
        for _ in range(repeats)
    ]
    name = f"{images} images, {len(results)} boxes, {labels} labels"
    ratios = [_ratio([(row[0], row[place]) for row in triples]) for place in (1, 2)]
    times = [f"{statistics.median(row[place] for row in triples):.3f}" for place in range(3)]
    statistic = {"figures": coco_statistic(searched)}
    took = seconds(
        lambda: resample_patients(None, searched.detections.patient_id, statistic, resamples=RESAMPLES, seed=0)
    )
    once = statistics.median(row[1] for row in triples)
    more = (name, f"{took:.2f}", f"{once * RESAMPLES:.0f}", f"{once * RESAMPLES / took:.0f}")
    return (name, *times, *ratios), more


def _row(pairs: list[tuple[float, float]]) -> tuple[str, ...]:
    times = (f"{statistics.median(pair[place] for pair in pairs):.3f}" for place in (0, 1))
    return *times, _ratio(pairs)


def _ratio(pairs: list[tuple[float, float]]) -> str:
    """Time of the peer over ours: median and lowest."""
    ratios = [peer / own for own, peer in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"


def _print(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    print(f"| {' | '.join(heading)} |\n|{'---|' * len(heading)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rows = [compare_bootstrap(arguments.repeats, decimals) for decimals in (None, 2)]
    _print(("scores", "mim, s", "loop over scikit-learn, s", "loop : mim"), rows)
    sizes = ((500, 1), (500, 10))
    once, often = zip(*(compare_coco(arguments.repeats, images, labels) for images, labels in sizes), strict=True)
    columns = ("boxes", "mim, s", "faster-coco-eval, s", "pycocotools, s", "faster : mim", "pycocotools : mim")
    _print(columns, list(once))
    _print(("boxes", "1,000 resamples, s", "1,000 times faster-coco-eval, s", "ratio"), list(often))


if __name__ == "__main__":
    main()
