"""The block on segmentation where several classes are drawn apart: each class as alone, and the mean of the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mim.evaluation.class_means import CLASS_MEAN, defined_classes, mean_of_classes
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section, Table
from mim.evaluation.segmentation import EmptyTruth, not_too_certain, overlap_statistics
from mim.evaluation.segmentation_classes import SegmentedClasses
from mim.evaluation.segmentation_section import TITLES, say_figure, segmentation_section
from mim.evaluation.segmentation_table import SegmentedImages
from mim.evaluation.strata import FEW
from mim.evaluation.threshold import Threshold

SHOWN: Mapping[str, str] = {
    "dice": "Dice, images",
    "surface": "surface distance, images",
    "lesion_dice": "Dice, lesions",
    "lesion_surface": "surface distance, lesions",
    "lesions_found": "share found",
}
APART = (
    "Classes do not exclude each other: a pixel may be of several, or of none, so each class is a mask of its own with "
    "a threshold of its own, and an image without lesions of a class is one without lesions for that class."
)


def segmentation_classes_section(
    test: SegmentedClasses,
    settings: Settings,
    *,
    tolerance: float,
    thresholds: Sequence[Threshold],
    unit: str = "pixels",
    empty_truth: EmptyTruth = "skip",
) -> Section:
    """Write the figures of each class, and their means over the classes, for the report and for `metrics.json`.

    Args:
        test: The test images.
        settings: How intervals are made.
        tolerance: What they were measured with.
        thresholds: The probability from which a pixel was drawn, a class each.
        unit: Unit of the tolerance.
        empty_truth: What they were measured with.
    """
    how = {"tolerance": tolerance, "unit": unit, "empty_truth": empty_truth}
    sections = [_section(own, settings, at, how) for own, at in zip(test.images, thresholds, strict=True)]
    named = list(zip(test.classes, sections, strict=True))
    means = class_means(test, settings)
    return Section(
        name="segmentation_classes",
        title="Segmentation of lesions, class by class",
        first_lines=tuple(f"{name}: {line}" for name, one in named for line in one.first_lines),
        text=(APART, _missing(test), *(f"{name}: {line}" for name, one in named for line in one.text)),
        tables=(
            _overview(named, means),
            *(replace(table, caption=f"{name}: {table.caption}") for name, one in named for table in one.tables),
        ),
        figures={
            "images": len(test),
            **how,
            "mean": {name: as_json(figure) for name, figure in means.items()},
            "classes": [{"name": name, "figures": dict(one.figures)} for name, one in named],
        },
        summary=(
            *(f"{CLASS_MEAN}: {say_figure(name, means[name])}" for name in ("dice", "lesion_dice", "lesions_found")),
            *(f"{name}: {line}" for name, one in named for line in one.summary),
        ),
    )


def _section(images: SegmentedImages, settings: Settings, threshold: Threshold, how: Mapping[str, Any]) -> Section:
    return segmentation_section(
        images.overlaps,
        images.patient_id,
        settings,
        **how,
        threshold=threshold,
        columns=images.lesion_columns,
        image_columns=images.image_columns,
    )


def class_means(test: SegmentedClasses, settings: Settings) -> dict[str, Figure]:
    """Mean of each figure over the classes that have it, with intervals over patients."""
    each = [overlap_statistics(own.overlaps) for own in test.images]
    reasons = dict.fromkeys(TITLES, "no class has it on these images")
    figures = measure(mean_of_classes(each, len(test)), test.patient_id, settings, reasons=reasons)
    pairs = [pair for table in test.images for pair in zip(test.patient_id, table.overlaps, strict=True)]
    sick = {patient for patient, own in pairs if own.lesions}
    healthy = {patient for patient, own in pairs if not own.lesions}
    for name, whose in (("lesions_found", sick), ("lesions_touched", sick), ("drawn_without_lesion", healthy)):
        figures[name] = not_too_certain(figures[name], len(whose), settings)
    return figures


def _missing(test: SegmentedClasses) -> str:
    each = [overlap_statistics(own.overlaps) for own in test.images]
    known = defined_classes(each, "lesion_dice", len(test))
    if len(known) == len(test.classes):
        return "The mean of the classes weighs all of them alike, however many lesions they have."
    names = ", ".join(name for place, name in enumerate(test.classes) if place not in known)
    return f"The mean of the classes is over those that have a figure: no test image has a lesion of {names}."


def _overview(named: Sequence[tuple[str, Section]], means: Mapping[str, Figure]) -> Table:
    """One row a class, the smallest share found first, and the means."""
    heading = ["Class", "lesions"]
    for title in SHOWN.values():
        heading += [title, "interval"]
    found = [(one.figures["lesions_found"]["value"], name, one.figures) for name, one in named]
    found.sort(key=lambda row: (row[0] is None, row[0] or 0.0))
    rows = []
    for _, name, figures in found:
        cells = [name + (" †" if figures["lesions"] < FEW else ""), str(figures["lesions"])]
        for figure in SHOWN:
            cells += written(_figure(figures[figure]))
        rows.append(tuple(cells))
    cells = [CLASS_MEAN, str(sum(figures["lesions"] for *_, figures in found))]
    for figure in SHOWN:
        cells += written(means[figure])
    few = any(figures["lesions"] < FEW for *_, figures in found)
    note = f"† Fewer than {FEW} lesions: hardly more than an anecdote." if few else ""
    return Table("Classes on the test images, worst first", tuple(heading), (*rows, tuple(cells)), note)


def _figure(content: Mapping[str, Any]) -> Figure:
    return Figure(content["value"], content["low"], content["high"], content["reason"])
