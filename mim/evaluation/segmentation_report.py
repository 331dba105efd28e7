"""The report and `metrics.json` of a segmenter: figures of the block on segmentation, and its worst errors drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mim.evaluation.block_report import write_block_report
from mim.evaluation.embedding import embed
from mim.evaluation.header import Header
from mim.evaluation.metrics import Settings
from mim.evaluation.outlines import outline_masks
from mim.evaluation.pictures import Cells, Pixels, film_picture
from mim.evaluation.section import Section
from mim.evaluation.segmentation import FOUND, RULES, EmptyTruth, Overlap
from mim.evaluation.viewer import CaseGroup, ShownCase, Viewer, script, script_hash, show_mask


@dataclass(frozen=True, eq=False)
class FilmMasks:
    """A film of the test set to be shown.

    Attributes:
        image_id: Its name in the table.
        patient_id: Salted hash of its patient.
        image: (H, W) in [0, 1].
        truth: (K, any h, any w) over the whole of it, a class each, True = lesion.
        drawn: (K, any h, any w), True = called lesion.
        said: What happened, in sentences.
        visible: (gh, gw), True = seen; None = everything was seen.
        classes: Names of the K classes, which are numbered in the picture where there are several.
    """

    image_id: str
    patient_id: str
    image: Pixels
    truth: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.bool_]
    said: Sequence[str]
    visible: Cells | None = None
    classes: Sequence[str] = ("lesion",)

    def __post_init__(self) -> None:
        for masks in (self.truth, self.drawn):
            if masks.ndim != 3 or len(masks) != len(self.classes):
                raise ValueError(f"masks must be ({len(self.classes)}, h, w), a class each, not {masks.shape}")


def choose_worst_masks(overlaps: Sequence[Sequence[Overlap]], count: int) -> tuple[list[int], list[int]]:
    """Find the images with the worst errors, all classes together.

    Args:
        overlaps: One an image and class.
        count: How many of each kind at most.

    Returns:
        Places of the images with the most lesions that were not found, of as many first those with the most pixels
        missed; and of those with most pixels drawn in parts that touch no lesion.
    """
    missed = [sum(lesion.covered < FOUND for own in image for lesion in own.lesions) for image in overlaps]
    pixels = [sum(own.both - own.area for own in image) for image in overlaps]
    false = [sum(own.false_area for own in image) for image in overlaps]
    by_missed = sorted(range(len(overlaps)), key=lambda place: (-missed[place], pixels[place]))
    by_false = sorted(range(len(overlaps)), key=lambda place: -false[place])
    by_missed, by_false = [place for place in by_missed if missed[place]], [place for place in by_false if false[place]]
    return by_missed[:count], by_false[:count]


def write_segmentation_report(
    folder: Path,
    section: Section,
    settings: Settings,
    header: Header,
    missed: Sequence[FilmMasks],
    false: Sequence[FilmMasks],
    warnings: Sequence[str] = (),
    before: Sequence[Section] = (),
    *,
    empty_truth: EmptyTruth = "skip",
) -> Path:
    """Write `report.html` and `metrics.json` into a folder.

    Args:
        folder: Where; it is there.
        section: What `segmentation_section` or `segmentation_classes_section` gave.
        settings: How intervals were made.
        header: What the figures belong to.
        missed: Films with the most missed lesions, worst first.
        false: Films with the most drawn where there is no lesion, worst first.
        warnings: Sentences to show at the top, beside those of the sections.
        before: Sections that come before that one.
        empty_truth: The rule that the section was made with.

    Returns:
        The report.

    Raises:
        MimError: A film that cannot be drawn.
    """
    viewer = Viewer(
        (
            _group("False negatives", "false negative", "with lesions that were missed", missed),
            _group("False positives", "false positive", "with something drawn that touches no lesion", false),
        )
    )
    shown = {name: None for film in (*missed, *false) for name in film.classes}
    return write_block_report(
        folder,
        "segmentation.html.jinja",
        [*before, section],
        settings,
        header,
        warnings,
        headline=[section],
        figures={"threshold": section.figures["threshold"]} if "threshold" in section.figures else None,
        viewer=viewer,
        classes=list(shown) if len(shown) > 1 else [],
        script=script() if viewer.cases else "",
        script_source=f"'{script_hash(script())}'" if viewer.cases else "'none'",
        empty_truth=RULES[empty_truth],
    )


def _group(title: str, kind: str, what: str, films: Sequence[FilmMasks]) -> CaseGroup:
    count = len(films)
    text = f"The {count} worst {'film' if count == 1 else 'films'} {what}." if count else f"No films {what} are shown."
    return CaseGroup(title, text, tuple(_case(film, kind) for film in films))


def _case(film: FilmMasks, kind: str) -> ShownCase:
    grey = film_picture(film.image)
    text, layers = show_mask(film.visible, grey)
    shape = (grey.shape[0], grey.shape[1])
    return ShownCase(
        image_id=film.image_id,
        patient_id=film.patient_id,
        kind=kind,
        score=None,
        text=(*film.said, *text),
        film=embed(grey, f"Film {film.image_id}, {kind}, as it is"),
        layers=tuple(layers),
        frames=(),
        outlines=(*outline_masks("truth", film.truth, shape), *outline_masks("drawn", film.drawn, shape)),
    )
