"""Settings of what an evaluation says about the mask."""

from typing import Annotated

from pydantic import Field

from mim.config.base import Config


class FaithfulnessConfig(Config):
    """Whether the mask shows what matters, hides no lesion and gives no label away."""

    enabled: bool = Field(True, description="false = leave this block out")
    keep_rates: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.05, 0.1, 0.25, 0.5, 0.75, 1.0), description="shares of cells at which the AUC is measured"
    )
    random_masks: int = Field(3, ge=1, description="random masks a film at each share; their AUC is averaged")
    resamples: int = Field(1000, ge=100, description="resamples of patients for the intervals of this block")
    films: int | None = Field(
        500, ge=1, description="see about this many test films, whole patients, through other masks; null = all of them"
    )
    evaluator: str | None = Field(
        None,
        description="another run of finetune.py on the same split, without a learned mask: it looks through the masks "
        "of this one; null = there is none",
    )
