"""Whether the films of a split have what is to be learnt and measured, where that is more than two classes."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from mim.data.label_values import MISSING
from mim.data.labels import LabelledFilm
from mim.data.splits import Splits
from mim.errors import MimError

logger = logging.getLogger(__name__)


def check_learnable(splits: Splits, path: Path, target: str) -> None:
    """Make sure that each class has training films, and each of several labels films with and without it.

    What the validation or test films lack is said in a warning: it cannot be measured on them.

    Args:
        splits: After all that leaves training films out.
        path: The CSV, for messages.
        target: Its label column or columns.

    Raises:
        MimError: The training films lack something.
    """
    way_out = "take more films, draw another split, put classes together, or leave it out"
    for lacking in _lacking(splits, splits.train):
        raise MimError(f"{path}: no training film {lacking} (data.target {target}): {way_out}")
    for name, films in (("validation", splits.val), ("test", splits.test)):
        if missing := list(_lacking(splits, films)):
            more = f", and {len(missing) - 3} more" if len(missing) > 3 else ""
            logger.warning(
                "%s: no %s film %s%s: that cannot be measured on them",
                *(path, name, ", none ".join(missing[:3]), more),
            )


def _lacking(splits: Splits, films: Sequence[LabelledFilm]) -> Iterator[str]:
    if splits.labels:
        for place, name in enumerate(splits.labels):
            found = {film.labels[place] for film in films} - {MISSING}
            yield from (f"has {value} under {name!r}" for value in (0, 1) if value not in found)
        return
    known = {film.label for film in films}
    yield from (f"is of class {name!r}" for label, name in enumerate(splits.classes) if label not in known)
