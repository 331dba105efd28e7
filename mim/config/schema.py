"""Settings of train.py and finetune.py, and what the two have in common."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mim.config.base import SCHEMA_VERSION, Config, Fraction, Size
from mim.config.data import AugmentConfig, DataConfig, LabelledDataConfig, UnlabelledDataConfig
from mim.config.detection import DetectConfig
from mim.config.lora import LoraConfig
from mim.config.masker import MaskerConfig
from mim.config.pretraining import DecoderConfig, MaskingConfig, ProbeConfig, TargetConfig, WatchConfig
from mim.config.segmentation import SegmentConfig
from mim.config.study import StudyConfig


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

    task: Literal["classify", "study", "detect", "segment"] = Field(
        "classify",
        description="what has a label: classify = each film, study = each study of several films; detect = find boxes; "
        "segment = find pixels",
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
    lora: LoraConfig = LoraConfig()
    segment: SegmentConfig = SegmentConfig()
    class_weights: bool = Field(True, description="weigh the classes by their inverse frequency in the training films")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="label smoothing")
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="task=classify: focal = learn less from films that are classified well (Lin 2017)"
    )
    tuning: Literal["full", "probe", "last_blocks", "lora"] = Field(
        "full",
        description="what of the encoder learns: full = all of it; probe = nothing, only head and masker do; "
        "last_blocks = its last blocks; lora = low-rank updates beside its weights, which stay",
    )
    tuned_blocks: int = Field(2, ge=1, description="tuning=last_blocks: how many")
    focal_gamma: float = Field(2.0, ge=0, description="loss=focal: how much less; 0 = cross entropy")
    sampling: Literal["natural", "balanced"] = Field(
        "natural",
        description="task=classify: balanced = as many training films of each class in each epoch, those of the rare "
        "one more than once; with class_weights=false",
    )
