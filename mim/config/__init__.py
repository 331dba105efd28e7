"""Settings of the three doors: strict schema, YAML with dotted overrides, help, and errors of one line."""

from mim.config.base import SCHEMA_VERSION, Config
from mim.config.data import AugmentConfig, DataConfig, LabelledDataConfig, UnlabelledDataConfig
from mim.config.doors import DoorArguments, door, parse_door_arguments
from mim.config.evaluation import EvaluateConfig
from mim.config.explanations import ExplanationsConfig, MissingnessConfig
from mim.config.external import ExternalDataConfig
from mim.config.faithfulness import FaithfulnessConfig
from mim.config.fields import Block, Setting, list_blocks, list_settings
from mim.config.help import help_text
from mim.config.loading import dump_config, load_config
from mim.config.lora import LoraConfig
from mim.config.masker import MaskerConfig
from mim.config.pretraining import DecoderConfig, MaskingConfig, ProbeConfig, TargetConfig
from mim.config.schema import (
    EncoderConfig,
    FinetuneConfig,
    InputConfig,
    OptimizerConfig,
    PretrainConfig,
    RunConfig,
    TrackingConfig,
    TrainingConfig,
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
    "ExternalDataConfig",
    "FaithfulnessConfig",
    "FinetuneConfig",
    "InputConfig",
    "LabelledDataConfig",
    "LoraConfig",
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
