"""Which groups the films of an evaluation are divided into."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mim.config import EvaluateConfig, FinetuneConfig
from mim.data import LabelledFilm, PreparedDataset
from mim.data.groups import Groups, read_groups
from mim.data.matching import locate
from mim.data.studies import Study
from mim.evaluation import Lesions, Predictions
from mim.evaluation.label_predictions import LabelPredictions

OF_THE_SICK = "severity"


def groups_of(config: EvaluateConfig, finetuned: FinetuneConfig, films: PreparedDataset) -> Groups:
    """Reads what divides the films of a run into groups.

    Raises:
        MimError: a column that `groups` names is not there, or cannot be used.
    """
    assert finetuned.data.labels is not None
    return read_groups(films, locate(films, Path(finetuned.data.path), finetuned.data.labels), config.groups)


def with_film_groups(predictions: Predictions, groups: Groups, films: Sequence[LabelledFilm]) -> Predictions:
    """Adds the columns of films, in the order of the table."""
    return _with(predictions, groups.of_films(films))


def with_label_groups(predictions: LabelPredictions, groups: Groups, films: Sequence[LabelledFilm]) -> LabelPredictions:
    """Adds the columns of films, in the order of the table; of the mildest grade, or without any label, no severity."""
    columns = groups.of_films(films)
    if OF_THE_SICK in columns and predictions.kind != "classes":
        worst = predictions.label if predictions.kind == "ordered" else predictions.label.max(axis=1)
        columns[OF_THE_SICK] = [
            value if own > 0 else "" for value, own in zip(columns[OF_THE_SICK], worst, strict=True)
        ]
    return replace(predictions, columns={**predictions.columns, **columns})


def with_study_groups(predictions: Predictions, groups: Groups, studies: Sequence[Study]) -> Predictions:
    """Adds the columns of studies, in the order of the table."""
    return _with(predictions, groups.of_studies(studies))


def with_lesion_groups(lesions: Lesions, groups: Groups, films: Sequence[LabelledFilm]) -> Lesions:
    """Adds to each lesion the columns of its film, but for what is said of the lesion itself."""
    place = {film.image_id: number for number, film in enumerate(films)}
    further = {
        name: [values[place[image]] for image in lesions.image_id]
        for name, values in groups.of_films(films).items()
        if name not in ("severity", "tooth")
    }
    return replace(lesions, columns={**lesions.columns, **further})


def _with(predictions: Predictions, columns: dict[str, list[str]]) -> Predictions:
    """Adds columns; what a table says of the severity of negative films, such as grade 0, is no severity."""
    if OF_THE_SICK in columns and set(np.unique(predictions.label)) <= {0, 1}:
        columns[OF_THE_SICK] = [
            value if label else "" for value, label in zip(columns[OF_THE_SICK], predictions.label, strict=True)
        ]
    return replace(predictions, columns={**predictions.columns, **columns})
