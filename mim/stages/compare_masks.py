"""How two segmenters are compared."""

import json
from dataclasses import asdict
from pathlib import Path

from mim.config import EvaluateConfig
from mim.errors import MimError
from mim.evaluation import Section
from mim.evaluation.metrics import SCHEMA_VERSION
from mim.evaluation.segmentation_comparison import compare_segmentations, comparison_titles, drawn_by_both
from mim.evaluation.segmentation_section import WITHOUT_CHOICE
from mim.files import write_atomically
from mim.stages.comparisons import Compared, header_of, settings_of
from mim.stages.evaluate_segmentation import section_on
from mim.stages.measured_run import FinishedRun, Measure
from mim.stages.measured_segmenter import MeasuredSegmenter, measured_segmenter


def compare_masks(runs: tuple[FinishedRun, FinishedRun], config: EvaluateConfig, measure: Measure) -> Compared:
    """Compares two segmenters.

    Raises:
        MimError: one cannot be evaluated, or they were measured with other settings or against other lesions, in one
            line.
    """
    first, second = (measured_segmenter(run, config, measure) for run in runs)
    settings = settings_of(config)
    try:
        found = compare_segmentations(first.images, second.images, settings)
    except MimError as error:
        raise MimError(f"{second.run.path}: {error} as {first.run.path} (data.boxes, segment.boxes)") from error

    def save(output: Path, section: Section, warnings: list[str]) -> None:
        own = section_on(second.images.of("test"), second.thresholds, config)
        content = {
            "schema_version": SCHEMA_VERSION,
            "header": asdict(header_of(first, second)),
            "settings": asdict(settings),
            "blocks": {block.name: dict(block.figures) for block in (own, section)},
            "warnings": [*warnings, *own.first_lines],
        }
        first.images.save(output / "segmentation_first.csv")
        second.images.save(output / "segmentation_second.csv")
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
        write_atomically(output / "metrics.json", text + "\n")

    _, test = drawn_by_both(first.images, second.images)
    lesions = sum(len(own.lesions) for table in test.images for own in table.overlaps)
    counted = f"{len(test)} test films of {len(set(test.patient_id))} patients with {lesions} lesions"
    notes = tuple(note for side in (first, second) for note in _without_choice(side))
    return Compared((first, second), found, notes, counted, save, comparison_titles(test.classes))


def _without_choice(side: MeasuredSegmenter) -> list[str]:
    """What a reader must know of masks whose threshold was not chosen."""
    return [
        f"{side.run.path.name}: the pixels of {name} are drawn from {WITHOUT_CHOICE:g} ({threshold.reason})."
        for name, threshold in zip(side.images.classes, side.thresholds, strict=True)
        if threshold.value is None
    ]
