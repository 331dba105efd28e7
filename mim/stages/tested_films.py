"""The films of an evaluation: those of the run, or the run's validation films and an external test set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset, Splits
from mim.data.annotations import Annotations
from mim.data.groups import Groups
from mim.data.studies import StudySplits
from mim.errors import MimError
from mim.evaluation.external import ExternalTest
from mim.stages.annotated_films import AnnotatedFilms
from mim.stages.groups import groups_of
from mim.stages.made_for import MadeFor


@dataclass(frozen=True, eq=False)
class TestedFilms:
    """Films by split, and what is known of them.

    Attributes:
        films: where they are stored.
        splits: the films; the test is the external one where there is one, and where the run's own films are not at
            hand then, training and validation are empty.
        split_hash: of the run's own films.
        annotations: lesions; None = not known.
        studies: studies by split, of runs on studies.
        groups: in which groups they are; None = to be read from the run's table of labels.
        external: of an external test set, what was left out of it and why.
    """

    films: PreparedDataset
    splits: Splits
    split_hash: str
    annotations: Annotations | None = None
    studies: StudySplits | None = None
    groups: Groups | None = None
    external: ExternalTest | None = None

    @property
    def chosen(self) -> tuple[LabelledFilm, ...]:
        """The films that are scored: validation, then test."""
        return (*self.splits.val, *self.splits.test)

    @property
    def own_at_hand(self) -> bool:
        """Whether the run's own films are there."""
        return bool(self.splits.train)

    @property
    def annotated(self) -> AnnotatedFilms:
        """The films with what is annotated on them, of runs that learn from that."""
        assert self.annotations is not None
        return AnnotatedFilms(self.films, self.splits, self.annotations)

    def groups_for(self, config: EvaluateConfig, finetuned: FinetuneConfig) -> Groups:
        """In which groups the films are.

        Raises:
            MimError: a column that `groups` names is not there, or cannot be used.
        """
        return groups_of(config, finetuned, self.films) if self.groups is None else self.groups


ReadOwn = Callable[[FinetuneConfig], TestedFilms]
"""Opens the films of a run as its training did."""
AddExternal = Callable[[TestedFilms | None], TestedFilms]
"""Puts an external test set in place of the run's own; None = the run's own films are not at hand."""


def own_films(run: Path, finetuned: FinetuneConfig, split_hash: str, read: ReadOwn, what: str) -> TestedFilms:
    """Opens the films of a run and checks that they are still those that it was trained on.

    Args:
        run: its folder.
        finetuned: its settings.
        split_hash: of its films, as it remembers it.
        read: how they are opened.
        what: of them must be as it was, in words.

    Raises:
        MimError: they are not there, or not as they were.
    """
    if not Path(finetuned.data.path).exists():
        raise MimError(
            f"{finetuned.data.path}: the films that {run} was trained on are not there; say with data_path "
            "where they are now"
        )
    known = read(finetuned)
    made_for = MadeFor.load(run)
    salt = "" if made_for is None else made_for.salt_check
    if known.split_hash != split_hash and salt not in ("", known.films.salt_check):
        raise MimError(
            f"{run}: its ids were hashed with another salt than that of {finetuned.data.cache} here, so its films "
            "cannot be known again; start evaluate.py in the folder where the run was trained, or bring the file .salt "
            "of its data.cache along"
        )
    if known.split_hash != split_hash:
        raise MimError(
            f"{run}: {what} of {finetuned.data.path} have changed since the run was trained; bring the old ones back, "
            "or fine-tune again; films that it never saw are measured with --data FOLDER"
        )
    return known


def own_at_hand(config: EvaluateConfig, finetuned: FinetuneConfig) -> bool:
    """Whether the run's own films are there; where `data_path` says so, they must be."""
    return config.data_path is not None or Path(finetuned.data.path).is_dir()
