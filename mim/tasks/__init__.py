"""One class for each thing that is trained; each joins a masker and a model."""

from mim.models import MaskedImageModel
from mim.tasks.classification import MaskedClassifier, MaskTraining
from mim.tasks.feature_selection import MaskedFeatureClassifier
from mim.tasks.study import MaskedStudyClassifier

__all__ = ["MaskTraining", "MaskedClassifier", "MaskedFeatureClassifier", "MaskedImageModel", "MaskedStudyClassifier"]
