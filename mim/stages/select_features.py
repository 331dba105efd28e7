"""Command line: python -m mim.stages.select_features [RUN] [CONFIG.yaml] [key=value ...]."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mim import __version__
from mim.config import TrainingConfig, door, dump_config, parse_door_arguments
from mim.config.select_features import SelectFeaturesConfig
from mim.data import LabelledFilm, LabelledFilms, PreparedDataset, attach_labels, dataset_salt, load_splits
from mim.data.augment import evaluation_transform
from mim.data.clinical import ClinicalColumn, ClinicalEncoding, read_clinical
from mim.data.drawing import group_patients
from mim.data.loader import FilmDataset, evaluation_loader
from mim.errors import MimError
from mim.evaluation.selection import TITLES, Selection, measure_selection
from mim.files import write_atomically
from mim.models import build_encoder, load_encoder_weights, read_exported
from mim.stages.common import content_hash, logger, open_films, start_logging, write_lines, writing
from mim.stages.feature_folds import FeatureTable, select_on_folds
from mim.training import make_fabric

_WORDS_UNWRITTEN = "site"  # names of places are written nowhere; they are numbered


def select_features(config: SelectFeaturesConfig) -> Path:
    """Selects features on every training set of a cross-validation, and writes what came of it.

    Returns:
        The folder with features.csv, selection.json, selection.svg and config.yaml.

    Raises:
        MimError: bad settings, data or files, in one line.
    """
    if config.run is None and not config.data.clinical:
        raise MimError("there are no features: give run=<run of train.py>, data.clinical=[<columns>], or both")
    films, labelled = labelled_rows(config)
    table = read_features(config, films, labelled)
    settings = config.masker
    results = select_on_folds(table, settings, folds=config.folds, repeats=config.repeats, seed=config.seed)
    selection = measure_selection(
        table.names,
        table.values,
        table.label,
        table.patient,
        results.selected,
        results.chance,
        results.weight,
        results.lasso,
        results.score,
        resamples=config.bootstrap,
        confidence=config.confidence,
        seed=config.seed,
        header={
            "target": f"{labelled.target}: {labelled.classes[1]} against {labelled.classes[0]}",
            "data": content_hash(films, [film.index for film in labelled.films])[:16],
            "version": __version__,
            "seed": config.seed,
        },
        settings={**settings.model_dump(), "folds": config.folds, "repeats": config.repeats}
        | {"bootstrap": config.bootstrap, "confidence": config.confidence},
    )
    output = Path(config.output)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "config.yaml", dump_config(config))
        selection.save(output)
    for warning in selection.figures["warnings"]:
        logger.warning("%s", warning)
    write_lines(*summarise(selection, config.confidence), f"features: {output / 'features.csv'}")
    return output


def labelled_rows(config: SelectFeaturesConfig) -> tuple[PreparedDataset, LabelledFilms]:
    """Opens the films and joins their labels, without those that the selection must not meet.

    Raises:
        MimError: a setting or column is missing, or nothing is left.
    """
    data = config.data
    if data.labels is None or data.target is None:
        missing = "labels" if data.labels is None else "target"
        raise MimError(f"data.{missing} is not set: give data.labels=<CSV in data.path> and data.target=<its column>")
    if data.train_limit is not None:
        raise MimError("data.train_limit has nothing to limit here: every fold of the patients is used; leave it out")
    films = open_films(data)
    labelled = attach_labels(films, Path(data.path), data.labels, data.target, dataset_salt(films, Path(data.cache)))
    learnt_from, test = known_splits(config.run, labelled)
    if not data.include_test:
        test |= {film.patient_id for film in labelled.films if film.split == "test"}
        learnt_from |= test
    kept = tuple(film for film in labelled.films if film.patient_id not in learnt_from)
    if dropped := len(labelled.films) - len(kept):
        logger.info("%d of %d labelled films are of patients left out", dropped, len(labelled.films))
    if not test and not data.include_test:
        logger.warning(
            "%s names no test patients: a test that is drawn later is not independent of this selection", labelled.path
        )
    if len({film.label for film in kept}) < 2:
        raise MimError(
            f"{labelled.path}: {len(kept)} films are left and not of both classes, without the test and the patients "
            "that the encoder was fine-tuned on; give a run of train.py, or data.include_test=true"
        )
    return films, replace(labelled, films=kept)


def known_splits(run: str | None, labelled: LabelledFilms) -> tuple[set[str], set[str]]:
    """Patients whose labels the encoder of a run of finetune.py has met, and those of its test; none otherwise.

    The embeddings of the former know their labels: an AUROC over them would be of memory.

    Raises:
        MimError: the run was of other films.
    """
    path = Path(run or "") / "splits.csv"
    if run is None or not path.is_file():
        return set(), set()
    rows = load_splits(path)
    if not {row.patient_id for row in rows} & {film.patient_id for film in labelled.films}:
        raise MimError(f"{path}: knows none of these patients; give the data.path and data.cache of that run")
    learnt_from, test = ({row.patient_id for row in rows if row.split == name} for name in ("train", "test"))
    return learnt_from, test


def read_features(config: SelectFeaturesConfig, films: PreparedDataset, labelled: LabelledFilms) -> FeatureTable:
    """Clinical columns and embeddings of the films, side by side.

    Raises:
        MimError: a column is unknown or cannot be used, or the run has no encoder.
    """
    parts: list[NDArray[np.float32]] = []
    names: list[str] = []
    if config.data.clinical:
        clinical = read_clinical(labelled, config.data.clinical)
        cells = clinical.of_films(labelled.films)
        encoding = ClinicalEncoding.fit(clinical, cells)  # which words there are; what is learnt is learnt in each fold
        parts.append(encoding.encode(cells, standardise=False))
        names += [name for column in encoding.columns for name in written_names(column)]
    if config.run is not None:
        embedded = embed(config, films, labelled.films)
        parts.append(embedded)
        names += [f"embedding {number}" for number in range(embedded.shape[1])]
    groups = group_patients(labelled.films)
    return FeatureTable(
        np.concatenate(parts, axis=1),
        tuple(names),
        np.array([film.label for film in labelled.films], dtype=np.int64),
        tuple(groups[film.patient_id] for film in labelled.films),
    )


def written_names(column: ClinicalColumn) -> tuple[str, ...]:
    """Names of a column's features as they may be written."""
    if column.name != _WORDS_UNWRITTEN or not column.words:
        return column.names
    return tuple(f"{column.name} {number}" for number in range(1, len(column.words) + 1))


def embed(
    config: SelectFeaturesConfig, films: PreparedDataset, chosen: tuple[LabelledFilm, ...]
) -> NDArray[np.float32]:
    """(N, D) what the encoder of a run makes of whole films.

    Raises:
        MimError: the run has no encoder.
    """
    run = Path(str(config.run))
    exported = read_exported(run)
    encoder = build_encoder(exported.spec)
    load_encoder_weights(encoder, run)
    fabric = make_fabric(TrainingConfig(accelerator=config.accelerator))
    encoder = fabric.to_device(encoder.eval())
    indices = [film.index for film in chosen]
    dataset = FilmDataset(films, indices, evaluation_transform(exported.spec.image_size), config.seed)
    loader = evaluation_loader(dataset, batch_size=config.batch_size, workers=0)
    pooled = []
    with torch.inference_mode():
        for batch in tqdm(loader, desc="embed", unit="batch", leave=False, disable=None):
            image = (fabric.to_device(batch["image"]) - exported.mean) / exported.std
            pooled.append(encoder(image).pooled.float().cpu())
    return torch.cat(pooled).numpy()


def summarise(selection: Selection, confidence: float) -> list[str]:
    """The figures a reader wants first, a line each."""
    figures = selection.figures
    level = f"{confidence * 100:g} % interval"
    lines = [f"{figures['rows']} films of {figures['patients']} patients, {figures['positives']} positive"]
    for name, title in TITLES.items():
        own = figures["auroc"][name]
        between = "no interval" if own["low"] is None else f"{level} {own['low']:.3f} to {own['high']:.3f}"
        lines.append(f"AUC, {title}: {own['value']:.3f} ({between})")
    stability = figures["stability"]
    kept = f"{figures['selected']:.1f} of {figures['features']} features on average"
    if stability["value"] is None:
        return [*lines, f"selected: {kept}"]
    return [
        *lines,
        f"selected: {kept}; stability over {figures['selections']} training sets {stability['value']:.2f} "
        f"({level} {stability['low']:.2f} to {stability['high']:.2f})",
    ]


def main() -> None:
    """Reads the settings and runs the stage."""
    arguments = parse_door_arguments(
        SelectFeaturesConfig,
        sys.argv[1:],
        program="python -m mim.stages.select_features",
        summary="Select the features a linear head needs, and say how sure that is.",
        positional="run",
    )
    if arguments is not None:
        start_logging()
        select_features(arguments.config)


if __name__ == "__main__":
    sys.exit(door(main))
