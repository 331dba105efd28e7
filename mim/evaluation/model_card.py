"""`model_card.md`: what a reader of a study must be told, as far as the run knows it, and what the authors must add."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.evaluation.figures import FIGURES
from mim.evaluation.header import Header
from mim.evaluation.mean_figure import in_words
from mim.evaluation.metrics import Metrics
from mim.evaluation.section import Section, Table
from mim.files import write_atomically

ITEMS = Path(__file__).parent / "templates" / "reporting_items.json"
MISSING = "missing: to be filled in by the authors"
FILE = "model_card.md"
PERFORMANCE = ("auroc", "auprc")
AT_THRESHOLD = ("sensitivity", "specificity", "ppv", "npv", "f1", "accuracy")


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number: As the checklist counts, such as `12a`.
        section: Of the checklist.
        item: What is asked for, in our words.
        facts: Keys of what answers it.
        missing: What the authors must add to these; empty = nothing.
    """

    number: str
    section: str
    item: str
    facts: tuple[str, ...]
    missing: str

    def answer(self, facts: Mapping[str, str]) -> str:
        """What is known, and that something is missing where it is."""
        known = [facts[name] for name in self.facts if facts.get(name)]
        if not known:
            return MISSING
        return " ".join([*known, *([f"{MISSING} ({self.missing})"] if self.missing else [])])


@dataclass(frozen=True)
class Checklist:
    """A published list of what to report."""

    title: str
    source: str
    items: tuple[Item, ...]


def read_checklists() -> tuple[Checklist, ...]:
    """CLAIM (2024 update) and TRIPOD+AI."""
    content = json.loads(ITEMS.read_text(encoding="utf-8"))
    return tuple(
        Checklist(
            one["title"],
            one["source"],
            tuple(Item(**{**item, "facts": tuple(item["facts"])}) for item in one["items"]),
        )
        for one in content.values()
    )


def facts_of_evaluation(
    metrics: Metrics, header: Header, warnings: Sequence[str], sections: Sequence[Section]
) -> dict[str, str]:
    """What the figures, their header and the blocks of the report say, by the keys of the items."""
    test, val, settings = metrics.test, metrics.val, metrics.settings
    height, width = header.image_size
    facts = {
        "kind": f"A neural network (deep learning) that reads a film and gives a probability of “{header.target}”.",
        "output": f"For each film the probability of “{header.target}”.",
        "outcome": f"The label “{header.target}” (positive = 1), as the table of labels says.",
        "predictors": "The pixels of the film alone.",
        "no_judgement": "Pixels need no judgement.",
        "resolution": f"The network meets {height} x {width} pixels (height x width).",
        "hashes": f"Data {header.data}, split {header.split}, weights {header.checkpoint}, mim {header.version}.",
        "counts": _counts(metrics, header),
        "prevalences": _prevalences(metrics, header),
        "metrics": f"{'; '.join(definition.title for definition in FIGURES.values())}; see metrics.json.",
        "uncertainty": f"{settings.confidence * 100:g} % intervals from {settings.bootstrap} resamples of patients "
        f"(seed {settings.seed}); the threshold is held fixed in them.",
        "performance": _figures(metrics, PERFORMANCE),
        "operating_point": _figures(metrics, AT_THRESHOLD) if metrics.threshold.value is not None else "",
        "caution": "Research software, not a medical device: it must not be used to diagnose or treat anyone.",
        "limits": " ".join([*warnings, *metrics.warnings]),
        "start": f"From {header.more['Started from']}." if "Started from" in header.more else "",
    }
    if metrics.threshold.value is not None:
        facts["threshold"] = (
            f"A film is called positive at a score of {metrics.threshold.value:.3f} or above, chosen on {val.films} "
            f"validation films for a specificity of at least {settings.specificity:g}."
        )
    if test.confusion is not None:
        facts["failures"] = (
            f"{test.confusion.false_negatives} false negatives and {test.confusion.false_positives} false positives "
            "among the test films; report.html shows the worst."
        )
    if header.lesions:
        facts["lesions"] = header.lesions_in_words
    return facts | _blocks(sections)


def write_model_card(folder: Path, facts: Mapping[str, str], warnings: Sequence[str]) -> Path:
    """Write `model_card.md`.

    Args:
        folder: Where.
        facts: What is known, by the keys of the items; an empty text is not known.
        warnings: What is said before anything else.

    Returns:
        The file written.
    """
    checklists = read_checklists()
    lines = ["# Model card", "", facts.get("caution", ""), ""]
    if warnings:
        lines += ["## Read this first", "", *(f"- {_plain(warning)}" for warning in warnings), ""]
    lines += [
        "What the run knows is filled in from its settings, its data and its figures. What it cannot know is marked "
        f"“{MISSING}”. The wording of the items is ours; the published lists have the last word.",
        "",
    ]
    for checklist in checklists:
        filled = sum(item.answer(facts) != MISSING for item in checklist.items)
        said = f"{filled} of {len(checklist.items)} items are filled in, wholly or in part."
        lines += [f"## {checklist.title}", "", f"{checklist.source}. {said}", ""]
        lines += ["| item | section | what is asked | answer |", "|---|---|---|---|"]
        lines += [
            f"| {item.number} | {item.section} | {item.item} | {_plain(item.answer(facts))} |"
            for item in checklist.items
        ]
        lines.append("")
    path = folder / FILE
    write_atomically(path, "\n".join(lines))
    return path


def _counts(metrics: Metrics, header: Header) -> str:
    parts = [
        f"{name}: {split.films} films of {split.patients} patients, {split.positives} positive"
        for name, split in (("test", metrics.test), ("validation", metrics.val))
    ]
    if own := header.trained_on:
        parts.append(f"training: {own['films']} films of {own['patients']} patients, {own['positives']} positive")
    return f"{'; '.join(parts).capitalize()}."


def _prevalences(metrics: Metrics, header: Header) -> str:
    own = header.trained_on
    if not own or not own["films"] or not metrics.test.films:
        return ""
    return (
        f"Share of positive films: {own['positives'] / own['films']:.3f} in training, "
        f"{metrics.test.positives / metrics.test.films:.3f} in the test."
    )


def _figures(metrics: Metrics, names: Sequence[str]) -> str:
    known = [(FIGURES[name].title, metrics.test.figures[name]) for name in names]
    said = [f"{title} {in_words(figure)}" for title, figure in known if figure.value is not None]
    level = f"{metrics.settings.confidence * 100:g} % intervals"
    return f"Test films, with {level}: {', '.join(said)}." if said else ""


def _blocks(sections: Sequence[Section]) -> dict[str, str]:
    """What the blocks of the report add; nothing for those that are off."""
    wanted = {
        "calibration": ("calibration",),
        "subgroups": ("strata",),
        "robustness": ("missingness", "mask_shape"),
        "explainability": ("faithfulness", "explanations"),
    }
    found = {}
    for fact, names in wanted.items():
        said = [f"{section.title}: {_in_short(section)}" for section in sections if section.name in names]
        if said:
            found[fact] = f"{'; '.join(said)} (report.html has it all)."
    return found


def _in_short(section: Section) -> str:
    """What the block prints, else its table; of several groupings each, since clusters are not severities."""
    if section.summary or not section.tables:
        return " ".join(section.summary) or "measured"
    if section.name == "strata":
        return ". ".join(f"{table.caption}: {_rows(table)}" for table in section.tables)
    return _rows(section.tables[0])


def _rows(table: Table) -> str:
    return "; ".join(
        f"{row[0]}: {', '.join(f'{column} {cell}' for column, cell in zip(table.columns[1:], row[1:], strict=True))}"
        for row in table.rows
    )


def _plain(text: str) -> str:
    """Text that Markdown takes neither for the end of a cell nor for a tag, a heading, a link or a picture."""
    told = html.escape(" ".join(text.split()), quote=False).replace("`", "'")
    return re.sub(r"[\\|\[\]]", r"\\\g<0>", told)
