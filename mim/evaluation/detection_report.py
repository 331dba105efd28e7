"""The report and `metrics.json` of a detector: figures of the block on detection, and its worst errors drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mim.evaluation.block_report import write_block_report
from mim.evaluation.box_pairs import pair_boxes
from mim.evaluation.detection import RULES, found_at
from mim.evaluation.detections import Searched
from mim.evaluation.embedding import embed
from mim.evaluation.froc import HitRule, find_hits
from mim.evaluation.header import Header
from mim.evaluation.metrics import Settings
from mim.evaluation.pictures import Cells, Pixels, film_picture
from mim.evaluation.section import Section
from mim.evaluation.viewer import CaseGroup, ShownCase, Viewer, frame, script, script_hash, show_mask

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DetectionErrors:
    """What went wrong on one image at a threshold.

    Attributes:
        image: Place of the image.
        missed: Places of the lesions that no mark hits.
        false: Places of the marks that hit nothing, highest score first.
        found: How many lesions were found.
        worst: Highest score of such a mark; 0 where there is none.
    """

    image: int
    missed: Places
    false: Places
    found: int
    worst: float


@dataclass(frozen=True, eq=False)
class FilmErrors:
    """A film of the test set to be shown, with boxes xyxy in pixels of `image`.

    Attributes:
        image_id: Its name in the table of detections.
        patient_id: Salted hash of its patient.
        image: (H, W) in [0, 1].
        missed: Lesions that were not found.
        false: Marks that hit nothing.
        said: What happened, in words.
        visible: (gh, gw), True = seen; None = everything was seen.
    """

    image_id: str
    patient_id: str
    image: Pixels
    missed: Sequence[Sequence[float]]
    false: Sequence[Sequence[float]]
    said: str
    visible: Cells | None = field(default=None)


def find_errors(searched: Searched, threshold: float, rule: HitRule = RULES["iou"]) -> list[DetectionErrors]:
    """Find what a detector missed and marked wrongly on each image.

    Args:
        searched: Images with marks and lesions.
        threshold: Score from which a mark counts.
        rule: When a mark hits a lesion of its label.

    Returns:
        One for each image, in their order.
    """
    marks = searched.detections
    pairs = pair_boxes(searched)
    found = found_at(find_hits(searched, pairs, rule), threshold)
    right = np.zeros(len(marks.score), dtype=bool)
    right[pairs.detection[pairs.inside if rule.iou is None else pairs.iou >= rule.iou]] = True
    false = np.flatnonzero(~right & (marks.score >= threshold))
    lesion_image = searched.lesion_image
    errors = []
    for image in range(len(marks)):
        own = false[marks.image[false] == image]
        own = own[np.argsort(-marks.score[own], kind="stable")]
        here = lesion_image == image
        worst = float(marks.score[own[0]]) if len(own) else 0.0
        errors.append(DetectionErrors(image, np.flatnonzero(here & ~found), own, int((here & found).sum()), worst))
    return errors


def write_detection_report(
    folder: Path,
    section: Section,
    settings: Settings,
    header: Header,
    missed: Sequence[FilmErrors],
    false: Sequence[FilmErrors],
    warnings: Sequence[str] = (),
    before: Sequence[Section] = (),
) -> Path:
    """Write `report.html` and `metrics.json` into a folder.

    Args:
        folder: Where; it is there.
        section: What `detection_section` gave.
        settings: How intervals were made.
        header: What the figures belong to.
        missed: Films with the most missed lesions, worst first.
        false: Films with the most confident wrong marks, worst first.
        warnings: Sentences to show at the top, beside those of the sections.
        before: Sections that come before that one.

    Returns:
        The report.

    Raises:
        MimError: A film that cannot be drawn.
    """
    viewer = Viewer(
        (
            _group("False negatives", "false negative", "with lesions that were missed", missed),
            _group("False positives", "false positive", "with marks that hit nothing", false),
        )
    )
    return write_block_report(
        folder,
        "detections.html.jinja",
        [*before, section],
        settings,
        header,
        warnings,
        headline=[section],
        viewer=viewer,
        script=script() if viewer.cases else "",
        script_source=f"'{script_hash(script())}'" if viewer.cases else "'none'",
    )


def _group(title: str, kind: str, what: str, films: Sequence[FilmErrors]) -> CaseGroup:
    count = len(films)
    text = f"The {count} worst {'film' if count == 1 else 'films'} {what}." if count else f"No films {what} are shown."
    return CaseGroup(title, text, tuple(_case(film, kind) for film in films))


def _case(film: FilmErrors, kind: str) -> ShownCase:
    grey = film_picture(film.image)
    text, layers = show_mask(film.visible, grey)
    shape = np.shape(film.image)
    return ShownCase(
        image_id=film.image_id,
        patient_id=film.patient_id,
        kind=kind,
        score=None,
        text=(film.said, *text),
        film=embed(grey, f"Film {film.image_id}, {kind}, as it is"),
        layers=tuple(layers),
        frames=(*frame("boxes", film.missed, shape, grey.shape), *frame("marks", film.false, shape, grey.shape)),
    )
