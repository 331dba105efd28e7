import numpy as np

from mim.evaluation import Detections, Lesions, Predictions


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
