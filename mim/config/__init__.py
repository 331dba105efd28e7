"""Settings of the three doors: strict schema, YAML with dotted overrides, help, and errors of one line."""

from mim.config.base import Config
from mim.config.doors import DoorArguments, door, parse_door_arguments
from mim.config.explanations import ExplanationsConfig, MissingnessConfig
from mim.config.faithfulness import FaithfulnessConfig
from mim.config.fields import Block, Setting, list_blocks, list_settings
from mim.config.help import help_text
from mim.config.loading import dump_config, load_config
from mim.config.masker import MaskerConfig
from mim.config.schema import (
    SCHEMA_VERSION,
    AugmentConfig,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    EvaluateConfig,
    FinetuneConfig,
    InputConfig,
    LabelledDataConfig,
    MaskingConfig,
    OptimizerConfig,
    PretrainConfig,
    ProbeConfig,
    RunConfig,
    TargetConfig,
    TrackingConfig,
    TrainingConfig,
    UnlabelledDataConfig,
)
from mim.config.study import StudyConfig

__all__ = [
    "SCHEMA_VERSION",
    "AugmentConfig",
    "Block",
    "Config",
    "DataConfig",
    "DecoderConfig",
    "DoorArguments",
    "EncoderConfig",
    "EvaluateConfig",
    "ExplanationsConfig",
    "FaithfulnessConfig",
    "FinetuneConfig",
    "InputConfig",
    "LabelledDataConfig",
    "MaskerConfig",
    "MaskingConfig",
    "MissingnessConfig",
    "OptimizerConfig",
    "PretrainConfig",
    "ProbeConfig",
    "RunConfig",
    "Setting",
    "StudyConfig",
    "TargetConfig",
    "TrackingConfig",
    "TrainingConfig",
    "UnlabelledDataConfig",
    "door",
    "dump_config",
    "help_text",
    "list_blocks",
    "list_settings",
    "load_config",
    "parse_door_arguments",
]
