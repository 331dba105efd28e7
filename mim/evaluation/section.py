"""A block of the report: words, tables, plots and pictures about one question, and the figures behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Picture:
    """An image of the page: a data URI, its size in pixels, and what is said in its place."""

    source: str
    alt: str
    width: int
    height: int
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of words; the first cell of a row is its heading.

    Attributes:
        caption: What it shows.
        columns: Headings, the first one's included.
        rows: As many cells each as there are columns.
        note: A sentence below it.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows, 1):
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.caption!r}: row {number} has {len(row)} cells, not {len(self.columns)}")


@dataclass(frozen=True)
class Plot:
    """A vector drawing of `mim.evaluation.curves`' kind: `square` stands beside others, `band` takes the width."""

    drawing: str
    caption: str
    kind: Literal["square", "band"] = "square"


@dataclass(frozen=True)
class Section:
    """One question, answered.

    Attributes:
        name: Key of its figures in `metrics.json` (under `blocks`), and part of its anchor; lower case, underscores.
        title: Heading.
        first_lines: What a reader must know before anything else; shown at the top of the report and logged.
        text: Paragraphs.
        tables: In order.
        plots: In order.
        pictures: In order.
        figures: What `metrics.json` says; plain JSON without numbers that are not finite.
        summary: Lines that evaluate.py prints.
    """

    name: str
    title: str
    first_lines: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    summary: tuple[str, ...] = ()
