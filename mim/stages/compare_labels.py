"""Comparison of two runs of more than two classes, of grades, or of several labels."""

import json
from dataclasses import asdict
from pathlib import Path

from mim.config import EvaluateConfig
from mim.evaluation import Section
from mim.evaluation.class_metrics import describe_gaps, describe_giveaways, measure_labels
from mim.evaluation.label_comparison import compare_labels as differences_of
from mim.evaluation.label_comparison import figure_titles
from mim.evaluation.label_questions import MOST_SHOWN
from mim.evaluation.label_report import NO_ONE_THRESHOLD
from mim.evaluation.label_section import labels_section
from mim.evaluation.metrics import SCHEMA_VERSION
from mim.files import write_atomically
from mim.stages.comparisons import Compared, header_of, settings_of
from mim.stages.measured_labels import measured_labels
from mim.stages.measured_run import FinishedRun, Measure


def compare_labels(runs: tuple[FinishedRun, FinishedRun], config: EvaluateConfig, measure: Measure) -> Compared:
    """Compares two runs that give each film a score for each class, grade or label.

    Raises:
        MimError: one cannot be evaluated, or they scored other films, in one line.
    """
    first, second = (measured_labels(run, config, measure) for run in runs)
    settings = settings_of(config)
    found = differences_of(first.predictions, second.predictions, settings)
    metrics = measure_labels(second.predictions, settings)

    def save(output: Path, section: Section, warnings: list[str]) -> None:
        own = labels_section(metrics, second.predictions)
        content = {
            "schema_version": SCHEMA_VERSION,
            "header": asdict(header_of(first, second)),
            "settings": asdict(settings),
            "threshold": {"value": None, "chosen_on": "val", "reason": NO_ONE_THRESHOLD},
            "blocks": {block.name: dict(block.figures) for block in (own, section)},
            "warnings": [*warnings, *describe_giveaways(metrics)],
        }
        first.predictions.save(output / "predictions_first.csv")
        second.predictions.save(output / "predictions_second.csv")
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(output / "metrics.json", text + "\n")

    test = second.predictions.of("test")
    counted = f"{len(test)} test films of {len(set(test.patient_id))} patients"
    titles = figure_titles(second.predictions)
    said = {"mean_auroc": "mean AUROC", "kappa": "kappa (quadratic weights)", "mae": "mean error in grades"}
    said |= {f"auroc: {name}": titles[f"auroc: {name}"] for name in second.predictions.questions[:MOST_SHOWN]}
    return Compared((first, second), found, tuple(describe_gaps(metrics)), counted, save, titles, said)
