"""The block on detection: COCO's figures, the FROC curve, the operating point, and groups of lesions."""

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from mim.evaluation.coco import SIZES
from mim.evaluation.curves import NEGATIVE, POSITIVE, draw_plot
from mim.evaluation.detection import (
    OPERATING_RATE,
    RULES,
    DetectionFigures,
    choose_detection_threshold,
    measure_detections,
)
from mim.evaluation.detections import Detections, Lesions, join
from mim.evaluation.froc import HitRule
from mim.evaluation.measuring import as_json, written
from mim.evaluation.metrics import FEW_PATIENTS, Settings, few_with_lesions, without_width
from mim.evaluation.section import Plot, Section, Table
from mim.evaluation.strata import describe_worst, strata_json, strata_tables

TITLES: Mapping[str, str] = MappingProxyType(
    {
        "lesion_sensitivity": "Share of the lesions found",
        "false_positives_per_image": "False positives an image",
        "lesion_free_images_without_marks": "Share of the lesion-free images without a mark",
    }
)
FROC_NOTE = (
    "A mark that hits a lesion which was found already counts neither for nor against; images without lesions count. "
    "Intervals read the threshold anew in each resample. The score is the mean sensitivity on straight lines between "
    "the points of the curve."
)


def detection_section(
    detections: Detections,
    lesions: Lesions,
    settings: Settings,
    *,
    trained_on: Collection[str] = (),
    rules: Mapping[str, HitRule] = RULES,
    rate: float = OPERATING_RATE,
    sizes: Mapping[str, tuple[float, float]] = SIZES,
) -> Section:
    """Measure a detector on the test images and write it for the report and for `metrics.json`.

    Args:
        detections: Validation and test images with what was found.
        lesions: What is there.
        settings: How intervals are made.
        trained_on: Patients whose images the model was trained on; theirs are left out.
        rules: When a mark hits a lesion; the first is that of the operating point.
        rate: False positives an image at which the threshold is chosen on the validation images.
        sizes: Least and largest area of each size, in square pixels.

    Raises:
        MimError: Lesions of images that were not searched.
    """
    searched = join(detections, lesions, trained_on)
    threshold = choose_detection_threshold(searched.of("val"), rule=next(iter(rules.values())), rate=rate)
    figures = measure_detections(searched.of("test"), threshold, settings, rules=rules, sizes=sizes)
    return Section(
        name="detection",
        title="Detection of lesions",
        first_lines=(*searched.warnings, *_gaps(figures)),
        text=(_describe(figures), *describe_worst(figures.strata, {"sensitivity": "sensitivity"})),
        tables=_tables(figures, rate),
        plots=_plots(figures),
        figures=_json(figures, rate),
        summary=_summary(figures),
    )


def _gaps(figures: DetectionFigures) -> tuple[str, ...]:
    if not figures.images:
        return ("Detection: there are no test images.",)
    lines = []
    if not figures.lesions:
        lines.append(
            f"Detection: the {figures.images} test images hold no lesion: there is no AP, recall or sensitivity, "
            "only false positives."
        )
    if figures.threshold.value is None:
        lines.append(f"Detection: no threshold: {figures.threshold.reason}.")
    return (*lines, *_doubts(figures))


def _doubts(figures: DetectionFigures) -> Iterator[str]:
    """Say what makes the figures less certain than they look."""
    if 0 < figures.lesion_patients < FEW_PATIENTS:
        yield f"Detection: {few_with_lesions(figures.lesion_patients)}"
    ap50 = figures.coco["ap50"]
    if ap50.value is not None and ap50.low is not None and ap50.low == ap50.high:
        yield f"Detection: AP50 is {without_width(ap50.value)}."


def _describe(figures: DetectionFigures) -> str:
    return (
        f"{figures.lesions} lesions in {figures.images} test images of {figures.patients} patients; "
        f"{figures.lesion_free} images have none."
    )


def _tables(figures: DetectionFigures, rate: float) -> tuple[Table, ...]:
    titles = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar": "AR"}
    rows = [
        (titles.get(name, f"AR, {name.removeprefix('ar_')}"), *written(figure)) for name, figure in figures.coco.items()
    ]
    tables = [Table("COCO's figures on the test images", ("Figure", "value", "interval"), tuple(rows))]
    for own in figures.froc.values():
        lines = [
            (f"{at:g}", "–" if threshold is None else f"{threshold:.3f}", *written(figure))
            for at, threshold, figure in zip(own.rates, own.thresholds, own.sensitivity, strict=True)
        ]
        lines.append(("score", "–", *written(own.score)))
        heading = ("False positives an image", "threshold", "sensitivity", "interval")
        tables.append(Table(f"FROC, hit: {own.rule.title}", heading, tuple(lines), FROC_NOTE))
    if figures.threshold.value is not None:
        at = [(TITLES[name], *written(figure)) for name, figure in figures.at_threshold.items()]
        caption = (
            f"At the threshold {figures.threshold.value:.3f}, with at most {rate:g} false positives a validation image"
        )
        tables.append(Table(caption, ("Figure", "value", "interval"), tuple(at)))
    return (*tables, *strata_tables(figures.strata, {"sensitivity": "sensitivity"}))


def _plots(figures: DetectionFigures) -> tuple[Plot, ...]:
    curves = [own for own in figures.froc.values() if len(own.curve.thresholds)]
    if not curves or not figures.lesions:
        return ()
    caption = "FROC curve of the test images: share of the lesions found against false positives an image."

    def draw(axes: Axes) -> None:
        styles = ((POSITIVE, "-", 2.2), (NEGATIVE, "--", 1.6))
        for number, own in enumerate(curves):
            colour, line, width = styles[number % len(styles)]
            across = np.r_[own.curve.false_positives, max(8.0, own.curve.false_positives[-1])]
            up = np.r_[own.curve.sensitivity, own.curve.sensitivity[-1]]
            label = f"hit: {own.rule.title}"
            axes.plot(across, up, drawstyle="steps-post", color=colour, linestyle=line, linewidth=width, label=label)
        axes.set_xscale("log", base=2)
        axes.set(xlim=(0.1, 9), ylim=(-0.01, 1.01), xlabel="false positives an image", ylabel="share of lesions found")
        axes.set_xticks(list(curves[0].rates), [f"{rate:g}" for rate in curves[0].rates])
        axes.grid(visible=True)

    return (Plot(draw_plot("froc", draw, caption, size=(7.2, 3.8), below=-0.2), caption, "band"),)


def _json(figures: DetectionFigures, rate: float) -> dict[str, object]:
    return {
        "images": figures.images,
        "lesion_free_images": figures.lesion_free,
        "patients": figures.patients,
        "lesions": figures.lesions,
        "coco": {name: as_json(figure) for name, figure in figures.coco.items()},
        "froc": {
            name: {
                "iou": own.rule.iou,
                "score": as_json(own.score),
                "rates": [
                    {"false_positives_per_image": at, "threshold": threshold, "sensitivity": as_json(figure)}
                    for at, threshold, figure in zip(own.rates, own.thresholds, own.sensitivity, strict=True)
                ],
            }
            for name, own in figures.froc.items()
        },
        "threshold": {
            "value": figures.threshold.value,
            "chosen_on": "val",
            "false_positives_per_image": rate,
            "reason": figures.threshold.reason,
        },
        "at_threshold": {name: as_json(figure) for name, figure in figures.at_threshold.items()},
        "strata": strata_json(figures.strata),
    }


def _summary(figures: DetectionFigures) -> tuple[str, ...]:
    lines = []
    for title, figure in (("AP50", figures.coco["ap50"]), ("FROC score", next(iter(figures.froc.values())).score)):
        value, interval = written(figure)
        none = f"none ({figure.reason})"
        lines.append(f"test {title}: {none if figure.value is None else f'{value} (interval {interval})'}")
    return tuple(lines)
