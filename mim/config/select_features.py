"""Settings of `python -m mim.stages.select_features`."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import SCHEMA_VERSION, Config
from mim.config.data import DataConfig


class FeatureDataConfig(DataConfig):
    """Which films, their labels, and what else is known of them."""

    labels: str | None = Field(
        None, description="CSV of labels, relative to data.path: image, label columns, clinical columns, patient_id"
    )
    target: str | None = Field(None, description="label column to learn; films where it is empty are left out")
    clinical: tuple[str, ...] = Field(
        (), description="columns to choose from, such as age and site: numbers, or words one by one; empty = missing"
    )
    include_test: bool = Field(
        False, description="also use films of the test split; what is chosen by them can no longer be measured on them"
    )


class FeatureMaskerConfig(Config):
    """The gates in front of the linear head."""

    keep: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="budget: share of the features to keep")
    gates: Literal["hard_concrete", "straight_through"] = Field(
        "hard_concrete", description="gates in training: between 0 and 1, exactly either at times; or always 0 or 1"
    )
    threshold: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="chance of an open gate at which a feature is selected"
    )
    temperature: float = Field(2 / 3, gt=0, description="temperature of the gates")
    hidden: int = Field(16, ge=1, description="units of the MLP that opens them")
    budget_weight: float = Field(
        0.04, ge=0, description="weight of the squared distance to the budget, reached halfway"
    )
    steps: int = Field(300, ge=1, description="steps of training, all training rows in each")
    lr: float = Field(0.02, gt=0, description="learning rate")


class SelectFeaturesConfig(Config):
    """Settings of mim.stages.select_features: which features a linear head needs, and how sure that is."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    run: str | None = Field(
        None,
        description="run of train.py or finetune.py whose encoder embeds the films; may be given without its key; "
        "null = clinical columns alone",
    )
    output: str = Field("runs/select_features", description="folder of the results")
    data: FeatureDataConfig = FeatureDataConfig()
    masker: FeatureMaskerConfig = FeatureMaskerConfig()
    folds: int = Field(5, ge=2, description="parts that patients are divided into; each is left out once")
    repeats: int = Field(2, ge=1, description="times that the patients are divided anew")
    bootstrap: int = Field(2000, ge=100, description="resamples of patients for the intervals")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of the intervals")
    batch_size: int = Field(64, ge=1, description="films embedded at a time")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="device that embeds them")
    seed: int = Field(0, ge=0, description="everything random follows from it")
