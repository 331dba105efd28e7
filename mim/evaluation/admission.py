"""Which rows of a table may be measured; what is left out is said in one line each."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mim.evaluation.predictions import SPLITS, Predictions

Rows = npt.NDArray[np.bool_]
SPLIT_TITLES = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Admitted:
    """What can be measured, and a sentence for each thing that was left out."""

    predictions: Predictions
    warnings: tuple[str, ...]


def admit(predictions: Predictions, trained_on: Collection[str] = ()) -> Admitted:
    """Leave out the films that have no score and the films of patients who were trained on.

    Args:
        predictions: Validation and test films.
        trained_on: Patients whose films the model was trained on, by the same hashes.
    """
    met = set(trained_on)
    known = np.array([patient in met for patient in predictions.patient_id], dtype=bool)
    unscored = np.isnan(predictions.score)
    if not (known.any() or unscored.any()):
        return Admitted(predictions, ())
    warnings = tuple(line for split in SPLITS for line in _left_out(predictions, split, known, unscored & ~known))
    return Admitted(predictions.rows(~known & ~unscored), warnings)


def _left_out(predictions: Predictions, split: str, known: Rows, unscored: Rows) -> Iterator[str]:
    own = np.array([name == split for name in predictions.split], dtype=bool)
    title = SPLIT_TITLES[split]
    if films := int((own & known).sum()):
        patients = len({predictions.patient_id[row] for row in np.flatnonzero(own & known).tolist()})
        people = "1 patient" if patients == 1 else f"{patients} patients"
        yield (
            f"{people} of the {title} set were trained on: {films} of {own.sum()} {title} films are left out of the "
            "figures."
        )
    if films := int((own & unscored).sum()):
        first = predictions.image_id[int(np.flatnonzero(own & unscored)[0])]
        yield (
            f"{films} of {own.sum()} {title} films have no score (the first is {first}) and are left out of the "
            "figures; look for a diverged training."
        )
