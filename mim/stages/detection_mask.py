"""What the masks in front of a detector hide of the lesions."""

import torch

from mim.config import EvaluateConfig, FinetuneConfig
from mim.evaluation import Section
from mim.stages.detection import AnnotatedFilms, Found
from mim.stages.mask_safety import mask_safety


def detector_mask(
    config: EvaluateConfig,
    finetuned: FinetuneConfig,
    known: AnnotatedFilms,
    found: Found,
    image_size: tuple[int, int],
) -> Section | None:
    """Gives `mask_safety` of the test films of a detector.

    Args:
        config: of the evaluation.
        finetuned: of the run.
        known: films and boxes.
        found: on the validation films, then the test films.
        image_size: of the network, in pixels.
    """
    test = known.splits.test
    if not test:
        return None
    visible = torch.stack(found.visible[len(known.splits.val) :]).numpy()
    films, patients = [film.index for film in test], [film.patient_id for film in test]
    return mask_safety(config, finetuned, visible, films, patients, known.annotations, image_size)
