"""An external test set in place of a run's own: `evaluate.py RUN --data FOLDER`."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset, Splits
from mim.data.annotations import Annotations
from mim.data.groups import Groups, read_groups
from mim.data.joined import PREFIX, JoinedFilms, join_annotations
from mim.data.studies import ABSENT, Study, StudySplits
from mim.errors import MimError
from mim.evaluation.external import REASONS, ExternalTest
from mim.stages.classifier import TaskDescription
from mim.stages.external_films import ExternalFilms, read_external
from mim.stages.external_overlap import learnt_from, require_some_left
from mim.stages.external_settings import external_settings
from mim.stages.made_for import MADE_FOR, MadeFor
from mim.stages.tested_films import ReadOwn, TestedFilms, own_at_hand, own_films


@dataclass(frozen=True)
class Opened:
    """A finished run that is evaluated.

    Attributes:
        config: settings of evaluate.py.
        run: its folder.
        finetuned: its settings.
        description: what it remembers besides.
    """

    config: EvaluateConfig
    run: Path
    finetuned: FinetuneConfig
    description: TaskDescription


def films_to_measure(opened: Opened, read: ReadOwn, what: str) -> TestedFilms:
    """Opens the films of an evaluation: the run's own, with an external test set in place of its test where asked for.

    Args:
        opened: the run.
        read: how its own films are opened.
        what: of them must be as it was in training, in words.

    Raises:
        MimError: films are missing or not such as they should be, in one line.
    """
    config, finetuned = opened.config, opened.finetuned
    own = None
    if config.data.path is None or own_at_hand(config, finetuned):
        own = own_films(opened.run, finetuned, opened.description.split_hash, read, what)
    if own is not None and config.data.path is None:
        return own
    return with_external(opened, own)


def with_external(opened: Opened, own: TestedFilms | None) -> TestedFilms:
    """Puts an external test set in place of a run's own test films.

    Args:
        opened: the run.
        own: its films; None = not at hand.

    Raises:
        MimError: the external films cannot be used, or none of them is left.
    """
    asked = opened.config.data
    settings = external_settings(asked, opened.run, opened.finetuned, opened.description)
    found = read_external(asked, settings, opened.finetuned, opened.description, known_categories(opened, own))
    of_split = [film for film in found.labelled.films if asked.split in (None, film.split)]
    if not of_split:
        raise MimError(f"{found.labels}: no labelled film is of the split {asked.split} (data.split)")
    learnt = learnt_from(opened.run, opened.finetuned, own, found.films)
    reasons = {film.index: learnt.reason(film) for film in of_split}
    if opened.finetuned.task == "study":
        reasons = _whole_studies(found.studies, reasons)
    test = [film for film in of_split if reasons[film.index] is None]
    require_some_left(list(reasons.values()), str(asked.path))
    kept = {film.index for film in test}
    studies = [study for study in found.studies if any(film in kept for film in study.films)]
    if opened.finetuned.task == "study" and not studies:
        raise MimError(f"{asked.path}: no study has a film that could be read and a label")
    counted = Counter(reason for reason in reasons.values() if reason is not None)
    external = ExternalTest(
        films=len(test),
        patients=len({film.patient_id for film in test}),
        left_out={name: counted[name] for name in REASONS},
        other_split=len(found.labelled.films) - len(of_split),
        unlabelled=found.labelled.unlabelled,
        missing=len(found.labelled.missing),
        unreadable=count_unreadable(found.films),
        differing=count_differing(opened.run, found.films, test),
        validation="films" if own is not None else "table",
        unknown=(*learnt.unknown, *whether_made_for(opened.run)),
        notes=found.notes,
    )
    return _join(opened, own, found, test, studies, external)


def known_categories(opened: Opened, own: TestedFilms | None) -> Sequence[str] | None:
    """Categories of lesions that a run knows; None where that is not known."""
    if opened.finetuned.task == "detect":
        return opened.description.classes
    if own is not None and own.annotations is not None:
        return own.annotations.categories
    return opened.finetuned.data.lesion_categories


def count_unreadable(films: PreparedDataset) -> int:
    """Counts files and frames that were skipped, but for files that are no pictures, such as the table of labels."""
    skipped = films.report.get("skipped_by_reason", {})
    return sum(count for reason, count in skipped.items() if reason != "not-an-image")


def count_differing(run: Path, films: PreparedDataset, test: Sequence[LabelledFilm]) -> dict[str, int]:
    """Counts films that are not such as a run was made for, by what they differ in."""
    made_for = MadeFor.load(run)
    if made_for is None:
        return {}
    counted = Counter(name for film in test for name in made_for.differences(films.rows[film.index]))
    return dict(sorted(counted.items()))


def whether_made_for(run: Path) -> Sequence[str]:
    """Says that it is not known what films a run was made for, where it is not."""
    if MadeFor.load(run) is not None:
        return ()
    return (f"Whether the films are such as the run was made for is not known: it has no {MADE_FOR}.",)


def _whole_studies(studies: Sequence[Study], reasons: dict[int, str | None]) -> dict[int, str | None]:
    """Leaves out a study with a film that is left out as a whole: what is left would be another study."""
    found = dict(reasons)
    for study in studies:
        own = [film for film in study.films if film in reasons]
        reason = next((reasons[film] for film in own if reasons[film] is not None), None)
        found |= dict.fromkeys(own, reason)
    return found


def _join(
    opened: Opened,
    own: TestedFilms | None,
    found: ExternalFilms,
    test: Sequence[LabelledFilm],
    studies: Sequence[Study],
    external: ExternalTest,
) -> TestedFilms:
    """Numbers the films of both one after the other, those of the run first."""
    before = 0 if own is None else len(own.films)
    lines = 0 if own is None else max(_lines(own))
    moved = tuple(_moved(film, before, lines) for film in test)
    own_splits = Splits((), (), (), found.labelled.classes, labels=found.labelled.labels)
    splits = replace(own_splits if own is None else own.splits, test=moved)
    first: PreparedDataset = found.films if own is None else own.films
    films = first if own is None else JoinedFilms(first, found.films)
    known: Annotations | None = found.annotations
    joined_studies = None
    if opened.finetuned.task == "study":
        own_studies = StudySplits((), (), (), opened.description.classes) if own is None else own.studies
        assert own_studies is not None
        joined_studies = replace(own_studies, test=tuple(_moved_study(study, before, lines) for study in studies))
    return TestedFilms(
        films=films,
        splits=splits,
        split_hash=opened.description.split_hash,
        annotations=known if own is None else join_annotations(own.annotations, known, before),
        studies=joined_studies,
        groups=_groups(opened, own, found, test, before, lines),
        external=external,
    )


def _groups(
    opened: Opened,
    own: TestedFilms | None,
    found: ExternalFilms,
    test: Sequence[LabelledFilm],
    before: int,
    lines: int,
) -> Groups:
    """In which groups the test films are; of the run's own films that is not asked."""
    groups = read_groups(found.films, found.labels, opened.config.groups)
    others = dict.fromkeys(() if own is None else _lines(own), "")
    measured = {film.line for film in test}
    of_line = {
        name: others | {line + lines: value for line, value in values.items()}
        for name, values in groups.of_line.items()
        if len({values[line] for line in measured}) > 1
    }
    modality = groups.modality
    if modality is not None and len({modality[film.index] for film in test}) == 1:
        modality = None
    return Groups(of_line, None if modality is None else ("",) * before + modality)


def _lines(own: TestedFilms) -> set[int]:
    """Lines of the run's table of labels that films or studies stand in."""
    splits = own.splits
    lines = {film.line for film in (*splits.train, *splits.val, *splits.test, *splits.unused)}
    if own.studies is not None:
        lines |= {line for part in (own.studies.val, own.studies.test) for study in part for line in study.lines}
    return lines


def _moved(film: LabelledFilm, before: int, lines: int) -> LabelledFilm:
    named = f"{PREFIX}{film.image_id}"
    return replace(film, index=film.index + before, image_id=named, line=film.line + lines)


def _moved_study(study: Study, before: int, lines: int) -> Study:
    films = tuple(film if film == ABSENT else film + before for film in study.films)
    moved = tuple(line + lines for line in study.lines)
    return replace(study, study_id=f"{PREFIX}{study.study_id}", films=films, lines=moved)
