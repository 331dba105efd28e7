"""Settings of an external test set: films that a run never saw, of another hospital."""

from typing import Literal

from pydantic import Field

from mim.config.base import Config


class ExternalDataConfig(Config):
    """An external test set: films of another hospital, with labels, which the run never saw."""

    path: str | None = Field(
        None,
        description="folder of the films, or a prepared dataset; all labelled ones are test films; null = the run's "
        "own test films are measured. --data FOLDER says the same",
    )
    labels: str | None = Field(
        None, description="CSV of labels, relative to data.path; null = called as that of the run (its data.labels)"
    )
    target: str | tuple[str, ...] | None = Field(
        None,
        description="label column, or as many columns as the run has labels, in their order; null = called as in the "
        "run",
    )
    boxes: str | None = Field(
        None, description="COCO file of lesions, relative to data.path; null = called as that of the run"
    )
    lesion_categories: tuple[str, ...] | None = Field(
        None,
        description="categories of data.boxes that are what is sought; of a detector as many as it has classes, in "
        "their order; null = called as in the run",
    )
    grades: tuple[str, ...] | None = Field(
        None, description="grades of lesions in data.boxes, mildest first; null = as in the run"
    )
    crops: str | None = Field(
        None,
        description="COCO file of tooth boxes, relative to data.path, for runs on teeth; null = called as that of the "
        "run",
    )
    split: Literal["train", "val", "test"] | None = Field(
        None, description="measure only films of this split of data.labels; null = all films, whatever their split"
    )
    cache: str | None = Field(
        None, description="where the folder is prepared, once; null = where the run's films were (its data.cache)"
    )
