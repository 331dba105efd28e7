"""One class for each thing that is trained; each joins a masker and a model."""

from mim.models import MaskedImageModel
from mim.tasks.classification import MaskedClassifier, MaskTraining
from mim.tasks.score_sources import AttentionScore, ReconstructionError

__all__ = ["AttentionScore", "MaskTraining", "MaskedClassifier", "MaskedImageModel", "ReconstructionError"]
