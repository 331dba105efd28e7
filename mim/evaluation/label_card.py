"""What the model card says of more than two classes, of grades and of several labels."""

from collections.abc import Mapping, Sequence

from mim.evaluation.class_metrics import TITLES, LabelMetrics
from mim.evaluation.figures import Figure
from mim.evaluation.header import Header
from mim.evaluation.mean_figure import in_words
from mim.evaluation.section import Section

SAYS = {
    "classes": "For each film a probability of each of {count} classes, which add up to 1 ({names}).",
    "ordered": "For each film a probability of each of {count} grades, mildest first, which add up to 1 ({names}).",
    "several": "For each film the probabilities of {count} labels, each for itself ({names}).",
}
CHOICE = {
    "classes": "The weights with the best mean AUROC of the classes, each against the rest, on the validation films.",
    "ordered": "The weights with the best mean AUROC over the cuts between the grades on the validation films.",
    "several": "The weights with the best mean AUROC of the labels on the validation films.",
}


def facts_of_labels(
    metrics: LabelMetrics,
    header: Header,
    about: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    sections: Sequence[Section] = (),
) -> dict[str, str]:
    """What figures and header say, by the keys of the items of the checklists.

    Args:
        metrics: The figures.
        header: What they belong to.
        about: How many films there are, title and text.
        warnings: What a reader is told first.
        sections: The blocks of the report.
    """
    settings = metrics.settings
    height, width = header.image_size
    says = SAYS[metrics.kind].format(count=len(metrics.names), names=", ".join(metrics.names))
    few = [question.name for question in metrics.questions if question.few]
    facts = {
        "kind": f"A neural network (deep learning) that reads a film. {says}",
        "output": says,
        "outcome": f"The label “{header.target}”, as the table of labels says.",
        "predictors": "The pixels of the film alone.",
        "no_judgement": "Pixels need no judgement.",
        "resolution": f"The network meets {height} x {width} pixels (height x width).",
        "hashes": f"Data {header.data}, split {header.split}, weights {header.checkpoint}, mim {header.version}.",
        "counts": "; ".join(f"{title.lower()}: {text}" for title, text in about).capitalize() + ".",
        "metrics": f"{', '.join(TITLES[name] for name in metrics.overall)}; of each class or label AUROC, AUPRC, and "
        "sensitivity, specificity and predictive values at its own threshold; see metrics.json.",
        "uncertainty": f"{settings.confidence * 100:g} % intervals from {settings.bootstrap} resamples of patients "
        f"(seed {settings.seed}); thresholds are held fixed in them.",
        "performance": _figures(metrics.overall, settings.confidence),
        "operating_point": _points(metrics),
        "caution": "Research software, not a medical device: it must not be used to diagnose or treat anyone.",
        "limits": " ".join(warnings),
        "start": f"From {header.more['Started from']}." if "Started from" in header.more else "",
        "choice": CHOICE[metrics.kind],
        "imbalance": f"Fewer than ten test films with or without: {', '.join(few)}." if few else "",
        "threshold": "Each class or label has a threshold of its own, chosen on the validation films for a "
        f"specificity of at least {settings.specificity:g}.",
    }
    if metrics.confusion is not None:
        wrong = int(metrics.confusion.sum() - metrics.confusion.trace())
        facts["failures"] = f"{wrong} of {metrics.films} test films are called wrongly; report.html shows the worst."
    if header.lesions:
        facts["lesions"] = header.lesions_in_words
    known = {name: metrics.overall[name] for name in ("brier", "ece") if name in metrics.overall}
    blocks = {section.name: section for section in sections}
    if known or "label_calibration" in blocks:
        said = blocks["label_calibration"].text if "label_calibration" in blocks else ()
        facts["calibration"] = " ".join([_figures(known, settings.confidence), *said]).strip()
    if "strata" in blocks:
        facts["subgroups"] = f"{' '.join(blocks['strata'].text)} report.html has each group."
    return {name: text for name, text in facts.items() if text}


def _figures(figures: Mapping[str, Figure], confidence: float) -> str:
    said = [f"{TITLES[name]} {in_words(figure)}" for name, figure in figures.items() if figure.value is not None]
    return f"Test films, with {confidence * 100:g} % intervals: {', '.join(said)}." if said else ""


def _points(metrics: LabelMetrics) -> str:
    parts = []
    for question in metrics.questions:
        figures = question.test.figures
        if question.threshold.value is not None:
            pair = (in_words(figures[name]) for name in ("sensitivity", "specificity"))
            parts.append(f"{question.name}: sensitivity {next(pair)}, specificity {next(pair)}")
    return f"{'; '.join(parts)}." if parts else ""
