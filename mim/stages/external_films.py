"""An external test set as it is read: films, labels, lesions and studies, in numbers of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mim.config import ExternalDataConfig, FinetuneConfig, LabelledDataConfig
from mim.data import LabelledFilm, LabelledFilms, PreparedDataset, attach_labels, dataset_salt, salted_hash
from mim.data.annotations import Annotations, Lesion, read_annotations
from mim.data.joined import PREFIX
from mim.data.matching import locate
from mim.data.studies import Study, group_studies
from mim.errors import MimError
from mim.stages.classifier import TaskDescription
from mim.stages.common import open_films
from mim.stages.external_settings import ANNOTATED, check_prepared_alike
from mim.stages.tooth_labels import join_tooth_labels


@dataclass(frozen=True, eq=False)
class ExternalFilms:
    """An external test set.

    Attributes:
        settings: what it was read with.
        films: all its films.
        labelled: its labelled films, and what else their table says.
        annotations: lesions, of the run's classes where it is a detector; None = not known.
        studies: of runs on studies.
        notes: what a reader should know.
    """

    settings: LabelledDataConfig
    films: PreparedDataset
    labelled: LabelledFilms
    annotations: Annotations | None
    studies: tuple[Study, ...]
    notes: tuple[str, ...]

    @property
    def labels(self) -> Path:
        """The table of labels."""
        return self.labelled.path


def read_external(
    asked: ExternalDataConfig,
    settings: LabelledDataConfig,
    finetuned: FinetuneConfig,
    description: TaskDescription,
    categories: Sequence[str] | None,
) -> ExternalFilms:
    """Reads an external test set.

    Args:
        asked: what was asked for.
        settings: what it is read with (`external_settings`).
        finetuned: settings of the run.
        description: what the run remembers.
        categories: of lesions that the run knows; None = not known.

    Raises:
        MimError: a file or column is missing, a label is none of the run's, or the folder was prepared in another way.
    """
    films, labelled = _read_labels(settings, finetuned, description)
    check_prepared_alike(films, settings)
    told_apart = finetuned.task == "detect" or (finetuned.task == "segment" and len(description.classes) > 1)
    annotations, notes = _read_lesions(asked, settings, finetuned, films, categories, told_apart=told_apart)
    salt = dataset_salt(films, Path(settings.cache))
    studies: tuple[Study, ...] = ()
    if finetuned.task == "study":
        rule, most = settings.study_label, settings.max_films
        studies = group_studies(films, Path(settings.path), labelled, salt, label=rule, max_films=most)
    if labelled.has_split and asked.split is None:
        notes = (*notes, "Its labels have a column split, which is not read: all labelled films are test films.")
    if asked.split is not None and not labelled.has_split:
        raise MimError(f"{labelled.path} has no column 'split', which data.split={asked.split} needs; leave it out")
    names = _names_of_unknown(labelled, salt)
    unknown = sum(film.patient_id in names for film in labelled.films)
    if unknown:
        said = (
            f"The patient of {unknown} of its {len(labelled.films)} labelled films is not known, so whether they are of"
        )
        notes = (*notes, f"{said} patients who were learnt from cannot be told but by the same pixels.")
    labelled = replace(labelled, films=tuple(_renamed(film, names) for film in labelled.films))
    studies = tuple(replace(own, patient_id=names.get(own.patient_id, own.patient_id)) for own in studies)
    return ExternalFilms(settings, films, labelled, annotations, studies, notes)


def _read_labels(
    settings: LabelledDataConfig, finetuned: FinetuneConfig, description: TaskDescription
) -> tuple[PreparedDataset, LabelledFilms]:
    classes = description.classes
    if settings.crops is not None:
        return join_tooth_labels(settings, classes)
    assert settings.labels is not None
    films, source = open_films(settings), Path(settings.path)
    salt = dataset_salt(films, Path(settings.cache))
    if finetuned.task in ANNOTATED:
        return films, attach_labels(films, source, settings.labels, None, salt)
    kind = "two" if finetuned.task != "classify" else settings.label_kind
    return films, attach_labels(films, source, settings.labels, settings.target, salt, kind=kind, classes=classes)


def _read_lesions(
    asked: ExternalDataConfig,
    settings: LabelledDataConfig,
    finetuned: FinetuneConfig,
    films: PreparedDataset,
    known: Sequence[str] | None,
    *,
    told_apart: bool,
) -> tuple[Annotations | None, tuple[str, ...]]:
    """Reads lesions of the categories that the run knows, called as the run calls them where it tells them apart."""
    if settings.boxes is None:
        return None, ()
    path = locate(films, Path(settings.path), settings.boxes)
    if finetuned.task not in ANNOTATED and asked.boxes is None and not path.is_file():
        return None, ("Where its lesions are is not known: it has no file of boxes as the run has.",)
    found = read_annotations(films, Path(settings.path), settings.boxes, None, settings.grades)
    wanted = asked.lesion_categories or known
    if wanted is None:
        return found, ()
    if missing := [name for name in asked.lesion_categories or () if name not in found.categories]:
        raise MimError(
            f"{path} has no category {missing[0]!r} (data.lesion_categories); it has {', '.join(found.categories)}"
        )
    if not set(wanted) & set(found.categories):
        raise MimError(
            f"{path}: its categories are {', '.join(found.categories)}, those of the run {', '.join(wanted)}; say with "
            "data.lesion_categories which of them are what is sought"
        )
    called = known if known is not None and len(known) == len(wanted) else wanted
    if told_apart and len(called) != len(known or ()):
        raise MimError(
            f"data.lesion_categories: {len(wanted)} are given, and the run has {len(known or ())} classes "
            f"({', '.join(known or ())}); give as many, in their order"
        )
    return _take(found, dict(zip(wanted, called, strict=True)))


def _take(found: Annotations, names: Mapping[str, str]) -> tuple[Annotations, tuple[str, ...]]:
    """Takes lesions of some categories and calls them by other names; says how many are of none of them."""
    classes = tuple(dict.fromkeys(names.values()))

    def called(lesion: Lesion) -> Lesion:
        name = names[lesion.category]
        return replace(lesion, category=name, label=classes.index(name))

    kept = {
        film: tuple(called(lesion) for lesion in own if lesion.category in names) for film, own in found.lesions.items()
    }
    other = sum(map(len, found.lesions.values())) - sum(map(len, kept.values()))
    said = f"{other} of its annotations are of categories that the run does not know, and are left out."
    return replace(found, lesions=kept, categories=classes), (said,) if other else ()


def _names_of_unknown(labelled: LabelledFilms, salt: bytes) -> dict[str, str]:
    """Other names for patients who are not known: theirs are hashes of paths, which two folders may share."""
    unknown = {
        film.patient_id
        for film in labelled.films
        if not film.header_patient_id and film.patient_id == salted_hash(salt, f"{film.image}#0")
    }
    return {patient: f"{PREFIX}{patient}" for patient in unknown}


def _renamed(film: LabelledFilm, names: Mapping[str, str]) -> LabelledFilm:
    return replace(film, patient_id=names.get(film.patient_id, film.patient_id))
