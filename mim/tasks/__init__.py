"""One class for each thing that is trained; each joins a masker and a model."""

from mim.models import MaskedImageModel
from mim.tasks.classification import MaskedClassifier
from mim.tasks.detection import MaskedDetector
from mim.tasks.feature_selection import MaskedFeatureClassifier
from mim.tasks.frozen import FrozenTokens, RebuildingError
from mim.tasks.mask_training import MaskTraining
from mim.tasks.score_sources import AttentionScore, ReconstructionError
from mim.tasks.segmentation import MaskedSegmenter
from mim.tasks.study import MaskedStudyClassifier

__all__ = [
    "AttentionScore",
    "FrozenTokens",
    "MaskTraining",
    "MaskedClassifier",
    "MaskedDetector",
    "MaskedFeatureClassifier",
    "MaskedImageModel",
    "MaskedSegmenter",
    "MaskedStudyClassifier",
    "RebuildingError",
    "ReconstructionError",
]
