"""Pages in the style of the report: each one file that asks nobody for anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mim.evaluation.section import Section
from mim.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, **values: Any) -> str:
    """Fill in a template of a page, in the style of the report; whatever text is given is escaped.

    Args:
        template: Its file name.
        values: What it asks for; `style` is added.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8").strip()
    return environment.get_template(template).render(style=style, **values)


def write_page(path: Path, title: str, sections: Sequence[Section], warnings: Sequence[str] = ()) -> None:
    """Write sections, such as those about several runs, as an HTML page.

    Args:
        path: The file; what was there is replaced.
        title: Heading of the page.
        sections: In order; of each its text, plots and tables.
        warnings: What a reader must know first, before what the sections have to say first.

    Raises:
        OSError: It could not be written.
    """
    page = render_page(
        "page.html.jinja",
        title=title,
        warnings=[*warnings, *(line for section in sections for line in section.first_lines)],
        sections=sections,
    )
    write_atomically(path, page)
