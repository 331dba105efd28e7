"""Settings of `task: segment`, and of its evaluation."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import Config


class SegmentConfig(Config):
    """A decoder over the encoder's maps that says of each pixel whether it is what is sought."""

    classes: Literal["together", "apart"] = Field(
        "together",
        description="the categories of data.boxes (data.lesion_categories): together = all of them are what is sought, "
        "one mask; apart = a mask for each, which may overlap",
    )
    head: Literal["unet", "upernet"] = Field(
        "unet",
        description="unet = from the coarsest map up, each finer one joined and convolved; upernet = pyramid pooling, "
        "then all scales fused at once",
    )
    channels: Annotated[int, Field(ge=16, multiple_of=16)] = Field(
        64, description="channels of each scale of the decoder, a multiple of 16"
    )
    finest: Literal[2, 4, 8] = Field(
        4, description="stride of the finest map in pixels; smaller for smaller lesions, at four times the work"
    )
    loss: Literal["dice_ce", "dice_focal"] = Field(
        "dice_ce",
        description="Dice loss of the batch, plus cross entropy; or plus focal loss, which learns less from pixels "
        "that are right",
    )
    boxes: Literal["refuse", "fill"] = Field(
        "refuse",
        description="annotations of data.boxes without polygons or run lengths: refuse = stop; fill = the whole box "
        "counts as lesion, in training and in evaluation",
    )


class SegmentationConfig(Config):
    """How masks are measured. Read where the run has `task: segment`."""

    tolerance: float = Field(
        2.0,
        ge=0,
        description="how far apart the borders of two masks may lie and count as met, in pixels of the whole film "
        "before it was reduced",
    )
    empty_truth: Literal["skip", "score"] = Field(
        "skip",
        description="films without a lesion: skip = left out of the means over films; score = 1 where nothing is "
        "drawn, 0 where something is",
    )
