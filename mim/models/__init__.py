"""What is done with the visible cells: encoders, decoders, targets, heads, weights."""

from mim.models.baselines import baseline_losses
from mim.models.create import create_encoder
from mim.models.decoders import create_decoder
from mim.models.encoder import Encoder, EncoderSpec
from mim.models.exported import build_encoder, export_encoder, load_encoder_weights, read_exported
from mim.models.features import Features
from mim.models.foreign import load_foreign_encoder, load_foreign_weights
from mim.models.heads import ClassificationHead
from mim.models.mae_checkpoint import load_mae_checkpoint
from mim.models.masked_image_model import MaskedImageModel
from mim.models.prediction import Prediction

__all__ = [
    "ClassificationHead",
    "Encoder",
    "EncoderSpec",
    "Features",
    "MaskedImageModel",
    "Prediction",
    "baseline_losses",
    "build_encoder",
    "create_decoder",
    "create_encoder",
    "export_encoder",
    "load_encoder_weights",
    "load_foreign_encoder",
    "load_foreign_weights",
    "load_mae_checkpoint",
    "read_exported",
]
