"""`report.html`: one file that asks nobody for anything, for screens, dark rooms and paper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mim.evaluation.curves import precision_recall_plot, roc_plot, score_histogram
from mim.evaluation.embedding import data_uri
from mim.evaluation.figures import FIGURES, Figure
from mim.evaluation.header import Header
from mim.evaluation.metrics import Metrics
from mim.evaluation.page import render_page
from mim.evaluation.pictures import Case, Reconstruction, reconstruction_picture
from mim.evaluation.predictions import Predictions
from mim.evaluation.section import Picture, Plot, Section
from mim.evaluation.viewer import script, script_hash, viewer_of
from mim.files import write_atomically

NO_RECONSTRUCTIONS = "None are shown: no decoder from pretraining was given with this model."

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "auroc": "Chance that a positive film scores above a negative one; 0.5 is guessing.",
        "auroc_delong": "The same area, its interval from DeLong's formula; films of one patient count as one draw.",
        "auprc": "Average precision over all thresholds; compare with the prevalence.",
        "sensitivity": "Share of the positive films that are called positive at the threshold.",
        "specificity": "Share of the negative films that are called negative at the threshold.",
        "ppv": "Share of the films called positive that are; it falls where the sick are rare.",
        "npv": "Share of the films called negative that are; it rises where the sick are rare.",
        "f1": "Harmonic mean of sensitivity and positive predictive value.",
        "accuracy": "Share of all films that are called rightly at the threshold.",
        "brier": "Mean squared error of the score as a probability; smaller is better.",
        "prevalence": "Share of the films that are positive.",
        "keep_rate": "Mean share of each film that the network was allowed to see.",
        "keep_rate_auroc": "Far from 0.5, the amount seen alone would give the label away.",
    }
)


def write_report(
    folder: Path,
    metrics: Metrics,
    predictions: Predictions,
    cases: Sequence[Case],
    reconstructions: Sequence[Reconstruction],
    header: Header,
    warnings: Sequence[str] = (),
    *,
    sections: Sequence[Section] = (),
    why_no_reconstructions: str = NO_RECONSTRUCTIONS,
) -> Path:
    """Write `report.html` into a folder.

    Args:
        folder: Where; made where it is missing.
        metrics: What `evaluate_predictions` gave for `predictions`.
        predictions: The films behind the curves.
        cases: The worst errors, worst first: positives are shown as false negatives, negatives as false positives.
        reconstructions: Films rebuilt from a part; may be empty.
        header: What the figures belong to.
        warnings: Sentences to show at the top, before those of `metrics`.
        sections: Further blocks, after the curves.
        why_no_reconstructions: What is said where there are none.

    Returns:
        The file written.

    Raises:
        MimError: A case or reconstruction that cannot be drawn.
    """
    predictions = predictions.scored
    test = predictions.of("test")
    plots, no_plots = _plots(metrics, test, predictions.of("val"))
    viewer = viewer_of(cases, metrics.test.confusion)
    page = render_page(
        "report.html.jinja",
        header=header,
        metrics=metrics,
        warnings=[*warnings, *metrics.warnings],
        confidence=f"{metrics.settings.confidence * 100:g} %",
        operating_point=_operating_point(metrics),
        about=_about(metrics, header),
        rows=_rows(metrics),
        no_confusion=metrics.threshold.reason or "there are no test films",
        plots=plots,
        no_plots=no_plots,
        sections=sections,
        viewer=viewer,
        script=script() if viewer.cases else "",
        script_source=f"'{script_hash(script())}'" if viewer.cases else "'none'",
        sheet=reconstruction_sheet(reconstructions),
        why_no_reconstructions=why_no_reconstructions,
    )
    path = folder / "report.html"
    write_atomically(path, page)
    return path


def _operating_point(metrics: Metrics) -> str:
    """Say in words what happens at the threshold."""
    if metrics.threshold.value is None:
        return f"No threshold could be chosen: {metrics.threshold.reason}."
    confidence = f"{metrics.settings.confidence * 100:g} % interval"
    parts = []
    for name in ("sensitivity", "specificity"):
        figure = metrics.test.figures[name]
        if figure.value is not None:
            between = "" if figure.low is None else f" ({confidence} {figure.low:.3f} to {figure.high:.3f})"
            parts.append(f"{name} {figure.value:.3f}{between}")
    asked = f"chosen on the validation films for a specificity of at least {metrics.settings.specificity:g}"
    return f"At the threshold {metrics.threshold.value:.3f}, {asked}: {' and '.join(parts) or 'no figures'}."


def _about(metrics: Metrics, header: Header) -> list[tuple[str, str]]:
    lines = [("Target", f"{header.target} (positive = 1)")]
    for title, name, split in (("Test", "test", metrics.test), ("Validation", "val", metrics.val)):
        counted = (split.films, split.patients, split.positives)
        lines.append((f"{title} films", _counted(*counted, header.lesions.get(name))))
    if header.trained_on:
        own = header.trained_on
        lines.append(("Training films", _counted(own["films"], own["patients"], own["positives"], None)))
    return [
        *lines,
        *header.copies(),
        *header.identity(),
    ]


def _counted(films: int, patients: int, positives: int, lesions: int | None) -> str:
    prevalence = f" (prevalence {positives / films:.3f})" if films else ""
    marked = "" if lesions is None else f"; {lesions} marked {'lesion' if lesions == 1 else 'lesions'}"
    return f"{films} of {patients} patients: {positives} positive, {films - positives} negative{prevalence}{marked}"


def _rows(metrics: Metrics) -> list[dict[str, str | Figure]]:
    return [
        {
            "title": definition.title,
            "test": metrics.test.figures[name],
            "val": metrics.val.figures[name],
            "meaning": MEANINGS[name],
        }
        for name, definition in FIGURES.items()
    ]


def _plots(metrics: Metrics, test: Predictions, val: Predictions) -> tuple[list[Plot], list[str]]:
    """Draw the plots that the test films allow, and say why the others are missing."""
    threshold = metrics.threshold.value
    marked = (
        "" if threshold is None else f" The marks are at the threshold {threshold:.3f} chosen on the validation films."
    )
    auroc, precision = metrics.test.figures["auroc"], metrics.test.figures["auprc"]
    plots: list[Plot] = []
    missing: list[str] = []
    if auroc.value is None or precision.value is None:
        missing.append(f"There are no ROC and precision-recall curves: {auroc.reason}.")
    else:
        roc = f"ROC curve of the test films: AUROC {auroc.value:.3f}.{marked}"
        pr = f"Precision-recall curve of the test films: AUPRC {precision.value:.3f}.{marked}"
        plots.append(Plot(roc_plot(test, val, threshold, roc), roc))
        plots.append(Plot(precision_recall_plot(test, val, threshold, pr), pr))
    if metrics.test.films:
        spread = "Scores of the test films by class."
        plots.append(Plot(score_histogram(test, threshold, spread), spread, "band"))
    else:
        missing.append("There is no histogram of scores: there are no test films.")
    return plots, missing


def reconstruction_sheet(reconstructions: Sequence[Reconstruction]) -> Picture | None:
    """Draw films one a row: input, what was visible, and what was rebuilt from it; None where there are none."""
    if not reconstructions:
        return None
    caption = f"{len(reconstructions)} films, one a row: input, what was visible, and what was rebuilt from it."
    content = reconstruction_picture(reconstructions)
    return Picture(data_uri(content), f"Sheet of reconstructions. {caption}", *_png_size(content), caption=caption)


def _png_size(content: bytes) -> tuple[int, int]:
    """Width and height from a PNG's first chunk."""
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
