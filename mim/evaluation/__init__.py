"""Figures with intervals, and a report that a clinician can read: from arrays, for any model."""

from mim.evaluation.admission import Admitted, admit
from mim.evaluation.calibration_section import calibration_section
from mim.evaluation.comparison import Difference, difference_over_seeds, paired_difference
from mim.evaluation.decision_curve import decision_section
from mim.evaluation.delong import DeLong
from mim.evaluation.detection import DetectionFigures, choose_detection_threshold, measure_detections
from mim.evaluation.detection_comparison import compare_detections
from mim.evaluation.detection_report import DetectionErrors, FilmErrors, find_errors, write_detection_report
from mim.evaluation.detection_section import detection_section
from mim.evaluation.detections import Detections, Lesions, Searched
from mim.evaluation.faithfulness import Comparisons, Faithfulness, WayScores, compare_ways
from mim.evaluation.faithfulness_section import make_section as make_faithfulness_section
from mim.evaluation.figures import Confusion, Figure, SplitMetrics
from mim.evaluation.froc import HitRule
from mim.evaluation.header import Header
from mim.evaluation.intervals import Intervals, auroc_difference, auroc_figures
from mim.evaluation.leakage import Evaluator, Leakage
from mim.evaluation.lesion_recall import PlacedLesions, Recall, lesion_recall
from mim.evaluation.loss_plot import loss_picture
from mim.evaluation.metrics import Metrics, Settings, evaluate_predictions
from mim.evaluation.operating_points import operating_points_section
from mim.evaluation.paired import PairedDifference, compare_predictions, comparison_section
from mim.evaluation.pictures import Case, Reconstruction, film_picture, mask_picture, reconstruction_picture
from mim.evaluation.predictions import Predictions
from mim.evaluation.probe import linear_probe, nearest_neighbours, rankme
from mim.evaluation.recall_section import mask_section
from mim.evaluation.report import write_report
from mim.evaluation.section import Picture, Plot, Section, Table
from mim.evaluation.segmentation import Overlap, measure_overlaps, overlap
from mim.evaluation.segmentation_classes import SegmentedClasses
from mim.evaluation.segmentation_report import FilmMasks, write_segmentation_report
from mim.evaluation.segmentation_section import segmentation_section
from mim.evaluation.segmentation_table import SegmentedImages
from mim.evaluation.segmentation_threshold import PixelCounts
from mim.evaluation.strata import Measured, Stratum
from mim.evaluation.strata_section import strata_section
from mim.evaluation.threshold import Threshold, choose_threshold, choose_worst

__all__ = [
    "Admitted",
    "Case",
    "Comparisons",
    "Confusion",
    "DeLong",
    "DetectionErrors",
    "DetectionFigures",
    "Detections",
    "Difference",
    "Evaluator",
    "Faithfulness",
    "Figure",
    "FilmErrors",
    "FilmMasks",
    "Header",
    "HitRule",
    "Intervals",
    "Leakage",
    "Lesions",
    "Measured",
    "Metrics",
    "Overlap",
    "PairedDifference",
    "Picture",
    "PixelCounts",
    "PlacedLesions",
    "Plot",
    "Predictions",
    "Recall",
    "Reconstruction",
    "Searched",
    "Section",
    "SegmentedClasses",
    "SegmentedImages",
    "Settings",
    "SplitMetrics",
    "Stratum",
    "Table",
    "Threshold",
    "WayScores",
    "admit",
    "auroc_difference",
    "auroc_figures",
    "calibration_section",
    "choose_detection_threshold",
    "choose_threshold",
    "choose_worst",
    "compare_detections",
    "compare_predictions",
    "compare_ways",
    "comparison_section",
    "decision_section",
    "detection_section",
    "difference_over_seeds",
    "evaluate_predictions",
    "film_picture",
    "find_errors",
    "lesion_recall",
    "linear_probe",
    "loss_picture",
    "make_faithfulness_section",
    "mask_picture",
    "mask_section",
    "measure_detections",
    "measure_overlaps",
    "nearest_neighbours",
    "operating_points_section",
    "overlap",
    "paired_difference",
    "rankme",
    "reconstruction_picture",
    "segmentation_section",
    "strata_section",
    "write_detection_report",
    "write_report",
    "write_segmentation_report",
]
