"""Settings of evaluate.py."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import SCHEMA_VERSION, Config
from mim.config.explanations import ExplanationsConfig, MissingnessConfig
from mim.config.external import ExternalDataConfig
from mim.config.faithfulness import FaithfulnessConfig
from mim.config.segmentation import SegmentationConfig


class EvaluateConfig(Config):
    """Settings of evaluate.py: a report from a run of finetune.py, or a comparison of two."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    run: str = Field("", description="run of finetune.py; may be given without its key")
    second_run: str | None = Field(
        None,
        description="another run, to compare with the first on the same test films; may be given without its key, "
        "after the first; null = none",
    )
    data_path: str | None = Field(
        None,
        description="where the run's own films are now; null = where they were when it was trained (its data.path). "
        "Films that it never saw are given as data.path",
    )
    output: str | None = Field(
        None,
        description="where report.html, metrics.json and predictions.csv go; null = into the run; of an external "
        "test set into a folder external-<hash of its films> of the run; of a comparison beside the second run",
    )
    bootstrap: int = Field(2000, ge=100, description="resamples of patients for the intervals")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of the intervals")
    specificity: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.9, description="specificity at which the threshold is chosen on the validation films"
    )
    worst: int = Field(6, ge=0, description="worst errors of each kind to draw")
    groups: tuple[Literal["severity", "tooth", "device", "site", "sex", "age", "modality"], ...] | None = Field(
        None,
        description="columns of data.labels, and the DICOM modality, by which figures are given apart, the worst group "
        "first; ages in bands, sites by number; null = all that there are, [] = none",
    )
    batch_size: int = Field(64, ge=1, description="films at a time")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="device; auto = a GPU where there is one")
    seed: int = Field(0, ge=0, description="seed of the bootstrap, and of all else that is drawn")
    data: ExternalDataConfig = ExternalDataConfig()
    missingness: MissingnessConfig = MissingnessConfig()
    explanations: ExplanationsConfig = ExplanationsConfig()
    faithfulness: FaithfulnessConfig = FaithfulnessConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
