"""The report and `metrics.json` of more than two classes, of grades and of several labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.evaluation.block_report import write_block_report
from mim.evaluation.embedding import embed
from mim.evaluation.header import Header
from mim.evaluation.label_errors import ErrorGroup, LabelError
from mim.evaluation.metrics import Settings
from mim.evaluation.pictures import Cells, Pixels, Reconstruction, film_picture
from mim.evaluation.report import reconstruction_sheet
from mim.evaluation.section import Section
from mim.evaluation.viewer import CaseGroup, ShownCase, Viewer, frame, script, script_hash, show_mask

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
    viewer = Viewer(tuple(_group(group, films) for group, films in errors))
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
        viewer=viewer,
        script=script() if viewer.cases else "",
        script_source=f"'{script_hash(script())}'" if viewer.cases else "'none'",
    )


def reconstruction_section(reconstructions: Sequence[Reconstruction], why_none: str) -> Section:
    """Show films rebuilt from a part, or say why there are none."""
    sheet = reconstruction_sheet(reconstructions)
    return Section(
        name="reconstructions",
        title="Reconstructions",
        text=() if sheet else (why_none,),
        pictures=(sheet,) if sheet else (),
        figures={"films": len(reconstructions)},
    )


def _group(group: ErrorGroup, films: Sequence[ErrorFilm]) -> CaseGroup:
    shown = (_case(film, error) for film, error in zip(films, group.errors, strict=True))
    return CaseGroup(group.title, group.text, tuple(shown))


def _case(film: ErrorFilm, error: LabelError) -> ShownCase:
    grey = film_picture(film.image)
    seen, layers = show_mask(film.visible, grey)
    return ShownCase(
        image_id=film.image_id,
        patient_id=film.patient_id,
        kind=error.kind,
        score=None,
        text=(error.said, *seen),
        film=embed(grey, f"Film {film.image_id}, {error.kind}, as it is"),
        layers=tuple(layers),
        frames=frame("boxes", film.boxes, film.image.shape, grey.shape),
    )
