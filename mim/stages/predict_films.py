"""Prediction film by film."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from mim.data.given_files import GivenFile, hash_file, read_given
from mim.stages.made_for import MadeFor
from mim.stages.predict_answers import Predictor
from mim.stages.predict_options import PredictOptions
from mim.stages.predict_reading import Reading, draw, take_apart
from mim.stages.predict_records import AnsweredPart, film_record, is_finite
from mim.stages.predict_table import Entry, Results


@dataclass(eq=False)
class FilmWork:
    """The prediction of single films.

    Attributes:
        options: what was asked for.
        model: what answers, in words.
        made_for: what films it was made for; None = not known.
        predictor: what answers.
        read_as: options of the preparation.
        results: what is known.
        already: how many files were known before.
    """

    options: PredictOptions
    model: Mapping[str, Any]
    made_for: MadeFor | None
    predictor: Predictor
    read_as: Mapping[str, Any]
    results: Results
    already: int = 0

    def run(self, files: Sequence[GivenFile]) -> list[str]:
        """Predicts the files that have no results yet; gives the names of all of them, in order."""
        names, to_read = [], []
        for file in files:
            name, sha256 = name_of(file, self.options)
            names.append(name)
            known = self.results.knows(name)
            if known and self.results.done(name, sha256 or hash_file(file.path), self.options.allow):
                self.already += 1
            else:
                to_read.append((name, file))
        given = [file for _, file in to_read]
        reading = zip(
            (name for name, _ in to_read),
            read_given(given, self.read_as, workers=self.options.workers),
            strict=True,
        )
        shown = tqdm(reading, total=len(given), desc="predict", unit="file", leave=False, disable=None)
        opened = (take_apart(name, read, self.made_for, self.options) for name, read in shown)
        for entry in self._answer(opened):
            self.results.add(entry)
        return names

    def _answer(self, files: Iterator[Reading]) -> Iterator[Entry]:
        """Asks for answers in batches of one size, as `evaluate.py` does, and gives files as they are complete."""
        waiting: list[Reading] = []
        for file in files:
            waiting.append(file)
            while sum(other.waits for other in waiting) >= self.options.batch_size:
                self._ask(waiting)
            while waiting and not waiting[0].waits:
                yield self._close(waiting.pop(0))
        while any(file.waits for file in waiting):
            self._ask(waiting)
        yield from map(self._close, waiting)

    def _ask(self, waiting: Sequence[Reading]) -> None:
        """Answers for the next batch of films."""
        batch = [(file, place) for file in waiting for place in range(len(file.answers), len(file.parts))]
        batch = batch[: self.options.batch_size]
        rows, levels = zip(*(file.parts[place] for file, place in batch), strict=True)
        answers = self.predictor(levels, rows)
        for (file, _), answer in zip(batch, answers, strict=True):
            file.answers.append(answer)

    def _close(self, file: Reading) -> Entry:
        """Makes the records of a file, with the pictures of its films."""
        films = []
        for frame, differs in file.differs.items():
            own = [place for place, (row, _) in enumerate(file.parts) if row.frame == frame]
            if not all(is_finite(file.answers[place]) for place in own):
                file.skip(frame, "not-finite", "the network gave a score that is no number; its training diverged")
                continue
            parts = [
                AnsweredPart(file.parts[place][0], file.answers[place], draw(self.options, self.model, file, place))
                for place in own
            ]
            films.append(film_record(file.name, file.sha256, parts, self.model, differs))
        return {"name": file.name, "sha256": file.sha256, "films": films, "skipped": file.skipped}


def name_of(file: GivenFile, options: PredictOptions) -> tuple[str, str | None]:
    """What a file is called in results, and its hash where that had to be known for it."""
    if not options.hide_names:
        return file.name, None
    sha256 = hash_file(file.path)
    return sha256[:16] or "unreadable", sha256
