"""Settings of pretraining alone: what is hidden, what rebuilds it, and how that is watched."""

from typing import Annotated, Literal

from pydantic import Field

from mim.config.base import Config, Fraction, Share

MaskPattern = Literal[
    "random", "block", "grid", "inverse_block", "multi_block", "foreground", "texture", "hard", "attention"
]


class MaskingConfig(Config):
    """Which cells are hidden in pretraining."""

    pattern: MaskPattern = Field(
        "random",
        description="which cells: at random, in blocks (BEiT), on an even grid, all but a window, in large blocks "
        "(I-JEPA), tissue before air, texture before flat areas, those that are hard to rebuild, "
        "those that the encoder attends to most (ViT)",
    )
    ratio: Share | tuple[Share, Share] = Field(
        0.75,
        description="share of the cells that is hidden, an exact count; two numbers = drawn between them for each film",
    )
    unit: int = Field(1, ge=1, description="random: side of what is hidden together, in cells (SimMIM: 2)")
    guided_share: Fraction = Field(
        0.5,
        description="texture, hard, attention: share of the hidden cells that is not drawn at random; "
        "for hard and attention it grows from 0 to this over the training",
    )
    exact: bool = Field(
        False,
        description="foreground: hide equally many cells of every film, air too; "
        "false = the ratio is of the tissue, and air stays visible",
    )


class DecoderConfig(Config):
    """What rebuilds the hidden cells."""

    kind: Literal["mae", "cross", "linear", "unet", "fcmae"] | None = Field(
        None,
        description="mae = transformer (ViT, Hiera); cross = CrossMAE, hidden cells attend to visible ones alone (ViT, "
        "Hiera); linear = one layer, as SimMIM (where encoder.hidden is token); unet = light U-Net, as SparK, and "
        "fcmae = ConvNeXt blocks (CNN); null = mae, linear or fcmae, whichever fits the encoder",
    )
    width: int = Field(192, ge=8, description="channels of the decoder, of unet at the coarsest level; not of linear")
    depth: int = Field(2, ge=1, description="blocks of the decoder; unet: convolutions a level; not of linear")
    heads: int = Field(6, ge=1, description="mae, cross: attention heads; must divide the width")
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="mae, cross: share of the hidden cells that is decoded in training, drawn anew each step"
    )


class TargetConfig(Config):
    """What the decoder must give: any weighted sum of targets."""

    pixels: float = Field(1.0, ge=0, description="weight of the pixels of each hidden cell")
    normalize_pixels: bool = Field(
        True, description="normalise the pixels of each cell by its own mean and deviation (MAE's norm_pix_loss)"
    )
    hog: float = Field(
        0.0, ge=0, description="weight of histograms of oriented gradients (MaskFeat); cells of a multiple of 8 pixels"
    )
    spectral: float = Field(0.0, ge=0, description="weight of the high frequencies: the image less a blurred copy")
    latent: float = Field(
        0.0, ge=0, description="weight of the embeddings that a teacher, a moving average of the encoder, has of cells"
    )
    distill_visible: float = Field(
        0.0, ge=0, description="latent: weight of the distance of the encoder's visible tokens to the teacher's"
    )
    teacher_decay: Fraction = Field(0.996, description="latent: what the teacher keeps of itself at a step")
    teacher_schedule: Literal["cosine", "fixed"] = Field(
        "cosine", description="latent: cosine = teacher_decay rises to 1 by the end of the run; fixed = it stays"
    )
    teacher_blocks: int | None = Field(
        None, ge=1, description="latent: last blocks of a ViT that are averaged; null = half of them, or a CNN's map"
    )


class WatchConfig(Config):
    """What is looked at during pretraining, to see that it learns. No weight depends on it."""

    looks: int = Field(
        12, ge=0, description="times to look, spaced evenly in log steps, the last at the end; 0 = never look"
    )
    pictures: int = Field(4, ge=0, description="films to draw each time: input, visible, rebuilt; 0 = draw no sheet")
    baseline_films: int = Field(
        64, ge=0, description="films on which the loss of the mean and of an interpolation are found; 0 = find none"
    )
    rankme_films: int = Field(
        512, ge=0, description="films whose embeddings' effective rank (RankMe) is taken each time; 0 = take none"
    )


class ProbeConfig(Config):
    """Labelled films that the encoder is tried on whenever pretraining is looked at. It learns nothing from them."""

    labels: str | None = Field(
        None, description="CSV of labels, relative to probe.path: image, label columns; null = there are no labels"
    )
    target: str | None = Field(None, description="label column")
    path: str | None = Field(None, description="folder of the labelled films, or prepared dataset; null = data.path")
    neighbours: int = Field(20, ge=1, description="films that vote in the nearest-neighbour probe")
    limit: int | None = Field(2000, ge=1, description="learn from at most this many films, whole patients; null = all")
    val_fraction: Fraction = Field(
        0.2, description="share of patients to ask, where the labels have no split column; give finetune.py's"
    )
    test_fraction: Fraction = Field(
        0.2,
        description="share of patients never asked, where the labels have no split column; with finetune.py's "
        "data.val_fraction, data.test_fraction and data.split_seed these are its test",
    )
    split_seed: int = Field(0, ge=0, description="seed of that split")
