"""How two runs of one kind are compared: from what was said of their test films to differences."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import (
    Detections,
    Header,
    Lesions,
    PairedDifference,
    Section,
    Settings,
    compare_predictions,
    detection_section,
    evaluate_predictions,
)
from mim.evaluation.detection_comparison import compare_detections
from mim.evaluation.detections import join
from mim.evaluation.metrics import FEW_PATIENTS, SCHEMA_VERSION, few_patients, few_with_lesions
from mim.files import write_atomically
from mim.stages.measured_detector import MeasuredDetector, measured_detector
from mim.stages.measured_labels import MeasuredLabels
from mim.stages.measured_run import FinishedRun, Measure, MeasuredRun, measured
from mim.stages.measured_segmenter import MeasuredSegmenter

OF_STUDIES = "Each row of this comparison is a study of several films: where the report says film, read study."
Side = MeasuredRun | MeasuredDetector | MeasuredLabels | MeasuredSegmenter
_SAME = 0.5  # pixels by which boxes of one lesion may differ


@dataclass(frozen=True, eq=False)
class Compared:
    """Two measured runs, and how they differ.

    Attributes:
        sides: the two.
        found: differences by figure.
        notes: what a reader must know first.
        counted: on how many films of how many patients, in words.
        save: writes the tables and, with the block of the comparison and warnings, metrics.json.
        titles: how the figures are called; None = as the report on one run calls them.
        summary: figures that are said on the terminal besides those of every comparison, with their names there.
    """

    sides: tuple[Side, Side]
    found: Mapping[str, PairedDifference]
    notes: tuple[str, ...]
    counted: str
    save: Callable[[Path, Section, list[str]], None]
    titles: Mapping[str, str] | None = None
    summary: Mapping[str, str] = field(default_factory=dict)


Compare = Callable[[tuple[FinishedRun, FinishedRun], EvaluateConfig, Measure], Compared]


def compare_scores(runs: tuple[FinishedRun, FinishedRun], config: EvaluateConfig, measure: Measure) -> Compared:
    """Compares two runs that give each film, or each study, a score.

    Raises:
        MimError: one cannot be evaluated, or they scored other films or studies, in one line.
    """
    first, second = (measured(run, config, measure) for run in runs)
    settings = settings_of(config)
    of_studies = second.run.settings.task == "study"
    found = compare_predictions(first.predictions, second.predictions, settings)

    def save(output: Path, section: Section, warnings: list[str]) -> None:
        metrics = evaluate_predictions(
            second.predictions,
            bootstrap=config.bootstrap,
            confidence=config.confidence,
            specificity=config.specificity,
            seed=config.seed,
        )
        first.predictions.save(output / "predictions_first.csv")
        second.predictions.save(output / "predictions_second.csv")
        further = [line for line in warnings if line not in metrics.warnings]  # these stand in it anyway
        metrics.save(output / "metrics.json", header_of(first, second), further, [section])

    test = second.predictions.of("test")
    counted = f"{len(test)} test {'studies' if of_studies else 'films'} of {len(set(test.patient_id))} patients"
    notes = (*([OF_STUDIES] if of_studies else []), *few_patients(test))
    return Compared((first, second), found, notes, counted, save)


def compare_boxes(runs: tuple[FinishedRun, FinishedRun], config: EvaluateConfig, measure: Measure) -> Compared:
    """Compares two detectors.

    Raises:
        MimError: one cannot be evaluated, or they searched other films or were measured against other lesions, in one
            line.
    """
    first, second = (measured_detector(run, config, measure) for run in runs)
    require_same_lesions(first, second)
    settings = settings_of(config)
    found = compare_detections(first.detections, second.detections, second.lesions, settings)

    def save(output: Path, section: Section, warnings: list[str]) -> None:
        own = detection_section(second.detections, second.lesions, settings)
        content = {
            "schema_version": SCHEMA_VERSION,
            "header": asdict(header_of(first, second)),
            "settings": asdict(settings),
            "blocks": {block.name: dict(block.figures) for block in (own, section)},
            "warnings": [*warnings, *own.first_lines],
        }
        first.detections.save(output / "detections_first.csv")
        second.detections.save(output / "detections_second.csv")
        second.lesions.save(output / "lesions.csv")
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(output / "metrics.json", text + "\n")

    test = second.detections.of("test")
    searched = join(second.detections, second.lesions).of("test")
    lesions, people = len(searched.lesions), len(set(searched.lesion_patient))
    notes = (few_with_lesions(people).capitalize(),) if 0 < people < FEW_PATIENTS else ()
    counted = f"{len(test)} test films of {len(set(test.patient_id))} patients with {lesions} lesions"
    return Compared((first, second), found, notes, counted, save)


def require_same_lesions(first: MeasuredDetector, second: MeasuredDetector) -> None:
    """Refuses detectors that were measured against other lesions on the test films.

    Raises:
        MimError: in one line.
    """
    one, other = (_lesions_of_test(side.detections, side.lesions) for side in (first, second))
    images = sorted(one.keys() | other.keys())
    differing = [image for image in images if not _alike(one.get(image, []), other.get(image, []))]
    if differing:
        raise MimError(
            f"{second.run.path}: {len(differing)} test films have other lesions than in {first.run.path} (such as "
            f"{differing[0]}); train and evaluate both on the same data.boxes"
        )


def settings_of(config: EvaluateConfig) -> Settings:
    """How intervals are made."""
    return Settings(config.bootstrap, config.confidence, config.specificity, config.seed)


def header_of(first: Side, second: Side) -> Header:
    """The header of the second run, which says what it was compared with."""
    content: dict[str, Any] = second.header
    header = Header(**{**content, "image_size": tuple(content["image_size"])})
    return replace(header, more={**header.more, "Compared with": f"checkpoint {first.header['checkpoint']}"})


def _lesions_of_test(detections: Detections, lesions: Lesions) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    found: dict[str, list[tuple[str, tuple[float, ...]]]] = {}
    test = set(detections.of("test").image_id)
    for image, label, box in zip(lesions.image_id, lesions.label, lesions.boxes.tolist(), strict=True):
        if image in test:
            found.setdefault(image, []).append((label, tuple(round(side, 1) for side in box)))
    return {image: sorted(own) for image, own in found.items()}


def _alike(one: list[tuple[str, tuple[float, ...]]], other: list[tuple[str, tuple[float, ...]]]) -> bool:
    return [label for label, _ in one] == [label for label, _ in other] and bool(
        np.allclose([box for _, box in one], [box for _, box in other], rtol=0, atol=_SAME)
    )
