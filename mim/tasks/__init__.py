"""One class for each thing that is trained; each joins a masker and a model."""

from mim.tasks.classification import MaskedClassifier, MaskTraining
from mim.tasks.pretraining import MaskedImageModel

__all__ = ["MaskTraining", "MaskedClassifier", "MaskedImageModel"]
