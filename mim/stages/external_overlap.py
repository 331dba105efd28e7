"""Which films of an external test set are of patients who were learnt from, or were learnt from themselves."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mim.config import FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset, load_seen, load_splits
from mim.data.copies import FLAT_CONTENTS
from mim.errors import MimError
from mim.evaluation.external import REASONS, in_words
from mim.stages.made_for import MadeFor
from mim.stages.tested_films import TestedFilms

TRAINED_ON = ("train", "val")
"""Splits whose films chose weights or threshold."""


@dataclass(frozen=True)
class LearntFrom:
    """Patients and films that a run learnt from, by hashes.

    Attributes:
        patients: by the place where they were met, `patient_trained_on` or `patient_pretrained_on`.
        pixels: likewise, of whole films (`ManifestRow.content`).
        unknown: what cannot be told, in sentences.
    """

    patients: dict[str, frozenset[str]] = field(default_factory=dict)
    pixels: dict[str, frozenset[str]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def reason(self, film: LabelledFilm) -> str | None:
        """Why a film is no film of an external test (`REASONS`); None where it is one."""
        flat = film.content in FLAT_CONTENTS
        for name in REASONS:
            if not self.patients.get(name, frozenset()).isdisjoint((film.patient_id, film.header_patient_id)):
                return name
            if not flat and film.content in self.pixels.get(name, frozenset()):
                return name
        return None


def learnt_from(run: Path, finetuned: FinetuneConfig, own: TestedFilms | None, films: PreparedDataset) -> LearntFrom:
    """Finds whom and what a run learnt from, as far as that can be compared with an external test set.

    Args:
        run: its folder.
        finetuned: its settings.
        own: its own films; None = not at hand.
        films: those of the external test set.

    Raises:
        MimError: splits.csv or seen.csv is there and cannot be read.
    """
    found = LearntFrom()
    _add_training(found, run, own, films.salt_check)
    _add_pretraining(found, finetuned, films.salt_check)
    return found


def _add_training(found: LearntFrom, run: Path, own: TestedFilms | None, salt_check: str) -> None:
    made_for = MadeFor.load(run)
    salt = own.films.salt_check if own is not None else "" if made_for is None else made_for.salt_check
    if salt == salt_check:
        rows = [row for row in load_splits(run / "splits.csv") if row.split in TRAINED_ON]
        patients = {row.patient_id for row in rows}
        if own is not None:
            patients |= {film.header_patient_id for film in _trained_on(own)}
        found.patients["patient_trained_on"] = frozenset(patients - {""})
    else:
        known = "were hashed with another salt" if salt else "were hashed with a salt that the run does not name"
        found.unknown.append(
            f"Whether patients of the external test set were trained on is not known: the run's ids {known}, so only "
            "films with the same pixels can be found; the same data.cache for both would tell."
        )
    if own is None:
        found.unknown.append(
            "Whether films of the external test set were trained on is not known by their pixels: the films of the "
            "training are not at hand."
        )
    else:
        found.pixels["pixels_trained_on"] = frozenset(film.content for film in _trained_on(own))


def _add_pretraining(found: LearntFrom, finetuned: FinetuneConfig, salt_check: str) -> None:
    encoder = finetuned.encoder
    if finetuned.init is None or not finetuned.init_weights:
        if encoder and (encoder.pretrained or encoder.weights):
            found.unknown.append("Which films the published weights were made from is not known.")
        return
    path = Path(finetuned.init) / "seen.csv"
    if not path.is_file():
        found.unknown.append(
            "Whether films or patients of the external test set were met in pretraining is not known: the pretraining "
            "run is not at hand."
        )
        return
    seen = load_seen(path)
    found.pixels["pixels_pretrained_on"] = seen.contents
    if seen.salt_check == salt_check:
        found.patients["patient_pretrained_on"] = seen.patients
    elif seen.patients:
        found.unknown.append(
            "Whether patients of the external test set were met in pretraining is not known: their ids were hashed "
            "with another salt, so only films with the same pixels can be found."
        )


def require_some_left(reasons: Collection[str | None], folder: str) -> None:
    """Refuses to measure nothing.

    Args:
        reasons: why each labelled film is left out; None = it is not.
        folder: of the films.

    Raises:
        MimError: no film is left.
    """
    if None not in reasons:
        counted = Counter(reason for reason in reasons if reason is not None)
        raise MimError(
            f"{folder}: none of its {len(reasons)} labelled films is left to measure: "
            f"{in_words({name: counted[name] for name in REASONS})}; give films that the run never saw, and if other "
            "patients are only numbered alike, other ids"
        )


def _trained_on(own: TestedFilms) -> Sequence[LabelledFilm]:
    return (*own.splits.train, *own.splits.val)
