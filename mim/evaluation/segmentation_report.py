"""The report and `metrics.json` of a segmenter: figures of the block on segmentation, and its worst errors drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from mim.evaluation.block_report import write_block_report
from mim.evaluation.embedding import embed
from mim.evaluation.header import Header
from mim.evaluation.metrics import Settings
from mim.evaluation.pictures import BOX, MARK, Bytes, Cells, Pixels, enlarge, film_picture, mask_picture
from mim.evaluation.section import Section
from mim.evaluation.segmentation import RULES, TOUCHING, EmptyTruth, Overlap


@dataclass(frozen=True, eq=False)
class FilmMasks:
    """A film of the test set to be shown.

    Attributes:
        image_id: Its name in the table.
        patient_id: Salted hash of its patient.
        image: (H, W) in [0, 1].
        truth: (any h, any w) over the whole of it, True = lesion.
        drawn: (any h, any w), True = called lesion.
        said: What happened, in words.
        visible: (gh, gw), True = seen; None = everything was seen.
    """

    image_id: str
    patient_id: str
    image: Pixels
    truth: npt.NDArray[np.bool_]
    drawn: npt.NDArray[np.bool_]
    said: str
    visible: Cells | None = None


def choose_worst_masks(overlaps: Sequence[Overlap], count: int) -> tuple[list[int], list[int]]:
    """Find the images with the worst errors.

    Args:
        overlaps: One an image.
        count: How many of each kind at most.

    Returns:
        Places of the images with the most lesions that were not found, of as many first those with the most pixels
        missed; and of those with most pixels drawn in parts that touch no lesion.
    """
    missed = [sum(lesion.covered < 0.5 for lesion in own.lesions) for own in overlaps]
    by_missed = sorted(
        range(len(overlaps)), key=lambda place: (-missed[place], overlaps[place].both - overlaps[place].area)
    )
    by_false = sorted(range(len(overlaps)), key=lambda place: -overlaps[place].false_area)
    return (
        [place for place in by_missed if missed[place]][:count],
        [place for place in by_false if overlaps[place].false_area][:count],
    )


def outline_picture(film: FilmMasks, *, side: int = 512) -> Bytes:
    """Draw a film as `mask_picture` does, with the truth outlined from outside and what was drawn from inside.

    Args:
        film: What is drawn.
        side: Longer side of the picture in pixels.

    Returns:
        (h, w, 3) uint8.

    Raises:
        MimError: The film cannot be drawn.
    """
    picture = mask_picture(film.image, film.visible, side=side).copy()
    truth, drawn = (enlarge(mask, picture.shape[:2]).astype(bool) for mask in (film.truth, film.drawn))
    picture[ndimage.binary_dilation(truth, TOUCHING, iterations=2) & ~truth] = BOX
    picture[drawn & ~ndimage.binary_erosion(drawn, TOUCHING)] = MARK
    return picture


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
        section: What `segmentation_section` gave.
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
    return write_block_report(
        folder,
        "segmentation.html.jinja",
        [*before, section],
        settings,
        header,
        warnings,
        headline=[section],
        figures={"threshold": section.figures["threshold"]} if "threshold" in section.figures else None,
        groups=[
            _group("False negatives", "with lesions that were missed", missed),
            _group("False positives", "with something drawn that touches no lesion", false),
        ],
        empty_truth=RULES[empty_truth],
    )


def _group(title: str, what: str, films: Sequence[FilmMasks]) -> dict[str, Any]:
    count = len(films)
    text = f"The {count} worst {'film' if count == 1 else 'films'} {what}." if count else f"No films {what} are shown."
    return {"title": title, "text": text, "cases": [_case(film) for film in films]}


def _case(film: FilmMasks) -> dict[str, Any]:
    pictures = [
        embed(film_picture(film.image), f"Film {film.image_id}, as it is"),
        embed(outline_picture(film), f"The same film with lesions and what was drawn outlined. {film.said}"),
    ]
    return {"image_id": film.image_id, "patient_id": film.patient_id, "said": film.said, "pictures": pictures}
