"""Settings of `task: detect`."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import Config, Fraction

Side = Annotated[int, Field(ge=16)]


class DetectConfig(Config):
    """A detector over the encoder's maps. Read where `task` is `detect`."""

    head: Literal["fcos", "retinanet", "fasterrcnn"] = Field("fcos", description="torchvision's detector")
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = Field(
        128, description="channels of the pyramid and the head, a multiple of 32"
    )
    convolutions: Annotated[int, Field(ge=1, le=4)] = Field(2, description="convolutions of each branch of the head")
    finest: Literal[4, 8, 16] = Field(
        8, description="stride of the finest map in pixels; smaller for smaller lesions, at four times the work"
    )
    assignment: Literal["fixed", "atss"] = Field(
        "fixed",
        description="which places must find a box in training: fixed = the detector's own rule; atss = adaptive, for "
        "tiny lesions (fcos, retinanet)",
    )
    score_threshold: Fraction = Field(0.05, description="boxes below this score are left out")
    nms_overlap: Fraction = Field(
        0.5, description="of two boxes of a class that overlap by more (IoU) the one with the lower score is left out"
    )
    most: int = Field(100, ge=1, description="boxes of a film, at most")
    window: tuple[Side, Side] | None = Field(
        None,
        description="height and width of the windows that films are trained on and searched in, in pixels of the film "
        "before it was reduced; each becomes an image of input.image_size; null = whole films",
    )
    window_overlap: Annotated[float, Field(ge=0, le=0.9)] = Field(
        0.25, description="share of a window's sides by which neighbours overlap where a film is searched"
    )
    windows_per_film: int = Field(1, ge=1, description="windows of each training film in an epoch")
    lesion_windows: Fraction = Field(
        0.5,
        description="share of the training windows that are placed where they hold a lesion; the others lie anywhere",
    )
