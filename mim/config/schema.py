"""Every setting of the three doors, with its type, its default and what it means."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from mim.config.base import Config, Fraction, Share, Size
from mim.config.detection import DetectConfig
from mim.config.explanations import ExplanationsConfig, MissingnessConfig
from mim.config.faithfulness import FaithfulnessConfig
from mim.config.masker import MaskerConfig
from mim.config.study import StudyConfig

SCHEMA_VERSION: Final = 1

MaskPattern = Literal[
    "random", "block", "grid", "inverse_block", "multi_block", "foreground", "texture", "hard", "attention"
]


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
    target: str | None = Field(
        None,
        description="label column to learn; films where it is empty count as unlabelled; task=detect has "
        "none, it learns from data.boxes",
    )
    boxes: str | None = Field(
        None,
        description="COCO file of lesions, relative to data.path: boxes, and polygons or run lengths where it has them",
    )
    lesion_categories: tuple[str, ...] | None = Field(
        None, description="categories of data.boxes that are what is sought; null = all of them"
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


class InputConfig(Config):
    """What the network meets."""

    image_size: Size | None = Field(None, description="height and width in pixels; null = as in init, else 224 by 224")
    mean: float | None = Field(None, description="subtracted from pixels in [0, 1]; null = as in init, else 0.45")
    std: float | None = Field(
        None, gt=0, description="what the difference is divided by; null = as in init, else 0.225"
    )


class EncoderConfig(Config):
    """The backbone and how cells are hidden from it."""

    name: str = Field("vit_tiny_patch16_224", description="a timm model name")
    hidden: Literal["drop", "token", "sparse", "layer", "fill"] | None = Field(
        None,
        description="how cells are hidden: drop (ViT, Hiera) leaves them out, token (ViT, Swin) puts a mask token in "
        "their place, sparse and layer are for CNNs, fill replaces their pixels before any network, as a baseline; "
        "null = what the backbone can do, drop or sparse where it can",
    )
    fill: Literal["grey", "black", "mean", "blur"] | None = Field(
        None,
        description="hidden=fill: what hidden pixels are replaced by: grey = the mean of the normalisation; "
        "mean, blur = of the film's visible pixels; null = grey",
    )
    patch_size: int | None = Field(
        None, ge=1, description="side of a cell in pixels; null = the backbone's own, 32 for Swin and CNNs"
    )
    pretrained: bool = Field(
        False, description="start from timm's published weights (needs a network or a filled cache)"
    )
    weights: str | None = Field(
        None,
        description="file to start from (.safetensors, .pth, .pt, .bin): weights of timm, a checkpoint of MAE, SimMIM "
        "or SparK, encoder.safetensors of a run",
    )
    timm_args: dict[str, Any] = Field(default_factory=dict, description="further arguments of timm.create_model")


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


class OptimizerConfig(Config):
    """AdamW with layer-wise decay, warm-up and cosine."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate, used as it is (never scaled by the batch size)")
    min_lr: float = Field(1e-6, ge=0, description="learning rate at the end of the cosine")
    weight_decay: float = Field(0.05, ge=0, description="weight decay; norms, biases and embeddings are exempt")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.95), description="AdamW's betas")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="learning-rate factor from one layer of the encoder to the one below it"
    )
    warmup: Fraction = Field(0.05, description="share of all steps in which the learning rate rises from 0")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null = no clipping")
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="decay of the moving average of the weights that is exported; null = none"
    )


class TrainingConfig(Config):
    """How long, how much at a time, on what."""

    epochs: int = Field(100, ge=1, description="passes over the training films")
    max_steps: int | None = Field(None, ge=1, description="stop after this many steps, whatever the epochs say")
    batch_size: int = Field(64, ge=1, description="films a rank takes at a time")
    accumulate: int = Field(1, ge=1, description="batches a rank adds up before a step")
    precision: Literal["32-true", "bf16-mixed"] = Field("32-true", description="float32, or bfloat16 where it is safe")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="device; auto = a GPU where there is one")
    compile: bool = Field(
        False,
        description="compile the task's forward pass by torch.compile: minutes at the start; "
        "what it gains later has not been measured",
    )
    workers: int = Field(2, ge=0, description="processes that read and augment, a rank")
    max_skipped: int = Field(
        3, ge=0, description="steps in a row that may be skipped because loss or gradient is not finite; one more stops"
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="how many of the newest are kept")


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


class TrackingConfig(Config):
    """Where figures go. metrics.jsonl is always written."""

    tensorboard: bool = Field(True, description="write TensorBoard event files into the run")
    wandb: Literal["off", "offline", "online"] = Field(
        "offline", description="Weights & Biases; online is the only setting of mim that sends anything anywhere"
    )
    wandb_project: str = Field("mim", description="its project")


class RunConfig(Config):
    """What pretraining and fine-tuning have in common."""

    schema_version: Literal[1] = Field(SCHEMA_VERSION, description="version of this schema")
    output: str | None = Field(None, description="folder of the run; null = runs/<name of the YAML file>")
    seed: int = Field(0, ge=0, description="everything random follows from it")
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()
    tracking: TrackingConfig = TrackingConfig()


class PretrainConfig(RunConfig):
    """Settings of train.py: hide patches, rebuild them."""

    data: UnlabelledDataConfig = UnlabelledDataConfig()
    input: InputConfig = InputConfig()
    encoder: EncoderConfig = EncoderConfig()
    masking: MaskingConfig = MaskingConfig()
    decoder: DecoderConfig = DecoderConfig()
    target: TargetConfig = TargetConfig()
    watch: WatchConfig = WatchConfig()
    probe: ProbeConfig = ProbeConfig()


class FinetuneConfig(RunConfig):
    """Settings of finetune.py: a caries head behind an encoder, behind a masker."""

    task: Literal["classify", "study", "detect"] = Field(
        "classify",
        description="what has a label: classify = each film, study = each study of several films; detect = find boxes",
    )
    data: LabelledDataConfig = LabelledDataConfig()
    init: str | None = Field(
        None, description="run of train.py whose encoder is taken; null = start from scratch (or encoder.pretrained)"
    )
    init_weights: bool = Field(
        True, description="false = take only the architecture of init, with fresh weights (for comparisons)"
    )
    input: InputConfig = InputConfig()
    encoder: EncoderConfig | None = Field(None, description="null = as in init")
    masker: MaskerConfig = MaskerConfig()
    study: StudyConfig = StudyConfig()
    detect: DetectConfig = DetectConfig()
    class_weights: bool = Field(True, description="weigh the classes by their inverse frequency in the training films")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="label smoothing")
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="task=classify: focal = learn less from films that are classified well (Lin 2017)"
    )
    tuning: Literal["full", "probe", "last_blocks"] = Field(
        "full",
        description="task=classify: what of the encoder learns: all of it; nothing, only head and masker do; its last "
        "blocks",
    )
    tuned_blocks: int = Field(2, ge=1, description="tuning=last_blocks: how many")
    focal_gamma: float = Field(2.0, ge=0, description="loss=focal: how much less; 0 = cross entropy")
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        description="task=classify: balanced = as many training films of each class in each epoch, those of the rare "
        "one more than once; with class_weights=false",
    )


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
        None, description="where the films are now; null = where they were when the run was trained (its data.path)"
    )
    output: str | None = Field(
        None,
        description="where report.html, metrics.json and predictions.csv go; null = into the run, and of a comparison "
        "into a folder beside the second run",
    )
    bootstrap: int = Field(2000, ge=100, description="resamples of patients for the intervals")
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="level of the intervals")
    specificity: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.9, description="specificity at which the threshold is chosen on the validation films"
    )
    worst: int = Field(6, ge=0, description="worst errors of each kind to draw")
    batch_size: int = Field(64, ge=1, description="films at a time")
    accelerator: Literal["auto", "cpu", "cuda"] = Field("auto", description="device; auto = a GPU where there is one")
    seed: int = Field(0, ge=0, description="seed of the bootstrap, and of all else that is drawn")
    missingness: MissingnessConfig = MissingnessConfig()
    explanations: ExplanationsConfig = ExplanationsConfig()
    faithfulness: FaithfulnessConfig = FaithfulnessConfig()
