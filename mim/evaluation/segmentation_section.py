"""The block on segmentation: masks image by image and lesion by lesion, the threshold, and groups of lesions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from mim.evaluation.bootstrap import mean_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section, Table
from mim.evaluation.segmentation import (
    FOUND,
    RULES,
    EmptyTruth,
    Overlap,
    lesion_values,
    measure_overlaps,
    not_too_certain,
)
from mim.evaluation.strata import Measured, Rows, Stratum, describe_worst, strata, strata_json, strata_tables
from mim.evaluation.threshold import Threshold

TITLES: Mapping[str, str] = {
    "dice": "Dice, mean over images",
    "surface": "Normalised surface distance, mean over images",
    "lesion_dice": "Dice, mean over lesions",
    "lesion_surface": "Normalised surface distance, mean over lesions",
    "lesions_found": f"Share of the lesions found (at least {FOUND:.0%} of the area drawn)",
    "lesions_touched": "Share of the lesions that are touched",
    "drawn_without_lesion": "Share of the images without lesions in which something is drawn",
    "false_parts": "Drawn parts that touch no lesion, an image",
}
OF_GROUPS: Mapping[str, str] = {"lesions_found": "share found", "lesion_dice": "Dice"}
WITHOUT_CHOICE = 0.5
"""The probability from which a pixel is drawn where no threshold could be chosen."""


def segmentation_section(
    overlaps: Sequence[Overlap],
    patients: Sequence[str],
    settings: Settings,
    *,
    tolerance: float,
    unit: str = "pixels",
    empty_truth: EmptyTruth = "skip",
    threshold: Threshold | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> Section:
    """Write the figures of masks for the report and for `metrics.json`.

    Args:
        overlaps: What `overlap` gave for each test image.
        patients: Patient of each image.
        settings: How intervals are made.
        tolerance: What they were measured with.
        unit: Unit of the tolerance.
        empty_truth: What they were measured with.
        threshold: The probability from which a pixel was drawn, chosen on the validation images; without a value it was
            one half. None = masks were given, and there is none.
        columns: Text to divide the lesions by, in their order.
    """
    figures = measure_overlaps(overlaps, patients, settings)
    lesions = sum(len(own.lesions) for own in overlaps)
    empty = sum(not own.lesions for own in overlaps)
    groups = lesion_strata(overlaps, patients, settings, columns or {}, unit) if columns is not None else []
    rows = tuple((title, *written(figures[name])) for name, title in TITLES.items())
    text = f"{len(overlaps)} images with {lesions} lesions; {empty} images have none. {RULES[empty_truth]}"
    note = (
        f"Borders within {tolerance:g} {unit} of each other count as met. What is drawn for a lesion is every "
        "connected part that touches it; a lesion that nothing touches has 0."
    )
    said = [] if threshold is None else [_describe(threshold)]
    return Section(
        name="segmentation",
        title="Segmentation of lesions",
        first_lines=_gaps(overlaps, lesions, threshold),
        text=(text, *said, *describe_worst(groups, OF_GROUPS)),
        tables=(
            Table("Masks on the test images", ("Figure", "value", "interval"), rows, note),
            *strata_tables(groups, OF_GROUPS),
        ),
        figures={
            "images": len(overlaps),
            "images_without_lesions": empty,
            "lesions": lesions,
            "tolerance": tolerance,
            "unit": unit,
            "empty_truth": empty_truth,
            **({} if threshold is None else {"threshold": {**asdict(threshold), "chosen_on": "val"}}),
            **{name: as_json(figures[name]) for name in TITLES},
            **({} if columns is None else {"strata": strata_json(groups)}),
        },
        summary=tuple(_say(name, figures[name]) for name in ("dice", "lesion_dice", "lesions_found")),
    )


def lesion_strata(
    overlaps: Sequence[Overlap],
    patients: Sequence[str],
    settings: Settings,
    columns: Mapping[str, Sequence[str]],
    unit: str = "pixels",
) -> list[Stratum]:
    """Measure the groups of lesions by size and by each further column.

    Args:
        overlaps: One an image.
        patients: Patient of each image.
        settings: How intervals are made.
        columns: Text to divide the lesions by, in their order.
        unit: Of the square root of an area, for the name of the column.
    """
    lesions = [lesion for own in overlaps for lesion in own.lesions]
    if not lesions:
        return []
    whose = np.repeat(np.array(patients, dtype=object), [len(own.lesions) for own in overlaps])
    values = lesion_values(lesions)
    by_size = {f"size, square {unit}": [str(lesion.area) for lesion in lesions]}

    def measured(rows: Rows, _: str) -> Measured:
        statistics = {name: mean_statistic(values[name][rows]) for name in OF_GROUPS}
        people = whose[rows].tolist()
        figures = measure(statistics, people, settings)
        found = not_too_certain(figures["lesions_found"], len(set(people)), settings)
        return Measured({"lesions": int(rows.sum())}, {**figures, "lesions_found": found})

    return strata({**by_size, **columns}, measured)


def _describe(threshold: Threshold) -> str:
    if threshold.value is None:
        return f"A pixel is drawn from a probability of {WITHOUT_CHOICE:g}: {threshold.reason}."
    return (
        f"A pixel is drawn from a probability of {threshold.value:g}, at which Dice of all validation pixels together, "
        "images without lesions among them, is best."
    )


def _gaps(overlaps: Sequence[Overlap], lesions: int, threshold: Threshold | None) -> tuple[str, ...]:
    lines = []
    if not overlaps:
        lines.append("Segmentation: there are no test images.")
    elif not lesions:
        lines.append(f"Segmentation: the {len(overlaps)} test images hold no lesion.")
    if threshold is not None and threshold.value is None:
        lines.append(f"Segmentation: no threshold could be chosen ({threshold.reason}); {WITHOUT_CHOICE:g} is taken.")
    return tuple(lines)


def _say(name: str, figure: Figure) -> str:
    value, interval = written(figure)
    title = TITLES[name][:1].lower() + TITLES[name][1:] if name == "lesions_found" else TITLES[name]
    return f"test {title}: {f'none ({figure.reason})' if figure.value is None else f'{value} (interval {interval})'}"
