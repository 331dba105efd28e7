"""Evaluation of a run on pixels: masks film by film and lesion by lesion, figures and a report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.data import LabelledFilm, save_near_copies
from mim.data.annotations import Lesion, draw_lesions
from mim.evaluation import (
    FilmMasks,
    Header,
    Overlap,
    PixelCounts,
    Section,
    SegmentedImages,
    Settings,
    overlap,
    segmentation_section,
    write_segmentation_report,
)
from mim.evaluation.external import ExternalTest, facts_of_external
from mim.evaluation.model_card import write_model_card
from mim.evaluation.segmentation import FOUND
from mim.evaluation.segmentation_card import facts_of_segmentation
from mim.evaluation.segmentation_report import choose_worst_masks
from mim.evaluation.segmentation_section import WITHOUT_CHOICE
from mim.stages.annotated_films import AnnotatedFilms, count_boxes
from mim.stages.classifier import TaskDescription
from mim.stages.common import logger, write_lines, writing
from mim.stages.evaluate import count_lesions, describe_leakage, make_header, open_finished
from mim.stages.external import Opened, films_to_measure
from mim.stages.found_boxes import stored_part
from mim.stages.mask_safety import mask_safety
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import FILE as NEAR_COPIES
from mim.stages.near_copies import CopiesMet, look_for_copies
from mim.stages.segmentation import (
    at_size,
    draw_maps,
    load_segmenter,
    make_segmentation_dataset,
    outline_hash,
    outlined_films,
    refuse_bare_boxes,
)
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import require_own_films
from mim.stages.write_evaluation import output_of
from mim.tasks import MaskedSegmenter
from mim.training import make_fabric

TABLE = "segmentation.csv"
THRESHOLDS = "segmentation_thresholds.csv"
UNIT = "pixels of the film"


@dataclass(frozen=True, eq=False)
class Segmenter:
    """A finished segmenter with its films.

    Attributes:
        config: settings of evaluate.py.
        finetuned: settings of the run.
        known: its films, and what is annotated on them.
        image_size: height and width of what the network meets.
        task: on the device, in evaluation mode.
        device: where it is.
    """

    config: EvaluateConfig
    finetuned: FinetuneConfig
    known: AnnotatedFilms
    image_size: tuple[int, int]
    task: MaskedSegmenter
    device: torch.device

    def maps(self, chosen: Sequence[LabelledFilm]) -> Iterator[tuple[LabelledFilm, Tensor, NDArray[np.bool_]]]:
        """Gives for each film probabilities (H, W) as the network has them, and what it saw (gh, gw)."""
        dataset = make_segmentation_dataset(self.finetuned, self.known, chosen, self.image_size, training=False)
        drawn = draw_maps(self.task, dataset, self.config.batch_size, self.device, shown=True)
        for film, (probability, visible) in zip(chosen, drawn, strict=True):
            yield film, probability, visible.numpy()

    def part(self, film: LabelledFilm) -> tuple[int, int]:
        """Height and width of what is stored of a film, in pixels of the whole film before it was reduced."""
        _, _, width, height = stored_part(self.known.films.rows[film.index])
        return height, width

    def lesions(self, film: LabelledFilm) -> list[Lesion]:
        """What is annotated on a film; what has no pixel on it is left out."""
        size = self.part(film)
        return [lesion for lesion in self.known.annotations.of(film.index) if lesion.draw(size).any()]


def evaluate_segmenter(config: EvaluateConfig) -> Path:
    """Measures a run on its test films; writes report.html, model_card.md, metrics.json and the tables behind them.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    opened = films_to_measure(Opened(config, run, finetuned, description), own_outlined, "pixels or splits")
    known, external = opened.annotated, opened.external
    if external is not None:
        require_own_films(opened, run, finetuned)
        refuse_bare_boxes(known.annotations, known.splits.test, finetuned)
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(load_segmenter(run, finetuned, description))
    segmenter = Segmenter(config, finetuned, known, description.encoder.image_size, task, fabric.device)
    counts = count_pixels(segmenter)
    threshold = counts.choose()
    drawn_from = WITHOUT_CHOICE if threshold.value is None else threshold.value
    images, shown, unscored = measure_films(segmenter, drawn_from)
    test = images.of("test")
    settings = Settings(config.bootstrap, config.confidence, config.specificity, config.seed)
    asked = config.segmentation
    section = segmentation_section(
        test.overlaps,
        test.patient_id,
        settings,
        tolerance=asked.tolerance,
        unit=UNIT,
        empty_truth=asked.empty_truth,
        threshold=threshold,
        columns=test.columns,
    )
    hidden = segmenter_mask(segmenter, shown)
    before = () if hidden is None else (hidden,)
    met = look_for_copies(finetuned, known.splits)
    header = segmentation_header(segmenter, run, description, met, external)
    warnings = [*describe_leakage(description, known.splits, external), *unscored, *met.warnings]
    missed, false = worst_masks(segmenter, images, drawn_from)
    output = output_of(config, run, header)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        images.save(output / TABLE)
        counts.save(output / THRESHOLDS)
        save_near_copies(output / NEAR_COPIES, met.copies)
        own = facts_of_segmentation(images, section, settings, header, warnings, asked.empty_truth)
        first_lines = [line for one in (*before, section) for line in one.first_lines]
        facts = facts_of_run(finetuned, description, met) | own | facts_of_external(external, met.counts)
        write_model_card(output, facts, [*warnings, *first_lines])
        report = write_segmentation_report(
            output, section, settings, header, missed, false, warnings, before, empty_truth=asked.empty_truth
        )
    for warning in (*warnings, *first_lines):
        logger.warning("%s", warning)
    counted = f"test: {len(test)} films of {len(set(test.patient_id))} patients"
    summaries = (line for one in (*before, section) for line in one.summary)
    write_lines(counted, *summaries, f"masks: {output / TABLE}", f"report: {report}")
    return output


def own_outlined(finetuned: FinetuneConfig) -> TestedFilms:
    """Opens the films of a run with the pixels of their lesions, as its training did."""
    known = outlined_films(finetuned)
    return TestedFilms(known.films, known.splits, outline_hash(known), known.annotations)


def count_pixels(segmenter: Segmenter) -> PixelCounts:
    """Counts the pixels of the validation films by their probabilities, in pixels of the whole film."""
    counts = PixelCounts()
    for film, probability, _ in segmenter.maps(segmenter.known.splits.val):
        if probability.isfinite().all():
            size = segmenter.part(film)
            counts.add(at_size(probability, size).numpy(), draw_lesions(segmenter.lesions(film), size))
    return counts


def segmenter_mask(segmenter: Segmenter, shown: Mapping[int, NDArray[np.bool_]]) -> Section | None:
    """Gives `mask_safety` of the test films.

    Args:
        segmenter: the run.
        shown: (gh, gw) what it saw, by the number of the film in the dataset.
    """
    test = segmenter.known.splits.test
    if not test:
        return None
    films, patients = [film.index for film in test], [film.patient_id for film in test]
    visible = np.stack([shown[film] for film in films])
    annotations, size = segmenter.known.annotations, segmenter.image_size
    return mask_safety(segmenter.config, segmenter.finetuned, visible, films, patients, annotations, size)


def measure_films(
    segmenter: Segmenter, drawn_from: float
) -> tuple[SegmentedImages, dict[int, NDArray[np.bool_]], list[str]]:
    """Measures the masks of the validation and test films.

    Args:
        segmenter: the run.
        drawn_from: probability from which a pixel is drawn.

    Returns:
        What was measured; what was seen of each film (gh, gw), by its number in the dataset; and a sentence where films
        have no finite probabilities and were left out of the first.
    """
    splits = segmenter.known.splits
    split = dict.fromkeys((film.index for film in splits.val), "val")
    split |= dict.fromkeys((film.index for film in splits.test), "test")
    overlaps: list[Overlap] = []
    films: list[LabelledFilm] = []
    lesions: list[Lesion] = []
    keep: list[float] = []
    shown: dict[int, NDArray[np.bool_]] = {}
    unscored: list[str] = []
    asked = segmenter.config.segmentation
    for film, probability, visible in segmenter.maps((*splits.val, *splits.test)):
        shown[film.index] = visible
        if not probability.isfinite().all():
            unscored.append(film.image_id)
            continue
        size, own = segmenter.part(film), segmenter.lesions(film)
        measured = overlap(
            draw_lesions(own, size),
            at_size(probability, size).numpy() >= drawn_from,
            tolerance=asked.tolerance,
            empty_truth=asked.empty_truth,
            lesions=(lesion.draw(size) for lesion in own),
        )
        overlaps.append(measured)
        films.append(film)
        lesions += own
        keep.append(float(visible.mean()))
    told = {
        "grade": [lesion.grade for lesion in lesions],
        "tooth": [lesion.tooth for lesion in lesions],
        "category": [lesion.category for lesion in lesions] if len(segmenter.known.annotations.categories) > 1 else [],
    }
    images = SegmentedImages(
        image_id=[film.image_id for film in films],
        patient_id=[film.patient_id for film in films],
        split=[split[film.index] for film in films],
        overlaps=overlaps,
        keep_rate=keep,
        columns={name: values for name, values in told.items() if any(values)},
    )
    if not unscored:
        return images, shown, []
    said = f"{len(unscored)} of {len(split)} films (the first is {unscored[0]}) have probabilities that are no numbers"
    return images, shown, [f"{said} and are left out of the figures; look for a diverged training."]


def segmentation_header(
    segmenter: Segmenter, run: Path, description: TaskDescription, met: CopiesMet, external: ExternalTest | None = None
) -> Header:
    """What the figures belong to, in hashes."""
    known, finetuned = segmenter.known, segmenter.finetuned
    splits = known.splits
    target = f"the pixels of {description.classes[0]}"
    header = make_header(
        run, finetuned, description, known.films, (*splits.val, *splits.test), splits, met, target, external
    )
    counted = count_boxes(known).replace("boxes", "lesions")
    filled = {"Annotations without pixels": "the whole box counts"} if finetuned.segment.boxes == "fill" else {}
    return replace(
        header,
        more={**header.more, "Head": finetuned.segment.head, "Films": counted, "Near copies": met.describe(), **filled},
        trained_on={
            **header.trained_on,
            "positives": sum(len(known.annotations.of(film.index)) > 0 for film in splits.train),
        },
        lesions=count_lesions(known.annotations, splits),
    )


def worst_masks(
    segmenter: Segmenter, images: SegmentedImages, drawn_from: float
) -> tuple[list[FilmMasks], list[FilmMasks]]:
    """Test films with the most lesions that were not found, and with the most drawn where there is none."""
    test = images.of("test")
    films = {film.image_id: film for film in segmenter.known.splits.test}
    missed, false = choose_worst_masks(test.overlaps, segmenter.config.worst)
    places = list(dict.fromkeys([*missed, *false]))
    shown = {}
    drawn = segmenter.maps([films[test.image_id[place]] for place in places])
    for place, (film, probability, visible) in zip(places, drawn, strict=True):
        stored = segmenter.known.films.levels(film.index).full
        shown[place] = FilmMasks(
            image_id=film.image_id,
            patient_id=film.patient_id,
            image=stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max),
            truth=draw_lesions(segmenter.lesions(film), stored.shape),
            drawn=at_size(probability, stored.shape).numpy() >= drawn_from,
            said=describe_masks(test.overlaps[place]),
            visible=None if segmenter.finetuned.masker.kind == "none" else visible,
        )
    return [shown[place] for place in missed], [shown[place] for place in false]


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
