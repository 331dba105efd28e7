"""What the figures of a detector say for the model card."""

from collections.abc import Mapping, Sequence

from mim.evaluation.header import Header
from mim.evaluation.metrics import Settings
from mim.evaluation.section import Section, Table


def facts_of_detection(section: Section, settings: Settings, header: Header, warnings: Sequence[str]) -> dict[str, str]:
    """What the block on detection, its header and its settings say, by the keys of the items of the checklists.

    Args:
        section: What `detection_section` gave.
        settings: How intervals were made.
        header: What the figures belong to.
        warnings: What a reader must know first.
    """
    figures = section.figures
    threshold = _part(figures, "threshold")
    height, width = header.image_size
    level = f"{settings.confidence * 100:g} % intervals"
    facts = {
        "kind": f"A neural network (deep learning) that marks {header.target} on films.",
        "output": "For each film boxes, each with a class and a score from 0 to 1.",
        "outcome": f"What readers marked on the films: {header.target}, as the file of boxes says.",
        "predictors": "The pixels of the film alone.",
        "no_judgement": "Pixels need no judgement.",
        "resolution": f"The network meets {height} x {width} pixels (height x width).",
        "hashes": f"Data {header.data}, split {header.split}, weights {header.checkpoint}, mim {header.version}.",
        "counts": _counts(figures, header),
        "metrics": "AP, AP50, AP75 and AR by size as COCO defines them, FROC under two rules of what hits a lesion, "
        "and sensitivity and false positives at a threshold; see metrics.json.",
        "uncertainty": f"{level} from {settings.bootstrap} resamples of patients (seed {settings.seed}); the threshold "
        "is held fixed in them.",
        "performance": f"{'. '.join(line[:1].upper() + line[1:] for line in section.summary)} ({level}).",
        "caution": "Research software, not a medical device: it must not be used to diagnose or treat anyone.",
        "failures": "report.html shows the films with the most missed lesions and the most confident wrong marks.",
        "limits": " ".join([*warnings, *section.first_lines]),
        "start": f"From {header.more['Started from']}." if "Started from" in header.more else "",
        "choice": "The weights with the best AP50 on the validation films.",
        "imbalance": "Films without a box are trained on, too.",
    }
    if threshold.get("value") is not None:
        facts["threshold"] = (
            f"A box counts from a score of {threshold['value']:.3f}, chosen on the validation films for at most "
            f"{threshold['false_positives_per_image']:g} false positives a film."
        )
        facts["operating_point"] = _rows_of(section.tables, "At the threshold")
    if header.lesions:
        facts["lesions"] = header.lesions_in_words
    groups = [table for table in section.tables if table.caption.startswith("By ")]
    if groups:
        said = "; ".join(f"{table.caption}: {_in_words(table)}" for table in groups)
        facts["subgroups"] = f"Share of the lesions found. {said} (report.html has it all)."
    return facts


def _counts(figures: Mapping[str, object], header: Header) -> str:
    own = header.trained_on
    training = (
        f"; training: {own['films']} films of {own['patients']} patients, {own['positives']} with a box" if own else ""
    )
    return (
        f"Test: {figures['images']} films of {figures['patients']} patients with {figures['lesions']} lesions, "
        f"{figures['lesion_free_images']} films without one{training}."
    )


def _part(figures: Mapping[str, object], name: str) -> dict[str, float | None]:
    part = figures[name]
    assert isinstance(part, dict)
    return part


def _rows_of(tables: Sequence[Table], beginning: str) -> str:
    return "; ".join(_in_words(table) for table in tables if table.caption.startswith(beginning)) + "."


def _in_words(table: Table) -> str:
    return "; ".join(
        f"{row[0]}: {', '.join(f'{column} {cell}' for column, cell in zip(table.columns[1:], row[1:], strict=True))}"
        for row in table.rows
    )
