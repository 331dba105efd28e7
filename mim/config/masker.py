"""Settings of the masker: who decides, at fine-tuning and inference, what the encoder may look at."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import Config, Fraction


class MaskerConfig(Config):
    """Who decides, at fine-tuning and inference, which cells the encoder may look at."""

    kind: Literal["none", "learned", "threshold"] = Field("learned", description="none = everything is seen")
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="learned: share of cells to keep; on average in training, of every film in evaluation"
    )
    scorer: Literal["cnn", "tokens"] = Field(
        "cnn",
        description="learned: what scores the cells: a small CNN over the image, or a head on the tokens of the "
        "pretrained encoder of init, which stays as it is",
    )
    width: int = Field(
        16, ge=4, description="learned: channels of the CNN's first layer; a head on tokens has four times as many"
    )
    per: Literal["patch", "pixel"] = Field(
        "patch",
        description="learned: what is decided on. pixel = for an encoder whose cells are pixels; in front of others "
        "the mask is a filter: hidden pixels become the film's mean, and all cells are seen",
    )
    gate: Literal["binary", "hard_concrete", "top_k", "soft"] = Field(
        "binary",
        description="learned: what training meets: binary = 0 or 1, drawn cell by cell; hard_concrete = the same, "
        "without gradient where the decision is clear; top_k = 0 or 1, exactly keep of each film; soft = weights, in "
        "evaluation too, so nothing is hidden",
    )
    temperature: float = Field(0.5, gt=0, description="learned: temperature of the gates")
    decide: Literal["share", "odds"] = Field(
        "share",
        description="learned: in evaluation, show exactly keep of every film, or where the odds are even or better; "
        "then films differ in how much is seen, which may carry the label",
    )
    task: float = Field(1.0, ge=0, description="learned: weight of the task's error seen through the mask")
    follow: Literal["label", "network"] = Field(
        "label",
        description="learned: what the masked film must come to in stage B: its label, or what the frozen network says "
        "of the whole film, so that the masker never hears of a label (not of boxes or pixels)",
    )
    supervised: float = Field(
        0.0,
        ge=0,
        description="learned: weight of the cross entropy to the cells that hold a lesion of data.boxes; films without "
        "one are left out of it",
    )
    reconstruction: float = Field(
        0.0,
        ge=0,
        description="learned: weight of the error with which the pretrained model of init rebuilds what is hidden",
    )
    budget_weight: float = Field(
        1.0, ge=0, description="learned: final weight of the squared distance to the share in keep"
    )
    budget_ramp: Fraction = Field(
        0.5, description="learned: share of stage B in which that weight rises, from a tenth to its final value"
    )
    lr_scale: float = Field(2.0, gt=0, description="learned: the masker's learning rate as a multiple of optimizer.lr")
    stages: tuple[Fraction, Fraction, Fraction] = Field(
        (0.5, 0.5, 0.0),
        description="learned: shares of the training, which sum to 1: A, encoder and head under random masks; B, the "
        "masker, with encoder and head frozen; C, all together",
    )
    random_keep: tuple[Fraction, Fraction] | None = Field(
        None,
        description="learned: range of the share of cells that random masks keep, drawn for each batch; null = 0.1 to "
        "1.0, for boxes and pixels 0.5 to 1.0",
    )
    random_share: Fraction = Field(
        0.5, description="learned: share of each batch of stage C that still meets random masks"
    )
    score: Literal["intensity", "gradient", "variance", "reconstruction_error", "attention"] = Field(
        "intensity",
        description="threshold: what is compared, averaged over a cell; reconstruction_error = how badly the "
        "pretrained model of init rebuilds it; attention = what the class token of the ViT that is started from pays "
        "to it, 1 = the mean of the film",
    )
    threshold: float | str = Field(
        0.2,
        description="threshold: cells whose score is at or above are kept (pixels in [0, 1]); otsu = Otsu's threshold "
        "of each film; quantile:0.3 = that share of each film's cells falls below",
    )
    direction: Literal["above", "below"] = Field("above", description="threshold: keep the cells above or below it")
