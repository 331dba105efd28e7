import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator, ValidationError

from mim.evaluation import (
    Detections,
    Header,
    Lesions,
    Predictions,
    Section,
    SegmentedClasses,
    SegmentedImages,
    Settings,
    calibration_section,
    compare_predictions,
    comparison_section,
    decision_section,
    detection_section,
    evaluate_predictions,
    operating_points_section,
    segmentation_section,
    strata_section,
)
from mim.evaluation.class_metrics import measure_labels
from mim.evaluation.figures import FIGURES
from mim.evaluation.label_calibration import label_calibration_section
from mim.evaluation.label_decisions import label_points_section, label_usefulness_section
from mim.evaluation.label_predictions import LabelPredictions
from mim.evaluation.label_section import labels_section
from mim.evaluation.label_strata import label_strata_sections
from mim.evaluation.segmentation import overlap
from mim.evaluation.segmentation_classes_section import segmentation_classes_section
from mim.evaluation.threshold import Threshold

SCHEMA = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


def every_section(films: Predictions, drawn: tuple[Detections, Lesions]) -> list[Section]:
    settings = Settings(100)
    sites = {"site": ["A" if row % 3 else "B" for row in range(len(films))]}
    columns = (films.image_id, films.patient_id, films.split, films.label, films.score, films.keep_rate)
    strata = strata_section(Predictions(*columns, sites), settings)
    masks = [overlap(np.eye(9, dtype=bool), np.eye(9, dtype=bool)), overlap(np.zeros((9, 9)), np.eye(9, dtype=bool))]
    noisy = np.clip(films.score + np.random.default_rng(0).normal(0, 0.2, len(films)), 0, 1)
    other = Predictions(*columns[:4], noisy, films.keep_rate)
    graded = LabelPredictions(
        ("none", "mild", "severe"),
        "ordered",
        *columns[:3],
        films.label * 2,
        np.stack([1 - films.score, films.score / 2, films.score / 2], axis=1),
        films.keep_rate,
        sites,
    )
    metrics = measure_labels(graded, settings)
    images = SegmentedImages(["one", "two"], ["a", "b"], ["test"] * 2, masks, [1.0] * 2, {}, {"site": ["x", "y"]})
    of_two = SegmentedClasses(("enamel", "dentine"), [images, images])
    return [
        labels_section(metrics, graded),
        label_points_section(graded, settings),
        label_calibration_section(graded, settings),
        label_usefulness_section(graded, metrics),
        label_strata_sections(graded, metrics, settings)[1],
        operating_points_section(films, settings),
        calibration_section(films, settings),
        decision_section(films, settings),
        *([strata] if strata else []),
        detection_section(*drawn, settings),
        segmentation_section(masks, ["a", "b"], settings, tolerance=2.0),
        segmentation_classes_section(
            of_two, settings, tolerance=2.0, thresholds=[Threshold(0.5), Threshold(None, "no")]
        ),
        comparison_section(compare_predictions(films, other, settings), ("one", "other"), settings),
        Section("lesion_recall", "Lesions seen", figures={"all": 0.5}),
    ]


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory,
    make: Callable[..., Predictions],
    draw: Callable[..., tuple[Detections, Lesions]],
    header: Header,
) -> str:
    films, path = make(), tmp_path_factory.mktemp("evaluation") / "metrics.json"
    evaluate_predictions(films, bootstrap=100).save(path, header, ["Beware."], every_section(films, draw(3)))
    return path.read_text(encoding="utf-8")


@pytest.fixture
def content(saved: str) -> Any:
    return json.loads(saved)


def test_the_schema_is_one_and_knows_every_figure() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(FIGURES) < set(SCHEMA["$defs"]["split"]["required"])


def test_what_is_written_fits_the_schema(content: Any) -> None:
    VALIDATOR.validate(content)
    described = set(SCHEMA["properties"]["blocks"]["properties"])
    assert described <= set(content["blocks"])


@pytest.mark.parametrize("label", [0, 1])
def test_what_can_still_be_computed_fits_the_schema(
    make: Callable[..., Predictions], draw: Callable[..., tuple[Detections, Lesions]], label: int
) -> None:
    films = make(60)
    films = films.rows(films.label == label)
    found, _ = draw(1)
    sections = every_section(films, (found, Lesions([], np.empty((0, 4)), [])))
    content = json.loads(json.dumps(evaluate_predictions(films, bootstrap=100).to_dict(None, (), sections)))
    assert [error.message for error in VALIDATOR.iter_errors(content)] == []
    assert content["test"]["auroc"]["value"] is None
    assert content["test"]["brier"]["value"] is not None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 2),
        (("test", "auroc", "value"), 1.5),
        (("test", "auroc"), 0.8),
        (("blocks", "calibration", "test", "slope"), None),
        (("blocks", "detection", "coco", "ap"), {"value": 0.5}),
        (("threshold", "chosen_on"), "test"),
        (("warnings",), "Beware."),
    ],
)
def test_what_is_wrong_does_not_fit(content: Any, place: tuple[str, ...], value: Any) -> None:
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(ValidationError):
        VALIDATOR.validate(content)
