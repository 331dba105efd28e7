"""Test films that look like films of pretraining or training: found, counted, said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mim.config import FinetuneConfig
from mim.data import NearCopy, Splits, find_near_copies, load_seen
from mim.data.near_copies import HashedFilm
from mim.errors import MimError
from mim.stages.common import logger

FILE = "near_copies.csv"
PLACES = ("pretraining", "training")


@dataclass(frozen=True)
class CopiesMet:
    """Test films with a near copy among what was learnt from.

    Attributes:
        copies: A row for each test film and place.
        unknown: By place, why it could not be looked for there.
        films: How many films were compared, by place.
        test: How many test films were.
    """

    copies: Sequence[NearCopy]
    unknown: Mapping[str, str]
    films: Mapping[str, int]
    test: int

    @property
    def counts(self) -> dict[str, int | None]:
        """Test films with a near copy, by place; None where that is not known."""
        found = {place: sum(copy.met_in == place for copy in self.copies) for place in PLACES}
        return {place: None if place in self.unknown else count for place, count in found.items()}

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before anything else."""
        said = []
        if self.copies:
            films = len({copy.image_id for copy in self.copies})
            where = " and ".join(f"{count} in {place}" for place, count in self.counts.items() if count)
            said.append(
                f"{films} of {self.test} test films {'is' if films == 1 else 'are'} a near copy of a film that was "
                f"learnt from ({where}; {FILE} lists them): the figures flatter the model."
            )
        return said

    def describe(self) -> str:
        """One line for the head of the report."""
        parts = []
        for place, count in self.counts.items():
            if count is None:
                parts.append(f"{place}: not known, {self.unknown[place]}")
            else:
                parts.append(f"{place}: {count} of {self.test} test films, beside {self.films[place]} films")
        return "; ".join(parts)


def look_for_copies(finetuned: FinetuneConfig, splits: Splits) -> CopiesMet:
    """Compares the test films with those of training, and of the pretraining run where it says what it met.

    Without training films, as where those of a run are not at hand, it is not known whether they are copies of these.
    """
    met: dict[str, Sequence[HashedFilm]] = {}
    unknown = {}
    if splits.train:
        met["training"] = splits.train
    else:
        unknown["training"] = "the films of the training are not at hand"
    try:
        met["pretraining"] = pretraining_films(finetuned)
    except MimError as error:
        unknown["pretraining"] = str(error)
    if "pretraining" in unknown and finetuned.init and finetuned.init_weights:
        logger.warning("near copies of pretraining films are not looked for: %s", unknown["pretraining"])
    ordered = {place: met[place] for place in PLACES if place in met}
    films = {place: len(known) for place, known in ordered.items()}
    return CopiesMet(find_near_copies(splits.test, ordered), unknown, films, len(splits.test))


def pretraining_films(finetuned: FinetuneConfig) -> Sequence[HashedFilm]:
    """The films that the pretraining run of `init` met; none where the encoder began with fresh weights.

    Raises:
        MimError: that is not known, in words for the report.
    """
    encoder = finetuned.encoder
    if finetuned.init is None or not finetuned.init_weights:
        if encoder and (encoder.pretrained or encoder.weights):
            raise MimError("the films behind the published weights are not listed anywhere")
        return ()
    path = Path(finetuned.init) / "seen.csv"
    if not path.is_file():
        raise MimError("the pretraining run is no longer at hand")
    try:
        films = load_seen(path).films
    except MimError as error:  # it names the path, which has no business in a report
        raise MimError("the list of what it met, its seen.csv, cannot be read") from error
    if films is None:
        raise MimError("the pretraining run was made by a version that did not write down how its films look")
    return films
