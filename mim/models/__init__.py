"""What is done with the visible cells: encoders, decoders, targets, heads, weights."""

from mim.models.baselines import baseline_losses
from mim.models.create import create_encoder
from mim.models.decoders import create_decoder
from mim.models.encoder import Encoder, EncoderSpec
from mim.models.features import Features
from mim.models.heads import ClassificationHead
from mim.models.masked_image_model import MaskedImageModel
from mim.models.prediction import Prediction
from mim.models.weights import build_encoder, export_encoder, load_encoder_weights, read_exported

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
    "read_exported",
]
