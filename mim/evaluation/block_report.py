"""The report and `metrics.json` of a run whose figures are those of its blocks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mim.evaluation.header import Header
from mim.evaluation.metrics import SCHEMA_VERSION, Settings
from mim.evaluation.page import render_page
from mim.evaluation.section import Section
from mim.files import write_atomically


def write_block_report(
    folder: Path,
    template: str,
    sections: Sequence[Section],
    settings: Settings,
    header: Header,
    warnings: Sequence[str],
    *,
    headline: Sequence[Section],
    figures: Mapping[str, Any] | None = None,
    about: Sequence[tuple[str, str]] = (),
    **values: Any,
) -> Path:
    """Write `report.html` and `metrics.json` into a folder.

    Args:
        folder: Where; it is there.
        template: Of the page, its file name.
        sections: The blocks, in their order.
        settings: How intervals were made.
        header: What the figures belong to.
        warnings: Sentences to show at the top, before those of the sections.
        headline: The sections whose summaries stand at the head of the page.
        figures: More of `metrics.json`.
        about: More of the head of the page, titles and texts.
        values: What else the template asks for.

    Returns:
        The report.
    """
    lines = [*warnings, *(line for section in sections for line in section.first_lines)]
    content = {
        "schema_version": SCHEMA_VERSION,
        "header": asdict(header),
        "settings": asdict(settings),
        **(figures or {}),
        "blocks": {section.name: dict(section.figures) for section in sections},
        "warnings": lines,
    }
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    page = render_page(
        template,
        header=header,
        warnings=lines,
        headline=[line[:1].upper() + line[1:] + "." for section in headline for line in section.summary],
        about=[("Target", header.target), *about, *header.marked(), *header.copies(), *header.identity()],
        sections=sections,
        confidence=f"{settings.confidence * 100:g} %",
        settings=settings,
        **values,
    )
    write_atomically(folder / "metrics.json", text + "\n")
    path = folder / "report.html"
    write_atomically(path, page)
    return path
