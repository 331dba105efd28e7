"""Teeth, and what they are labelled with: lesions by their boxes, or a column of a CSV."""

from collections.abc import Sequence
from pathlib import Path

from mim.config import LabelledDataConfig
from mim.data import LabelledFilms, attach_labels, dataset_salt
from mim.data.annotations import read_annotations
from mim.data.tooth_crops import ToothCrops, check_tooth_column, crop_teeth, label_by_lesions
from mim.errors import MimError
from mim.stages.common import open_films


def check_crop_settings(data: LabelledDataConfig) -> None:
    """Refuses settings of teeth that contradict each other.

    Raises:
        MimError: naming the setting.
    """
    if data.crops is None and data.crop_margin != LabelledDataConfig.model_fields["crop_margin"].default:
        raise MimError("data.crop_margin says nothing without data.crops: give data.crops=<COCO file of tooth boxes>")
    if data.crops is not None and data.tile is not None:
        raise MimError("data.crops cuts teeth out of whole films, and data.tile has films cut into tiles; give one")
    if data.crops is not None and data.target is None and data.label_kind != "classes":
        raise MimError(
            f"data.label_kind={data.label_kind}: by the lesions of data.boxes a tooth has a lesion or none; "
            "give data.target=<column>"
        )


def join_tooth_labels(
    data: LabelledDataConfig, classes: Sequence[str] | None = None
) -> tuple[ToothCrops, LabelledFilms]:
    """Opens the films, makes films of their teeth, and labels them.

    With `data.target` the label stands in the CSV, a row a tooth (columns `image` and `tooth`); without it a tooth is
    positive where the middle of a lesion of `data.boxes` lies in its box.

    Args:
        data: settings of the films.
        classes: of a finished run, of which not all need be there; None = the labels say it.

    Raises:
        MimError: a setting, file or column is missing.
    """
    if data.labels is None:
        raise MimError(
            "data.labels is not set: give data.labels=<CSV in data.path>, which says whose films they are (patient_id, "
            "and split if known)"
        )
    if data.target is None and data.boxes is None:
        raise MimError(
            "data.crops: teeth need labels; give data.boxes=<COCO file of lesions>, or data.target=<label column>"
        )
    assert data.crops is not None
    films, source = open_films(data), Path(data.path)
    salt = dataset_salt(films, Path(data.cache))
    teeth = crop_teeth(films, source, data.crops, data.crop_margin)
    if data.target is not None:
        check_tooth_column(teeth, source, data.labels)
    labelled = attach_labels(
        teeth,
        source,
        data.labels,
        data.target,
        salt,
        kind=data.label_kind,
        order=data.label_order,
        classes=classes,
    )
    if data.boxes is not None:
        lesions = read_annotations(films, source, data.boxes, data.lesion_categories, data.grades)
        if data.target is None:
            labelled = label_by_lesions(teeth, labelled, lesions, both=classes is None)
    return teeth, labelled
