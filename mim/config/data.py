"""Settings of the films: which, how they are stored, their labels, and how training changes them."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import Config, Fraction


class DataConfig(Config):
    """Which films, and how they are stored."""

    path: str = Field("", description="folder of films (DICOM, PNG, JPEG, TIFF, NIfTI), or a prepared dataset")
    cache: str = Field("data/prepared", description="where folders of films are prepared, once, before the first run")
    long_side: int = Field(
        512, ge=16, description="longer side of a stored film in pixels; larger films are reduced, smaller ones kept"
    )
    bits: Literal[8, 16] = Field(8, description="bits a stored pixel keeps")
    voi: int = Field(
        0,
        ge=0,
        description="which of several VOI LUTs and windows a DICOM is shown with; where there are fewer: the first",
    )
    color: Literal["skip", "gray"] = Field(
        "skip", description="colour pictures: skip = leave them out, gray = read their luminance"
    )
    crop: Literal["none", "border", "collimation"] = Field(
        "none",
        description="what is taken away around a film: border = uniform margins; collimation = those, and what lies "
        "outside the shutters",
    )
    tile: int | None = Field(
        None, ge=16, description="side in pixels of the windows that films are cut into, unreduced; null = whole films"
    )
    tile_overlap: int = Field(0, ge=0, description="pixels by which neighbouring windows overlap")
    train_limit: int | None = Field(
        None, ge=1, description="use at most this many training films, whole patients, drawn by seed"
    )


class UnlabelledDataConfig(DataConfig):
    """Which films to pretrain on, and how they are stored."""

    exclude: str = Field(
        "auto",
        description="films left out: a CSV with image and split columns (its test split is left out); "
        "auto = labels.csv in data.path or the folder above; none = leave out nothing",
    )


class LabelledDataConfig(DataConfig):
    """Which films, how they are stored, their labels, and who is in which split."""

    labels: str | None = Field(
        None, description="CSV of labels, relative to data.path: image, label columns; patient_id and split if known"
    )
    target: str | tuple[str, ...] | None = Field(
        None,
        description="label column to learn; films where it is empty count as unlabelled; a list of columns of 0 and 1 "
        "= several labels, each for itself, of which a film may lack some; task=detect and "
        "segment have none, they learn from data.boxes",
    )
    label_kind: Literal["classes", "ordered"] = Field(
        "classes",
        description="what the values of one data.target are: classes = two, or more without an order; ordered = three "
        "grades or more, from the mildest to the worst",
    )
    label_order: tuple[str, ...] | None = Field(
        None,
        description="data.label_kind=ordered: the grades, mildest first; null = by number, or by a known scale",
    )
    boxes: str | None = Field(
        None,
        description="COCO file of lesions, relative to data.path: boxes, and polygons or run lengths where it has them",
    )
    lesion_categories: tuple[str, ...] | None = Field(
        None, description="categories of data.boxes that are what is sought; null = all of them"
    )
    crops: str | None = Field(
        None,
        description="COCO file of tooth boxes, relative to data.path: each tooth is a film of its own; its label is "
        "whether it has a lesion of data.boxes, or stands under data.target in the tooth's row; null = whole films",
    )
    crop_margin: Annotated[float, Field(ge=0, le=2)] = Field(
        0.15, description="what is taken around a tooth box on each side, as a share of its width and height"
    )
    grades: tuple[str, ...] | None = Field(
        None,
        description="grades of lesions (attribute grade, severity or icdas in data.boxes), mildest first; null = by "
        "number, or by a known scale, else without order",
    )
    study_label: Literal["agree", "any"] = Field(
        "agree",
        description="label of a study of several films: agree = that of all its rows, which must have the same; "
        "any = positive where any of its films is",
    )
    max_films: int | None = Field(
        None,
        ge=1,
        description="most films of a study: of longer ones absent films are left out first, then films at even "
        "distances over the order are kept; null = all",
    )
    seen_in_pretraining: Literal["stop", "report"] = Field(
        "stop", description="what to do when films or patients of the test split were met in pretraining"
    )
    val_fraction: Fraction = Field(
        0.2, description="share of patients for validation where the labels have no split column"
    )
    test_fraction: Fraction = Field(
        0.2, description="share of patients for the test where the labels have no split column"
    )
    split_seed: int = Field(0, ge=0, description="seed of that split")
    split_by: Literal["patient", "site", "date"] = Field(
        "patient",
        description="what the test is apart in, where it is drawn: patients; whole sites (column site); "
        "the newest patients (column date)",
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="cross-validation: parts that patients are divided into, one of which is the test; "
        "the validation where the labels have a split column",
    )
    fold: int = Field(0, ge=0, description="which of the folds, from 0")
    label_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0,
        description="share of the training patients of each class whose labels are used, drawn by seed; "
        "a larger share holds all that a smaller one holds",
    )
    copies_across_splits: Literal["stop", "report"] = Field(
        "stop", description="what to do when a validation or test film is a copy of another patient's training film"
    )


class AugmentConfig(Config):
    """Random changes to a training film. Validation and test films are only resized."""

    crop_scale: tuple[Fraction, Fraction] = Field(
        (0.5, 1.0), description="share of the film's area that a random crop keeps (min, max)"
    )
    crop_ratio: tuple[float, float] = Field(
        (0.8, 1.25), description="aspect ratio of the crop relative to the film's own (min, max)"
    )
    horizontal_flip: Fraction = Field(0.5, description="probability of mirroring left and right")
    vertical_flip: Fraction = Field(0.0, description="probability of mirroring top and bottom")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees, either way")
    brightness: Fraction = Field(0.0, description="largest change of brightness, as a share of the full range")
    contrast: Fraction = Field(0.0, description="largest relative change of contrast")
