"""The report and `metrics.json` of more than two classes, of grades and of several labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mim.evaluation.block_report import write_block_report
from mim.evaluation.embedding import embed
from mim.evaluation.header import Header
from mim.evaluation.label_errors import ErrorGroup
from mim.evaluation.metrics import Settings
from mim.evaluation.pictures import Cells, Pixels, film_picture, mask_picture
from mim.evaluation.section import Section

NO_ONE_THRESHOLD = "there is one for each class or label (blocks.labels.questions)"


@dataclass(frozen=True, eq=False)
class ErrorFilm:
    """A film of the test set to be shown, with boxes xyxy in pixels of `image`.

    Attributes:
        image_id: Its name in the table of predictions.
        patient_id: Salted hash of its patient.
        image: (H, W) in [0, 1].
        visible: (gh, gw), True = seen; None = everything was seen.
        boxes: Lesions that a reader marked.
    """

    image_id: str
    patient_id: str
    image: Pixels
    visible: Cells | None
    boxes: Sequence[Sequence[float]]


def write_label_report(
    folder: Path,
    sections: Sequence[Section],
    settings: Settings,
    header: Header,
    about: Sequence[tuple[str, str]],
    errors: Sequence[tuple[ErrorGroup, Sequence[ErrorFilm]]],
    warnings: Sequence[str] = (),
) -> Path:
    """Write `report.html` and `metrics.json` into a folder.

    Args:
        folder: Where; it is there.
        sections: Blocks of the report, in order.
        settings: How thresholds and intervals were made.
        header: What the figures belong to.
        about: How many films there are, title and text, for the head of the report.
        errors: Of each kind the films that are shown, in the order of its errors.
        warnings: Sentences to show at the top, before those of the sections.

    Returns:
        The report.

    Raises:
        MimError: A film that cannot be drawn.
    """
    return write_block_report(
        folder,
        "labels.html.jinja",
        sections,
        settings,
        header,
        warnings,
        headline=sections,
        figures={"threshold": {"value": None, "chosen_on": "val", "reason": NO_ONE_THRESHOLD}},
        about=about,
        groups=[_group(group, films) for group, films in errors],
    )


def _group(group: ErrorGroup, films: Sequence[ErrorFilm]) -> dict[str, Any]:
    shown = [_case(film, error.said) for film, error in zip(films, group.errors, strict=True)]
    return {"title": group.title, "text": group.text, "cases": shown}


def _case(film: ErrorFilm, said: str) -> dict[str, Any]:
    drawn = mask_picture(film.image, film.visible, film.boxes)
    pictures = [
        embed(film_picture(film.image), f"Film {film.image_id}, as it is"),
        embed(drawn, f"The same film with what was seen of it and {len(film.boxes)} lesions framed"),
    ]
    return {"image_id": film.image_id, "patient_id": film.patient_id, "said": said, "pictures": pictures}
