"""Predictions as DICOM objects that reference the film they are of: structured reports and segmentations.

The optional packages of `mim[dicom]` are imported when something is written.
"""

from mim.evaluation.dicom_export.concepts import Concept, concept_of
from mim.evaluation.dicom_export.export import Exported, export_predictions
from mim.evaluation.dicom_export.results import Algorithm, FoundRegion, FrameResult, results_of
from mim.evaluation.dicom_export.source import UnfitSource, read_source

__all__ = [
    "Algorithm",
    "Concept",
    "Exported",
    "FoundRegion",
    "FrameResult",
    "UnfitSource",
    "concept_of",
    "export_predictions",
    "read_source",
    "results_of",
]
