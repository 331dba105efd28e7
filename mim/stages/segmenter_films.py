"""A finished segmenter on the films of its run: how well it draws them, class by class."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import LabelledFilm
from mim.data.annotations import Lesion, draw_lesions
from mim.data.groups import Groups
from mim.evaluation import Overlap, PixelCounts, SegmentedClasses, SegmentedImages, Threshold, overlap
from mim.evaluation.segmentation_section import WITHOUT_CHOICE
from mim.stages.annotated_films import AnnotatedFilms
from mim.stages.found_boxes import stored_part
from mim.stages.segmentation import at_size, draw_maps, lesions_by_class, make_segmentation_dataset
from mim.tasks import MaskedSegmenter

OF_LESIONS = {"severity": "grade", "tooth": "tooth"}
"""Which column of the lesions says more than one of their films."""


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A finished segmenter with its films.

    Attributes:
        config: settings of evaluate.py.
        finetuned: settings of the run.
        classes: what is drawn, one map each.
        known: its films, and what is annotated on them.
        image_size: height and width of what the network meets.
        task: on the device, in evaluation mode.
        device: where it is.
    """

    config: EvaluateConfig
    finetuned: FinetuneConfig
    classes: tuple[str, ...]
    known: AnnotatedFilms
    image_size: tuple[int, int]
    task: MaskedSegmenter
    device: torch.device

    def maps(self, chosen: Sequence[LabelledFilm]) -> Iterator[tuple[LabelledFilm, Tensor, NDArray[np.bool_]]]:
        """Gives for each film probabilities (K, H, W) as the network has them, and what it saw (gh, gw)."""
        dataset = make_segmentation_dataset(self.finetuned, self.known, chosen, self.image_size, training=False)
        drawn = draw_maps(self.task, dataset, self.config.batch_size, self.device, shown=True)
        for film, (probability, visible) in zip(chosen, drawn, strict=True):
            yield film, probability, visible.numpy()

    def part(self, film: LabelledFilm) -> tuple[int, int]:
        """Height and width of what is stored of a film, in pixels of the whole film before it was reduced."""
        _, _, width, height = stored_part(self.known.films.rows[film.index])
        return height, width

    def lesions(self, film: LabelledFilm) -> tuple[list[Lesion], ...]:
        """What is annotated on a film, by class; what has no pixel on it is left out."""
        size = self.part(film)
        drawn = [lesion for lesion in self.known.annotations.of(film.index) if lesion.draw(size).any()]
        return lesions_by_class(drawn, len(self.classes))


def count_pixels(segmenter: Segmenter) -> list[PixelCounts]:
    """Counts the pixels of the validation films by their probabilities, in pixels of the whole film, class by class."""
    counts = [PixelCounts() for _ in segmenter.classes]
    for film, probability, _ in segmenter.maps(segmenter.known.splits.val):
        if probability.isfinite().all():
            size = segmenter.part(film)
            for own, plane, lesions in zip(counts, probability, segmenter.lesions(film), strict=True):
                own.add(at_size(plane, size).numpy(), draw_lesions(lesions, size))
    return counts


def drawn_from(thresholds: Iterable[Threshold]) -> list[float]:
    """The probability from which a pixel of each class is drawn: the one that was chosen, else one half."""
    return [WITHOUT_CHOICE if threshold.value is None else threshold.value for threshold in thresholds]


@dataclass(eq=False)
class MeasuredFilms:
    """What was measured, film by film.

    Attributes:
        films: which.
        overlaps: of each class, one a film.
        lesions: of each class, those of all films.
        keep: share of the cells that was seen of each film.
        shown: what was seen of each film (gh, gw), by its number in the dataset; of those that are left out, too.
        unscored: names of the films without finite probabilities, which are left out.
    """

    films: list[LabelledFilm] = field(default_factory=list)
    overlaps: list[list[Overlap]] = field(default_factory=list)
    lesions: list[list[Lesion]] = field(default_factory=list)
    keep: list[float] = field(default_factory=list)
    shown: dict[int, NDArray[np.bool_]] = field(default_factory=dict)
    unscored: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """A sentence where films are left out."""
        if not self.unscored:
            return []
        count, total = len(self.unscored), len(self.unscored) + len(self.films)
        said = f"{count} of {total} films (the first is {self.unscored[0]}) have probabilities that are no numbers"
        return [f"{said} and are left out of the figures; look for a diverged training."]


def measure_films(segmenter: Segmenter, thresholds: Sequence[float]) -> MeasuredFilms:
    """Measures the masks of the validation and test films.

    Args:
        segmenter: the run.
        thresholds: probability from which a pixel is drawn, a class each.
    """
    splits, asked = segmenter.known.splits, segmenter.config.segmentation
    found = MeasuredFilms(overlaps=[[] for _ in thresholds], lesions=[[] for _ in thresholds])
    for film, probability, visible in segmenter.maps((*splits.val, *splits.test)):
        found.shown[film.index] = visible
        if not probability.isfinite().all():
            found.unscored.append(film.image_id)
            continue
        found.films.append(film)
        found.keep.append(float(visible.mean()))
        size = segmenter.part(film)
        for place, own in enumerate(segmenter.lesions(film)):
            measured = overlap(
                draw_lesions(own, size),
                at_size(probability[place], size).numpy() >= thresholds[place],
                tolerance=asked.tolerance,
                empty_truth=asked.empty_truth,
                lesions=(lesion.draw(size) for lesion in own),
            )
            found.overlaps[place].append(measured)
            found.lesions[place] += own
    return found


def tables_of(segmenter: Segmenter, found: MeasuredFilms, groups: Groups) -> SegmentedClasses:
    """Makes the tables of what was measured, with what divides lesions and films into groups."""
    splits = segmenter.known.splits
    split = dict.fromkeys((film.index for film in splits.val), "val")
    split |= dict.fromkeys((film.index for film in splits.test), "test")
    together = len(segmenter.classes) == 1 and len(segmenter.known.annotations.categories) > 1
    told = [_told(own, together=together) for own in found.lesions]
    names = [name for name in told[0] if any(any(own[name]) for own in told)]
    of_films = film_columns(groups, found, names)
    tables = [
        SegmentedImages(
            image_id=[film.image_id for film in found.films],
            patient_id=[film.patient_id for film in found.films],
            split=[split[film.index] for film in found.films],
            overlaps=overlaps,
            keep_rate=found.keep,
            columns={name: own[name] for name in names},
            image_columns=of_films,
        )
        for overlaps, own in zip(found.overlaps, told, strict=True)
    ]
    return SegmentedClasses(segmenter.classes, tables)


def groups_of_films(config: EvaluateConfig, known: AnnotatedFilms) -> EvaluateConfig:
    """The settings without groups that the lesions themselves tell: the table of labels need not have them."""
    lesions = [lesion for own in known.annotations.lesions.values() for lesion in own]
    told = {name for name, own in OF_LESIONS.items() if any(getattr(lesion, own) for lesion in lesions)}
    if config.groups is None or not told & set(config.groups):
        return config
    return config.model_copy(update={"groups": tuple(name for name in config.groups if name not in told)})


def film_columns(groups: Groups, found: MeasuredFilms, of_lesions: Sequence[str]) -> Mapping[str, list[str]]:
    """What divides the films into groups, but for what their lesions say better.

    Films without a lesion have no severity.
    """
    columns = {
        name: values
        for name, values in groups.of_films(found.films).items()
        if OF_LESIONS.get(name, name) not in of_lesions
    }
    if "severity" in columns:
        sick = [any(own[place].lesions for own in found.overlaps) for place in range(len(found.films))]
        columns["severity"] = [value if ill else "" for value, ill in zip(columns["severity"], sick, strict=True)]
    return {name: values for name, values in columns.items() if any(values)}


def _told(lesions: Sequence[Lesion], *, together: bool) -> dict[str, list[str]]:
    """What is said of lesions; their category where several are drawn as one class."""
    return {
        "grade": [lesion.grade for lesion in lesions],
        "tooth": [lesion.tooth for lesion in lesions],
        "category": [lesion.category for lesion in lesions] if together else [""] * len(lesions),
    }
