"""The block on segmentation: masks image by image and lesion by lesion, the threshold, and groups of lesions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from mim.evaluation.bootstrap import mean_statistic
from mim.evaluation.figures import Figure
from mim.evaluation.measuring import as_json, measure, written
from mim.evaluation.metrics import FEW_PATIENTS, Settings, few_with_lesions
from mim.evaluation.section import Section, Table
from mim.evaluation.segmentation import (
    FOUND,
    RULES,
    EmptyTruth,
    Overlap,
    lesion_values,
    measure_overlaps,
    not_too_certain,
    overlap_statistics,
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
OF_IMAGE_GROUPS: Mapping[str, str] = {
    "dice": "Dice",
    "surface": "surface distance",
    "drawn_without_lesion": "share of those without in which something is drawn",
}
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
    image_columns: Mapping[str, Sequence[str]] | None = None,
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
        image_columns: Text to divide the images by.
    """
    figures = measure_overlaps(overlaps, patients, settings)
    lesions = sum(len(own.lesions) for own in overlaps)
    empty = sum(not own.lesions for own in overlaps)
    groups = lesion_strata(overlaps, patients, settings, columns or {}, unit) if columns is not None else []
    by_image = image_strata(overlaps, patients, settings, image_columns or {})
    text = f"{len(overlaps)} images with {lesions} lesions; {empty} images have none. {RULES[empty_truth]}"
    said = [] if threshold is None else [_describe(threshold)]
    return Section(
        name="segmentation",
        title="Segmentation of lesions",
        first_lines=_gaps(overlaps, patients, threshold),
        text=(text, *said, *describe_worst(groups, OF_GROUPS), *_of_images(describe_worst(by_image, OF_IMAGE_GROUPS))),
        tables=(
            _table(figures, tolerance, unit),
            *strata_tables(groups, OF_GROUPS),
            *_tables_of_images(by_image),
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
            **({"image_strata": strata_json(by_image)} if by_image else {}),
        },
        summary=tuple(say_figure(name, figures[name]) for name in ("dice", "lesion_dice", "lesions_found")),
    )


def _table(figures: Mapping[str, Figure], tolerance: float, unit: str) -> Table:
    rows = tuple((title, *written(figures[name])) for name, title in TITLES.items())
    note = (
        f"Borders within {tolerance:g} {unit} of each other count as met. What is drawn for a lesion is every "
        "connected part that touches it; a lesion that nothing touches has 0."
    )
    return Table("Masks on the test images", ("Figure", "value", "interval"), rows, note)


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


def image_strata(
    overlaps: Sequence[Overlap], patients: Sequence[str], settings: Settings, columns: Mapping[str, Sequence[str]]
) -> list[Stratum]:
    """Measure the groups of images by each column, the lowest Dice first.

    Args:
        overlaps: One an image.
        patients: Patient of each image.
        settings: How intervals are made.
        columns: Text to divide the images by.
    """
    empty = np.array([not own.lesions for own in overlaps], dtype=bool)
    names = [name for name in OF_IMAGE_GROUPS if name != "drawn_without_lesion" or empty.any()]

    def measured(rows: Rows, _: str) -> Measured:
        own = [overlaps[place] for place in np.flatnonzero(rows).tolist()]
        people = [patients[place] for place in np.flatnonzero(rows).tolist()]
        statistics = overlap_statistics(own)
        figures = measure({name: statistics[name] for name in names}, people, settings)
        counts = {"images with lesions": int((rows & ~empty).sum())}
        if empty.any():
            counts["without"] = int((rows & empty).sum())
            healthy = {patients[place] for place in np.flatnonzero(rows & empty).tolist()}
            drawn = not_too_certain(figures["drawn_without_lesion"], len(healthy), settings)
            figures = {**figures, "drawn_without_lesion": drawn}
        return Measured(counts, figures)

    return strata(columns, measured) if overlaps else []


def _tables_of_images(found: Sequence[Stratum]) -> tuple[Table, ...]:
    tables = strata_tables(found, OF_IMAGE_GROUPS)
    return tuple(replace(table, caption=f"Images {table.caption[:1].lower()}{table.caption[1:]}") for table in tables)


def _of_images(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"Images: {line[:1].lower()}{line[1:]}" for line in lines)


def _describe(threshold: Threshold) -> str:
    if threshold.value is None:
        return f"A pixel is drawn from a probability of {WITHOUT_CHOICE:g}: {threshold.reason}."
    return (
        f"A pixel is drawn from a probability of {threshold.value:g}, at which Dice of all validation pixels together, "
        "images without lesions among them, is best."
    )


def _gaps(overlaps: Sequence[Overlap], patients: Sequence[str], threshold: Threshold | None) -> tuple[str, ...]:
    lines = []
    sick = {patient for patient, own in zip(patients, overlaps, strict=True) if own.lesions}
    if not overlaps:
        lines.append("Segmentation: there are no test images.")
    elif not sick:
        lines.append(f"Segmentation: the {len(overlaps)} test images hold no lesion.")
    elif len(sick) < FEW_PATIENTS:
        lines.append(f"Segmentation: {few_with_lesions(len(sick))}")
    if threshold is not None and threshold.value is None:
        lines.append(f"Segmentation: no threshold could be chosen ({threshold.reason}); {WITHOUT_CHOICE:g} is taken.")
    return tuple(lines)


def say_figure(name: str, figure: Figure) -> str:
    """A figure of the test images in a line."""
    value, interval = written(figure)
    title = TITLES[name][:1].lower() + TITLES[name][1:] if name == "lesions_found" else TITLES[name]
    return f"test {title}: {f'none ({figure.reason})' if figure.value is None else f'{value} (interval {interval})'}"
