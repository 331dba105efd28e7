"""A CSV, for instance of a radiology information system, of which chosen columns are taken."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mim.data.importers.types import Imported, ImportedImage, Place
from mim.data.tables import Table, TableRow, parse_date, parse_split, read_table
from mim.errors import MimError

KNOWN = ("image", "patient_id", "split", "site", "date")


def read_csv(source: Path, columns: Mapping[str, str], labels: Sequence[str]) -> Imported:
    """Take some columns of a CSV and no others: such tables often hold names and dates of birth.

    Args:
        source: The CSV.
        columns: What image, patient_id, split, site and date are called in it, where it is something else.
        labels: The label columns to take; without any, the rows tell only who is on which image, where and when.

    Raises:
        MimError: The CSV cannot be read, a column is missing, or a split or date is none.
    """
    table = _rename(read_table(source), columns)
    table.require("image", "--column image=NAME says what it is called")
    for label in labels:
        table.require(label, "--label")
    images = [
        ImportedImage(
            name=row.cells["image"],
            place=Place(source.name, row.line),
            labels={label: row.cells[label] for label in labels},
            patient_id=row.cells.get("patient_id", ""),
            split=parse_split(table, row) if row.cells.get("split") else "",
            site=row.cells.get("site", ""),
            date=parse_date(table, row),
        )
        for row in table.rows
    ]
    return Imported(images, columns=tuple(labels), has_boxes=False)


def _rename(table: Table, columns: Mapping[str, str]) -> Table:
    for written in columns.values():
        table.require(written, "--column")
    names = {written: known for known, written in columns.items()}
    clash = sorted(set(columns) & set(table.columns) - set(columns.values()))
    if clash:
        raise MimError(f"{table.path} has a column {clash[0]!r} already: leave out --column {clash[0]}=...")
    rows = tuple(
        TableRow(row.line, {names.get(name, name): value for name, value in row.cells.items()}) for row in table.rows
    )
    return replace(table, columns=tuple(names.get(name, name) for name in table.columns), rows=rows)
