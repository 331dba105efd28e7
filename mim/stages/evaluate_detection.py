"""Evaluation of a run on boxes: detections, figures and a report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim.config import EvaluateConfig, FinetuneConfig, TrainingConfig
from mim.data import LabelledFilm
from mim.data.loader import Batched
from mim.data.manifest import ManifestRow
from mim.evaluation import (
    DetectionErrors,
    FilmErrors,
    Searched,
    Settings,
    choose_detection_threshold,
    detection_section,
    find_errors,
    write_detection_report,
)
from mim.evaluation.detection_card import facts_of_detection
from mim.stages.annotated_films import annotated_films, classes_in_words, count_boxes
from mim.stages.detection import load_detector, make_detection_dataset
from mim.stages.detection_mask import detector_mask
from mim.stages.evaluate import count_lesions, describe_leakage, make_header, open_finished
from mim.stages.external import Opened, films_to_measure
from mim.stages.found_boxes import Found, find_boxes, stored_part, to_detections, to_lesions
from mim.stages.groups import with_lesion_groups
from mim.stages.model_card import facts_of_run
from mim.stages.near_copies import look_for_copies
from mim.stages.predict_boxes import NO_NUMBERS, has_numbers
from mim.stages.tested_films import TestedFilms
from mim.stages.validation_tables import followed_by_validation
from mim.stages.write_evaluation import output_of, write_evaluation
from mim.training import make_fabric


def evaluate_detector(config: EvaluateConfig) -> Path:
    """Measures a run on its test films; writes report.html, model_card.md and the tables behind them.

    Returns:
        The folder they are in.

    Raises:
        MimError: the run is not finished, or its data changed, in one line.
    """
    run, finetuned, description = open_finished(config)
    opened = films_to_measure(Opened(config, run, finetuned, description), own_annotated, "boxes or splits")
    known, chosen, external = opened.annotated, opened.chosen, opened.external
    split = ["val"] * len(known.splits.val) + ["test"] * len(known.splits.test)
    rows = [known.films.rows[film.index] for film in chosen]
    groups = opened.groups_for(config, finetuned)
    dataset = make_detection_dataset(finetuned, known, chosen, description.encoder.image_size, training=False)
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    task = fabric.to_device(load_detector(run, finetuned, description))
    found = find_boxes(task, dataset, config.batch_size, fabric.device, shown=True)
    detections = to_detections(found, chosen, split, rows, description.classes)
    lesions = with_lesion_groups(to_lesions(known.annotations, chosen, rows), groups, chosen)
    if not opened.own_at_hand:
        detections, lesions = followed_by_validation(run, detections, lesions)
    settings = Settings(config.bootstrap, config.confidence, config.specificity, config.seed)
    section = detection_section(detections, lesions, settings)
    target = f"boxes of {classes_in_words(description.classes)}"
    met = look_for_copies(finetuned, known.splits)
    header = make_header(run, finetuned, description, known.films, chosen, known.splits, met, target, external)
    with_boxes = sum(len(known.annotations.of(film.index)) > 0 for film in known.splits.train)
    header = replace(
        header,
        more={**header.more, "Head": finetuned.detect.head, "Films": count_boxes(known)},
        trained_on={**header.trained_on, "positives": with_boxes} if header.trained_on else {},
        lesions=count_lesions(known.annotations, known.splits),
    )
    broken = [] if has_numbers(task) else [f"The model cannot be measured: {NO_NUMBERS}."]
    warnings = [*describe_leakage(description, known.splits, external), *broken, *met.warnings]
    searched = Searched(detections, lesions)
    hidden = detector_mask(config, finetuned, known, found, description.encoder.image_size)
    before = () if hidden is None else (hidden,)
    missed, false = worst_films(config, finetuned, searched, chosen, rows, dataset, found)

    def write(output: Path) -> Path:
        detections.save(output / "detections.csv")
        lesions.save(output / "lesions.csv")
        return write_detection_report(output, section, settings, header, missed, false, warnings, before)

    facts = facts_of_run(finetuned, description, met) | facts_of_detection(section, settings, header, warnings)
    said = [*warnings, *(line for one in (*before, section) for line in one.first_lines)]
    output, test = output_of(config, run, header), known.splits.test
    counted = f"test: {len(test)} films of {len({film.patient_id for film in test})} patients"
    summaries = (line for one in (*before, section) for line in one.summary)
    lines = [counted, *summaries, f"detections: {output / 'detections.csv'}"]
    return write_evaluation(output, header, met, facts, said, write, lines)


def own_annotated(finetuned: FinetuneConfig) -> TestedFilms:
    """Opens the annotated films of a run, as its training did."""
    known = annotated_films(finetuned)
    return TestedFilms(known.films, known.splits, known.hash(), known.annotations)


def worst_films(
    config: EvaluateConfig,
    finetuned: FinetuneConfig,
    searched: Searched,
    chosen: Sequence[LabelledFilm],
    rows: Sequence[ManifestRow],
    dataset: Batched,
    found: Found,
) -> tuple[list[FilmErrors], list[FilmErrors]]:
    """Test films with the most missed lesions, and with the most confident wrong marks."""
    threshold = choose_detection_threshold(searched.of("val")).value
    if threshold is None:
        return [], []
    tested = [error for error in find_errors(searched, threshold) if searched.detections.split[error.image] == "test"]
    by_missed = sorted((error for error in tested if len(error.missed)), key=lambda error: -len(error.missed))
    by_false = sorted((error for error in tested if len(error.false)), key=lambda error: -error.worst)

    def show(error: DetectionErrors) -> FilmErrors:
        place = error.image
        image = dataset[0, place]["image"][0].numpy()
        height, width = image.shape
        left, top, wide, high = stored_part(rows[place])
        scale = np.array([width / wide, height / high] * 2)
        corner = np.array([left, top] * 2)
        return FilmErrors(
            image_id=chosen[place].image_id,
            patient_id=chosen[place].patient_id,
            image=image,
            missed=((searched.lesions.boxes[error.missed] - corner) * scale).tolist(),
            false=((searched.detections.boxes[error.false] - corner) * scale).tolist(),
            said=describe_errors(error, searched),
            visible=None if finetuned.masker.kind == "none" else found.visible[place].numpy(),
        )

    return [show(error) for error in by_missed[: config.worst]], [show(error) for error in by_false[: config.worst]]


def describe_errors(error: DetectionErrors, searched: Searched) -> str:
    """Says what was found, missed and marked wrongly, by class where there are several."""
    parts = [f"{error.found} of {error.found + len(error.missed)} lesions found"]
    if len(error.missed):
        parts.append("missed: " + _counted([searched.lesions.label[place] for place in error.missed.tolist()]))
    if len(error.false):
        named = _counted([searched.detections.label[place] for place in error.false.tolist()])
        parts.append(f"wrong marks: {named}, the highest score {error.worst:.3f}")
    return "; ".join(parts) + "."


def _counted(labels: Sequence[str]) -> str:
    counts = {label: labels.count(label) for label in dict.fromkeys(labels)}
    return ", ".join(label if count == 1 else f"{count} x {label}" for label, count in counts.items())
