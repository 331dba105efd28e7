"""Evaluation of a run on pixels: masks film by film and lesion by lesion, figures and a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.evaluation import (
    Header,
    Section,
    SegmentedClasses,
    Settings,
    Threshold,
    segmentation_section,
    write_segmentation_report,
)
from mim.evaluation.external import ExternalTest
from mim.evaluation.segmentation_card import facts_of_segmentation
from mim.evaluation.segmentation_classes import save_thresholds
from mim.evaluation.segmentation_classes_section import segmentation_classes_section
from mim.stages.annotated_films import count_boxes
from mim.stages.classifier import TaskDescription
from mim.stages.evaluate import count_lesions, describe_leakage, make_header, open_finished
from mim.stages.external import Opened, films_to_measure
from mim.stages.mask_safety import mask_safety
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import CopiesMet, look_for_copies
from mim.stages.segmentation import load_segmenter, outline_hash, outlined_films, pixels_of, refuse_bare_boxes
from mim.stages.segmenter_films import (
    MeasuredFilms,
    Segmenter,
    count_pixels,
    drawn_from,
    groups_of_films,
    measure_films,
    tables_of,
)
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import require_own_films
from mim.stages.worst_masks import worst_masks
from mim.stages.write_evaluation import output_of, write_evaluation
from mim.training import make_fabric

TABLE = "segmentation.csv"
THRESHOLDS = "segmentation_thresholds.csv"
UNIT = "pixels of the film"


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
    groups = opened.groups_for(groups_of_films(config, known), finetuned)
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(load_segmenter(run, finetuned, description))
    size = description.encoder.image_size
    segmenter = Segmenter(config, finetuned, description.classes, known, size, task, fabric.device)
    counts = count_pixels(segmenter)
    thresholds = [own.choose() for own in counts]
    found = measure_films(segmenter, drawn_from(thresholds))
    images = tables_of(segmenter, found, groups)
    test = images.of("test")
    section = section_on(test, thresholds, config)
    hidden = segmenter_mask(segmenter, found)
    before = () if hidden is None else (hidden,)
    met = look_for_copies(finetuned, known.splits)
    header = segmentation_header(segmenter, run, description, met, external)
    warnings = [*describe_leakage(description, known.splits, external), *found.warnings, *met.warnings]
    missed, false = worst_masks(segmenter, test, drawn_from(thresholds))
    settings, rule = settings_of(config), config.segmentation.empty_truth
    output = output_of(config, run, header)

    def write(output: Path) -> Path:
        images.save(output / TABLE)
        save_thresholds(output / THRESHOLDS, images.classes, counts)
        return write_segmentation_report(
            output, section, settings, header, missed, false, warnings, before, empty_truth=rule
        )

    facts = facts_of_run(finetuned, description, met)
    facts |= facts_of_segmentation(images, thresholds, section, settings, header, warnings, rule)
    said = [*warnings, *(line for one in (*before, section) for line in one.first_lines)]
    counted = f"test: {len(test)} films of {len(set(test.patient_id))} patients"
    summaries = (line for one in (*before, section) for line in one.summary)
    lines = [counted, *summaries, f"masks: {output / TABLE}"]
    return write_evaluation(output, header, met, facts, said, write, lines)


def own_outlined(finetuned: FinetuneConfig) -> TestedFilms:
    """Opens the films of a run with the pixels of their lesions, as its training did."""
    known = outlined_films(finetuned)
    return TestedFilms(known.films, known.splits, outline_hash(known), known.annotations)


def settings_of(config: EvaluateConfig) -> Settings:
    """How intervals are made."""
    return Settings(config.bootstrap, config.confidence, config.specificity, config.seed)


def section_on(test: SegmentedClasses, thresholds: Sequence[Threshold], config: EvaluateConfig) -> Section:
    """The block of the report on the masks of test films; of several classes each, and their means."""
    asked, settings = config.segmentation, settings_of(config)
    if len(test.classes) > 1:
        return segmentation_classes_section(
            test,
            settings,
            tolerance=asked.tolerance,
            thresholds=thresholds,
            unit=UNIT,
            empty_truth=asked.empty_truth,
        )
    (own,) = test.images
    return segmentation_section(
        own.overlaps,
        own.patient_id,
        settings,
        tolerance=asked.tolerance,
        unit=UNIT,
        empty_truth=asked.empty_truth,
        threshold=thresholds[0],
        columns=own.lesion_columns,
        image_columns=own.image_columns,
    )


def segmenter_mask(segmenter: Segmenter, found: MeasuredFilms) -> Section | None:
    """Gives `mask_safety` of the test films; None where there is none."""
    test = segmenter.known.splits.test
    if not test:
        return None
    films, patients = [film.index for film in test], [film.patient_id for film in test]
    visible = np.stack([found.shown[film] for film in films])
    annotations, size = segmenter.known.annotations, segmenter.image_size
    return mask_safety(segmenter.config, segmenter.finetuned, visible, films, patients, annotations, size)


def segmentation_header(
    segmenter: Segmenter, run: Path, description: TaskDescription, met: CopiesMet, external: ExternalTest | None = None
) -> Header:
    """What the figures belong to, in hashes."""
    known, finetuned = segmenter.known, segmenter.finetuned
    splits = known.splits
    target = pixels_of(description.classes)
    header = make_header(
        run, finetuned, description, known.films, (*splits.val, *splits.test), splits, met, target, external
    )
    counted = count_boxes(known).replace("boxes", "lesions")
    filled = {"Annotations without pixels": "the whole box counts"} if finetuned.segment.boxes == "fill" else {}
    several = {"Classes": ", ".join(description.classes)} if len(description.classes) > 1 else {}
    return replace(
        header,
        more={
            **header.more,
            "Head": finetuned.segment.head,
            **several,
            "Films": counted,
            "Near copies": met.describe(),
            **filled,
        },
        trained_on={
            **header.trained_on,
            "positives": sum(len(known.annotations.of(film.index)) > 0 for film in splits.train),
        },
        lesions=count_lesions(known.annotations, splits),
    )
