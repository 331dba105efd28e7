"""What the masks in front of the films of studies hide of the lesions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data.studies import ABSENT
from mim.evaluation import Section
from mim.stages.mask_safety import mask_safety
from mim.stages.tested_films import TestedFilms


def studies_mask(
    config: EvaluateConfig,
    finetuned: FinetuneConfig,
    found: TestedFilms,
    visible: Sequence[NDArray[np.bool_]] | None,
    image_size: tuple[int, int],
) -> Section | None:
    """Gives `mask_safety` of the films of the test studies.

    Args:
        config: of the evaluation.
        finetuned: of the run.
        found: films and studies.
        visible: for the validation studies, then the test studies, (F, gh, gw), what was visible of the films that are
            there; None where nothing hides cells.
        image_size: of the network, in pixels.
    """
    assert found.studies is not None
    test = found.studies.test
    if visible is None or not test:
        return None
    films = [(film, study.patient_id) for study in test for film in study.films if film != ABSENT]
    together = np.concatenate(visible[len(found.studies.val) :])
    numbers, patients = [film for film, _ in films], [patient for _, patient in films]
    return mask_safety(config, finetuned, together, numbers, patients, found.annotations, image_size)
