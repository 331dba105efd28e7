"""Draw a split, once, before pretraining, into a table of labels: `python -m mim.data.write_splits DATASET ...`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mim.data.cache import dataset_salt
from mim.data.command import run_command
from mim.data.importers.write import write_rows
from mim.data.labels import attach_labels
from mim.data.matching import FilmFinder
from mim.data.split_file import split_hash
from mim.data.splits import split_films
from mim.data.store import PreparedDataset, is_prepared
from mim.data.tables import read_table
from mim.errors import MimError

logger = logging.getLogger(__name__)


def write_splits(
    path: Path,
    labels: Path | str,
    target: str | Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    split_by: Literal["patient", "site", "date"],
) -> str:
    """Draw a split as fine-tuning would, and write it into the table as a column `split`.

    Pretraining can then leave out the test. Rows without a label get no split.

    Args:
        path: The prepared dataset.
        labels: The CSV, relative to `path` or to the folder that was prepared. The column is added in place.
        target: The label column, or several; the draw is stratified by it.
        val_fraction: Share of patients for validation.
        test_fraction: Share of patients for the test.
        seed: Of the draw.
        split_by: What the test is apart in, see `mim.data.splits.split_films`.

    Returns:
        The hash of the split.

    Raises:
        MimError: The table cannot be used or written, or has a column `split` already.
    """
    if not is_prepared(path):
        raise MimError(f"{path} is not a prepared dataset: make one with python -m mim.data.prepare")
    dataset = PreparedDataset.open(path)
    labelled = attach_labels(dataset, path, labels, target, dataset_salt(dataset, dataset.path.parent), kind="classes")
    if labelled.has_split:
        raise MimError(f"{labelled.path} has a column 'split' already: remove it to have another one drawn")
    splits = split_films(labelled, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed, split_by=split_by)
    split_of = {
        film.index: name
        for name, films in (("train", splits.train), ("val", splits.val), ("test", splits.test))
        for film in films
    }
    table = read_table(labelled.path)
    finder = FilmFinder(dataset, path, labelled.path)
    rows: list[Sequence[str]] = [(*table.columns, "split")]
    columns = (target,) if isinstance(target, str) else tuple(target)
    for row in table.rows:
        numbers = finder.find(row.cells["image"]) if any(row.cells[name] for name in columns) else ()
        rows.append((*(row.cells[name] for name in table.columns), split_of[numbers[0]] if numbers else ""))
    try:
        write_rows(labelled.path, rows)
    except OSError as error:
        raise MimError(f"{labelled.path} cannot be written ({error.strerror})") from error
    counts = ", ".join(f"{name} {list(split_of.values()).count(name)} films" for name in ("train", "val", "test"))
    digest = split_hash(splits)
    logger.info("%s: %s; hash of the split %s", labelled.path, counts, digest[:16])
    return digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mim.data.write_splits",
        description="Draw train, val and test by patient and write them into a table of labels, before pretraining.",
    )
    parser.add_argument("path", type=Path, help="prepared dataset")
    parser.add_argument(
        "--labels", default="labels.csv", help="CSV, relative to the dataset or its films (%(default)s)"
    )
    parser.add_argument(
        "--target",
        required=True,
        nargs="+",
        help="label column, by which the draw is stratified; or several of 0 and 1",
    )
    parser.add_argument(
        "--val-fraction", type=float, default=0.2, help="share of patients for validation (%(default)s)"
    )
    parser.add_argument("--test-fraction", type=float, default=0.2, help="share of patients for the test (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (%(default)s)")
    parser.add_argument(
        "--by", choices=("patient", "site", "date"), default="patient", help="what the test is apart in (%(default)s)"
    )
    options = parser.parse_args(arguments)
    if not (0 <= options.val_fraction <= 1 and 0 <= options.test_fraction <= 1 and options.seed >= 0):
        parser.error("--val-fraction and --test-fraction must be from 0 to 1, --seed 0 or more")
    return run_command(
        lambda: write_splits(
            options.path,
            options.labels,
            options.target[0] if len(options.target) == 1 else options.target,
            val_fraction=options.val_fraction,
            test_fraction=options.test_fraction,
            seed=options.seed,
            split_by=options.by,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
