"""Figures with intervals, and a report that a clinician can read: from arrays, for any model."""

from mim.evaluation.comparison import Difference, difference_over_seeds, paired_difference
from mim.evaluation.faithfulness import Comparisons, Faithfulness, WayScores, compare_ways
from mim.evaluation.faithfulness_section import make_section as make_faithfulness_section
from mim.evaluation.figures import Confusion, Figure, SplitMetrics
from mim.evaluation.header import Header
from mim.evaluation.intervals import Intervals, auroc_difference, auroc_figures
from mim.evaluation.leakage import Evaluator, Leakage
from mim.evaluation.lesion_recall import Lesions, Recall, lesion_recall
from mim.evaluation.loss_plot import loss_picture
from mim.evaluation.metrics import Metrics, evaluate_predictions
from mim.evaluation.pictures import Case, Reconstruction, film_picture, mask_picture, reconstruction_picture
from mim.evaluation.predictions import Predictions
from mim.evaluation.probe import linear_probe, nearest_neighbours, rankme
from mim.evaluation.report import write_report
from mim.evaluation.section import Picture, Plot, Section, Table
from mim.evaluation.threshold import Threshold, choose_threshold, choose_worst

__all__ = [
    "Case",
    "Comparisons",
    "Confusion",
    "Difference",
    "Evaluator",
    "Faithfulness",
    "Figure",
    "Header",
    "Intervals",
    "Leakage",
    "Lesions",
    "Metrics",
    "Picture",
    "Plot",
    "Predictions",
    "Recall",
    "Reconstruction",
    "Section",
    "SplitMetrics",
    "Table",
    "Threshold",
    "WayScores",
    "auroc_difference",
    "auroc_figures",
    "choose_threshold",
    "choose_worst",
    "compare_ways",
    "difference_over_seeds",
    "evaluate_predictions",
    "film_picture",
    "lesion_recall",
    "linear_probe",
    "loss_picture",
    "make_faithfulness_section",
    "mask_picture",
    "nearest_neighbours",
    "paired_difference",
    "rankme",
    "reconstruction_picture",
    "write_report",
]
