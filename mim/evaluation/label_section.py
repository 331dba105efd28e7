"""The block of the report on more than two classes, on grades, and on several labels."""

from collections.abc import Sequence

from mim.evaluation.class_metrics import TITLES, LabelMetrics, Question, describe_gaps, describe_giveaways
from mim.evaluation.confusion_plot import MOST, confusion_plot
from mim.evaluation.curves import roc_plot
from mim.evaluation.figures import Figure
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_questions import MOST_SHOWN
from mim.evaluation.measuring import written
from mim.evaluation.section import Plot, Section, Table
from mim.evaluation.strata import FEW

HEADINGS = {"classes": "Class against the rest", "ordered": "Grade or worse", "several": "Label"}
ASKED = {
    "classes": "Each class is measured against all others. A film is called the class with the highest score.",
    "ordered": "The order of the grades is cut at each place: this grade or a worse one, against the milder ones. A "
    "film is called the median of the grades that its scores speak for.",
    "several": "Each label is measured for itself, on the films of which it is known.",
}
MEAN = (
    "The mean AUROC is over the rows that have an AUROC. A resample that holds no film of one of them defines no mean "
    "and is left out of its interval."
)
AT_THRESHOLD = "Each threshold was chosen on the validation films, for a specificity of at least {:g}."


def labels_section(metrics: LabelMetrics, predictions: LabelPredictions) -> Section:
    """Give tables, curves and the confusion matrix, for the report and for `metrics.json`.

    Args:
        metrics: What `measure_labels` gave.
        predictions: Of what.
    """
    overall = metrics.overall
    rows = tuple((TITLES[name], *written(overall[name])) for name in TITLES if name in overall)
    reasons = sorted({reason for figure in overall.values() if figure.value is None and (reason := figure.reason)})
    tables = [
        Table("All test films", ("Figure", "value", "interval"), rows, MEAN),
        _questions_table(metrics),
        _thresholds_table(metrics),
    ]
    plots = _curves(metrics, predictions)
    text = [ASKED[metrics.kind], *(f"Not all could be computed: {reason}." for reason in reasons)]
    if metrics.confusion is not None:
        caption = "Test films by what they are (rows) and what they are called (columns)."
        cells = tuple(
            (name, *(str(count) for count in row)) for name, row in zip(metrics.names, metrics.confusion, strict=True)
        )
        tables.append(Table(f"{caption[:-1]}, counted", ("", *metrics.names), cells))
        if len(metrics.names) <= MOST:
            plots.insert(0, Plot(confusion_plot(metrics.confusion, metrics.names, caption), caption, "band"))
    return Section(
        name="labels",
        title=f"Figures by {'label' if metrics.kind == 'several' else 'class'}",
        first_lines=(*describe_gaps(metrics), *describe_giveaways(metrics)),
        text=tuple(text),
        tables=tuple(tables),
        plots=tuple(plots),
        figures=metrics.to_json(),
        summary=tuple(_summary(metrics)),
    )


def left_out_section(names: Sequence[str]) -> Section:
    """Say which blocks of a report on two classes this one does not have."""
    return Section(
        name="left_out",
        title="What is not in this report",
        text=(f"Only of two classes there are: {', '.join(names)}.",),
        figures={"blocks": list(names)},
    )


def _questions_table(metrics: LabelMetrics) -> Table:
    columns = [HEADINGS[metrics.kind], "with it", "without it", "prevalence", "AUROC", "interval", "AUPRC", "interval"]
    several = metrics.kind == "several"
    rows = []
    for question in metrics.questions:
        test = question.test
        share = f"{test.positives / test.films:.3f}" if test.films else "–"
        auroc, auprc = (written(test.figures[name]) for name in ("auroc", "auprc"))
        cells = (_name(question), str(test.positives), str(test.negatives), share, *auroc, *auprc)
        rows.append((*cells, str(question.unknown)) if several else cells)
    if several:
        columns.append("not known")
    note = "Compare AUPRC with the prevalence, which is what guessing gives."
    if any(question.few for question in metrics.questions):
        note += f" † Fewer than {FEW} films of either kind."
    return Table("Test films", tuple(columns), tuple(rows), note)


def _thresholds_table(metrics: LabelMetrics) -> Table:
    columns = [HEADINGS[metrics.kind], "threshold"]
    for title in ("Sensitivity", "Specificity", "PPV", "NPV", "F1"):
        columns += [title, "interval"]
    rows = []
    for question in metrics.questions:
        value = question.threshold.value
        cells = [_name(question), "–" if value is None else f"{value:.3f}"]
        for name in ("sensitivity", "specificity", "ppv", "npv", "f1"):
            cells += written(question.test.figures[name])
        rows.append(tuple(cells))
    note = AT_THRESHOLD.format(metrics.settings.specificity)
    for question in metrics.questions:
        if question.threshold.value is None:
            note += f" {question.name}: none, {question.threshold.reason}."
    return Table("Test films at thresholds from validation", tuple(columns), tuple(rows), note)


def _curves(metrics: LabelMetrics, predictions: LabelPredictions) -> list[Plot]:
    plots: list[Plot] = []
    for place, question in enumerate(metrics.questions[:MOST_SHOWN]):
        auroc = question.test.figures["auroc"].value
        if auroc is None:
            continue
        films = predictions.question(place)
        caption = f"{question.name}: ROC curve of the test films, AUROC {auroc:.3f}."
        drawing = roc_plot(films.of("test"), films.of("val"), question.threshold.value, caption, f"roc{place}")
        plots.append(Plot(drawing, caption))
    return plots


def _name(question: Question) -> str:
    return f"{question.name} †" if question.few else question.name


def _summary(metrics: LabelMetrics) -> list[str]:
    wanted = {"classes": ("mean_auroc", "balanced_accuracy"), "several": ("mean_auroc",)}
    names = wanted.get(metrics.kind, ("kappa", "mae", "mean_auroc"))
    level = f"{metrics.settings.confidence * 100:g} % interval"
    titles = {**TITLES, "mean_auroc": "test mean AUROC", "kappa": "test kappa (quadratic weights)"}
    lines = [_say(titles[name], metrics.overall[name], level) for name in names if name in metrics.overall]
    for question in metrics.questions[:MOST_SHOWN]:
        lines.append(_say(f"AUROC of {question.name}", question.test.figures["auroc"], level))
    return lines


def _say(title: str, figure: Figure, level: str) -> str:
    if figure.value is None:
        return f"{title}: none ({figure.reason})"
    if figure.low is None or figure.high is None:
        return f"{title} {figure.value:.3f} ({figure.reason})"
    return f"{title} {figure.value:.3f} ({level} {figure.low:.3f} to {figure.high:.3f})"
