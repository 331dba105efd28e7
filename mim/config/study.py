"""Settings of `task: study`."""

from typing import Literal

from pydantic import Field

from mim.config.base import Config


class StudyConfig(Config):
    """A head for a whole study, and the recurrence that weighs its films. Read where `task` is `study`."""

    masker: Literal["sequence", "none"] = Field(
        "sequence", description="sequence = a recurrence weighs the films; none = all films count alike"
    )
    cell: Literal["lstm", "gru"] = Field("lstm", description="what the recurrence is made of")
    bidirectional: bool = Field(True, description="whether a film's weight may depend on the films after it, too")
    hidden: int = Field(64, ge=1, description="units of the recurrence in each direction")
    layers: int = Field(1, ge=1, description="layers of the recurrence")
    keep: int | None = Field(
        None, ge=1, description="films looked at in evaluation, those with the highest weights; null = all"
    )
    freeze_encoder: bool = Field(False, description="leave the encoder as it is; then init or published weights decide")
