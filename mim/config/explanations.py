"""Settings of the blocks of evaluate.py that take parts of a film away and look what becomes of the answer."""

from typing import Literal

from pydantic import Field

from mim.config.base import Config, Share

HidingName = Literal["drop", "token", "sparse", "layer", "grey", "black", "mean", "blur"]
UnitName = Literal["patch", "superpixel"]
OrderName = Literal["random", "salient_first", "salient_last"]
ExplainerName = Literal["masker", "occlusion", "lime", "integrated_gradients", "attention_rollout"]


class MissingnessConfig(Config):
    """What missing parts do to the answer: bias of missingness, and of the outline of masks."""

    films: int = Field(
        0, ge=0, description="test films from which more and more is removed, by each way of hiding; 0 = none"
    )
    shape_films: int = Field(
        0,
        ge=0,
        description="test films of which lesions, or what the masker hides, are hidden in place and moved; 0 = none",
    )
    hiding: tuple[HidingName, ...] = Field(
        ("drop", "token", "sparse", "layer", "grey", "black", "mean", "blur"),
        description="ways of hiding; those that the run's network cannot do are left out, and the report says so",
    )
    unit: tuple[UnitName, ...] = Field(("patch", "superpixel"), description="what is removed as a whole")
    order: tuple[OrderName, ...] = Field(
        ("random", "salient_first", "salient_last"), description="what is removed first"
    )
    removed: tuple[Share, ...] = Field(
        (0.1, 0.25, 0.5, 0.75, 0.95), description="shares of the film that are removed, besides nothing"
    )
    patch: int = Field(16, ge=1, description="side of a patch in pixels; a ViT's cells are not cut")
    superpixels: int = Field(100, ge=2, description="superpixels a film is divided into, about")


class ExplanationsConfig(Config):
    """Explanations of single films, how faithful they are, and whether they point at lesions."""

    films: int = Field(0, ge=0, description="test films on which explanations are measured; 0 = none")
    methods: tuple[ExplainerName, ...] = Field(
        ("masker", "occlusion", "lime", "integrated_gradients", "attention_rollout"),
        description="how films are explained; those that the run's network cannot give are left out, and said so",
    )
    window: int = Field(1, ge=1, description="occlusion: side of the window, in cells")
    samples: int = Field(200, ge=10, description="lime: masks drawn for a film")
    superpixels: int = Field(50, ge=2, description="lime: parts that a film is divided into, about")
    steps: int = Field(16, ge=2, description="integrated gradients: steps from nothing visible to all that is")
    points: int = Field(11, ge=3, description="points of the deletion and insertion curves")
    pictures: int = Field(
        6, ge=0, description="worst errors, of those drawn (worst), that the best explanation is laid over"
    )
