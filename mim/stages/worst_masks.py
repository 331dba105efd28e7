"""The films of a segmenter's test with the worst errors, for its report."""

from collections.abc import Sequence

import numpy as np

from mim.data.annotations import draw_lesions
from mim.evaluation import FilmMasks, Overlap, SegmentedClasses
from mim.evaluation.segmentation import FOUND
from mim.evaluation.segmentation_report import choose_worst_masks
from mim.stages.segmentation import at_size
from mim.stages.segmenter_films import Segmenter


def worst_masks(
    segmenter: Segmenter, test: SegmentedClasses, thresholds: Sequence[float]
) -> tuple[list[FilmMasks], list[FilmMasks]]:
    """Test films with the most lesions that were not found, and with the most drawn where there is none."""
    films = {film.image_id: film for film in segmenter.known.splits.test}
    every = [test.of_image(place) for place in range(len(test))]
    missed, false = choose_worst_masks(every, segmenter.config.worst)
    places = list(dict.fromkeys([*missed, *false]))
    shown = {}
    drawn = segmenter.maps([films[test.image_id[place]] for place in places])
    for place, (film, probability, visible) in zip(places, drawn, strict=True):
        stored = segmenter.known.films.levels(film.index).full
        planes = zip(probability, thresholds, strict=True)
        shown[place] = FilmMasks(
            image_id=film.image_id,
            patient_id=film.patient_id,
            image=stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max),
            truth=np.stack([draw_lesions(own, stored.shape) for own in segmenter.lesions(film)]),
            drawn=np.stack([at_size(plane, stored.shape).numpy() >= at for plane, at in planes]),
            said=tuple(describe_classes(test.classes, every[place])),
            visible=None if segmenter.finetuned.masker.kind == "none" else visible,
            classes=tuple(test.classes),
        )
    return [shown[place] for place in missed], [shown[place] for place in false]


def describe_classes(classes: Sequence[str], overlaps: Sequence[Overlap]) -> list[str]:
    """Says what happened on a film, of several classes a line for each that is on it or was drawn."""
    if len(classes) == 1:
        return [describe_masks(overlaps[0])]
    return [
        f"{number} {name}: {describe_masks(own)}"
        for number, (name, own) in enumerate(zip(classes, overlaps, strict=True), 1)
        if own.lesions or own.drawn
    ]


def describe_masks(own: Overlap) -> str:
    """Says what was found, missed and drawn wrongly."""
    found = sum(lesion.covered >= FOUND for lesion in own.lesions)
    said = [f"{found} of {len(own.lesions)} lesions found"] if own.lesions else ["no lesion"]
    if own.lesions:
        said.append(f"Dice {2 * own.both / (own.area + own.drawn):.3f}")
    if own.false_parts:
        parts = "1 drawn part touches" if own.false_parts == 1 else f"{own.false_parts} drawn parts touch"
        said.append(f"{parts} no lesion ({own.false_area} pixels)")
    return f"{'; '.join(said)}."
