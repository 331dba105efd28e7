"""A page of sections about several runs, in the style of the report: one file that asks nobody for anything."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mim.evaluation.section import Section
from mim.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, title: str, sections: Sequence[Section], warnings: Sequence[str] = ()) -> None:
    """Write sections as an HTML page.

    Args:
        path: The file; what was there is replaced.
        title: Heading of the page.
        sections: In order; of each its text, plots and tables.
        warnings: What a reader must know first, before what the sections have to say first.

    Raises:
        OSError: It could not be written.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    page = environment.get_template("page.html.jinja").render(
        style=(TEMPLATES / "report.css").read_text(encoding="utf-8").strip(),
        title=title,
        warnings=[*warnings, *(line for section in sections for line in section.first_lines)],
        sections=sections,
    )
    write_atomically(path, page)
