"""Every kind of page that mim writes, from small arrays: what a browser opens in the tests."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from drawn_tables import draw_detections, make_predictions
from labelled import films_of

from mim.data.prepare import prepare
from mim.evaluation import (
    Case,
    FilmErrors,
    Header,
    Intervals,
    PlacedLesions,
    Predictions,
    Reconstruction,
    Section,
    Settings,
    calibration_section,
    choose_worst,
    compare_predictions,
    comparison_section,
    decision_section,
    detection_section,
    evaluate_predictions,
    mask_section,
    operating_points_section,
    strata_section,
    write_detection_report,
    write_report,
)
from mim.evaluation.class_metrics import measure_labels
from mim.evaluation.curve_figures import auroc_on_test
from mim.evaluation.explanations_block import RANDOM, Faithfulness, explanations_block
from mim.evaluation.label_calibration import label_calibration_section
from mim.evaluation.label_comparison import compare_labels, figure_titles
from mim.evaluation.label_decisions import label_points_section, label_usefulness_section
from mim.evaluation.label_efficiency import Trial, measure_label_efficiency
from mim.evaluation.label_efficiency_section import label_efficiency_section
from mim.evaluation.label_errors import find_label_errors
from mim.evaluation.label_questions import LabelKind
from mim.evaluation.label_report import ErrorFilm, reconstruction_section, write_label_report
from mim.evaluation.label_section import labels_section, left_out_section
from mim.evaluation.label_strata import label_strata_sections
from mim.evaluation.mask_shape import ShapeScores, shape_block
from mim.evaluation.mean_figure import Resampling
from mim.evaluation.missingness import MissingnessResult, Removal, missingness_block
from mim.evaluation.page import write_page

QUICK = Settings(bootstrap=50)
FILM = np.random.default_rng(0).random((48, 96)).astype(np.float32)
SEEN = np.random.default_rng(1).random((4, 8)) < 0.6
GREY = np.full((32, 32), 0.5, dtype=np.float32)
SHEET = [Reconstruction(GREY, np.eye(4, dtype=bool), GREY)]
NAMES = ("a run", "another run")


def with_groups(films: Predictions) -> Predictions:
    site = ["rare" if row % 50 == 3 else f"site {row % 2}" for row in range(len(films))]
    return replace(films, columns={"site": site})


def blurred(films: Predictions, seed: int) -> Predictions:
    return replace(films, score=np.clip(films.score + np.random.default_rng(seed).normal(0, 0.3, len(films)), 0, 1))


def figure_sections(films: Predictions) -> list[Section]:
    strata = strata_section(films, QUICK)
    return [
        operating_points_section(films, QUICK),
        calibration_section(films, QUICK),
        decision_section(films, QUICK),
        *([strata] if strata else []),
    ]


def hidden_lesions() -> Section:
    """What a mask hides of lesions of two grades."""
    draws = np.random.default_rng(0)
    cells = np.eye(24)[draws.integers(24, size=24)].reshape(24, 4, 6)
    patients = tuple(f"p{film // 2}" for film in range(24))
    lesions = PlacedLesions(cells, np.arange(24), patients, tuple("E1" if n % 2 else "D3" for n in range(24)), ())
    masks = {"masker": draws.random((1, 24, 4, 6)) < 0.5, "random": draws.random((3, 24, 4, 6)) < 0.5}
    return mask_section("learned", masks, lesions, "", Intervals(resamples=50))


def network_sections() -> list[Section]:
    """The blocks that an evaluation of two classes makes with the network at hand."""
    patients, labels = Resampling([str(number) for number in range(40)], resamples=50), np.array([0, 1] * 20)
    told = np.where(labels, 0.8, 0.2)
    removed = np.array([0.0, 0.5])
    drop, black = (Removal(name, "patch", "random", removed, np.array([told, other]))
                   for name, other in (("drop", 1 - told), ("black", told)))  # fmt: skip
    shape = ShapeScores("layer", "masker", labels, told, told, 1 - told, told, told, told)
    curves = {
        name: Faithfulness(np.full((40, 5), low), np.full((40, 5), 1 - low), np.ones(40))
        for name, low in (("occlusion", 0.2), ("masker", 0.5), (RANDOM, 0.5))
    }
    return [
        missingness_block(MissingnessResult([drop, black], labels, 0.5, "drop", ["layer"]), patients),
        shape_block([(shape, patients)], 0.5, "layer", []),
        explanations_block(curves, patients, ["attention rollout"], drawn=True),
    ]


def two_classes(folder: Path, header: Header) -> Path:
    films = with_groups(make_predictions(160))
    metrics = evaluate_predictions(films, bootstrap=50)
    cases = [
        Case(
            films.image_id[row],
            films.patient_id[row],
            int(films.label[row]),
            float(films.score[row]),
            FILM,
            SEEN,
            [(8, 8, 20, 20)],
            np.where(SEEN, 1.0, np.nan),
            "Explained by occlusion.",
        )
        for rows in choose_worst(films, metrics.threshold.value, 1)
        for row in rows
    ]
    sections = [hidden_lesions(), *figure_sections(films), *network_sections()]
    return write_report(folder, metrics, films, cases, SHEET, header, ["Look."], sections=sections)


def study(folder: Path, header: Header) -> Path:
    films = make_predictions(120, films_a_patient=1)
    metrics = evaluate_predictions(films, bootstrap=50)
    (missed, *_), _ = choose_worst(films, metrics.threshold.value, 1)
    named = (f"{films.image_id[missed]}, film 2 of 4", films.patient_id[missed], 1, float(films.score[missed]))
    case = Case(*named, FILM, SEEN, [])
    sections = [hidden_lesions(), *figure_sections(films)]
    told = "Each row of this evaluation is a study of several films: where the report says film, read study."
    return write_report(folder, metrics, films, [case], [], header, [told], sections=sections)


def one_class_only(folder: Path, header: Header) -> Path:
    """What is left of a report where the test films are of one class."""
    films = make_predictions(90, prevalence=0.0)
    metrics = evaluate_predictions(films, bootstrap=50)
    return write_report(folder, metrics, films, [], [], header, sections=figure_sections(films))


def labels_page(kind: LabelKind) -> Callable[[Path, Header], Path]:
    def write(folder: Path, header: Header) -> Path:
        films = films_of(kind, 180)
        films = replace(
            films, columns={"device": [("A", "B", "rare")[2 if n % 60 == 5 else n % 2] for n in range(180)]}
        )
        metrics = measure_labels(films, QUICK)
        sections = [
            hidden_lesions(),
            labels_section(metrics, films),
            label_points_section(films, QUICK),
            label_calibration_section(films, QUICK),
            label_usefulness_section(films, metrics),
            *label_strata_sections(films, metrics, QUICK),
            reconstruction_section(SHEET, ""),
            left_out_section(["missingness"]),
        ]
        shown = [
            (group, [ErrorFilm(f"f{error.row}", "p", FILM, SEEN, [(4, 4, 9, 9)]) for error in group.errors])
            for group in find_label_errors(films, metrics, 1)
        ]
        about = [("Test films", "120 of 60 patients")]
        header = replace(header, lesions={"test": 3}, near_copies={"training": 1, "pretraining": None})
        return write_label_report(folder, sections, QUICK, header, about, shown, ["Beware."])

    return write


def detection(folder: Path, header: Header) -> Path:
    found, lesions = draw_detections(3)
    boxes = [(4.0, 4.0, 20.0, 20.0), (30.0, 10.0, 44.0, 30.0)]
    films = [FilmErrors("first", "p", FILM, boxes[:1], boxes[1:], "1 missed.", SEEN)]
    section = detection_section(found, lesions, QUICK)
    return write_detection_report(folder, section, QUICK, header, films, films, ["Look."], [hidden_lesions()])


def comparison(folder: Path, _header: Header) -> Path:
    films = make_predictions(120)
    found = compare_predictions(films, blurred(films, 1), QUICK)
    write_page(folder / "report.html", "Comparison of two runs", [comparison_section(found, NAMES, QUICK)], ["Look."])
    return folder / "report.html"


def comparison_of_grades(folder: Path, _header: Header) -> Path:
    films = films_of("ordered", 120)
    found = compare_labels(films, replace(films, score=films.score[:, ::-1]), QUICK)
    section = comparison_section(found, NAMES, QUICK, figure_titles(films))
    write_page(folder / "report.html", "Comparison of two runs", [section])
    return folder / "report.html"


def sweep(folder: Path, _header: Header) -> Path:
    films = make_predictions(120)
    trials = [
        Trial(init, share, seed, int(100 * share), auroc_on_test(blurred(films, seed + place)))
        for place, init in enumerate(("scratch", "runs/mae"))
        for share in (0.1, 1.0)
        for seed in (0, 1)
    ]
    found = measure_label_efficiency(trials, ["scratch", "runs/mae"], QUICK, baseline="scratch")
    section = label_efficiency_section(found, QUICK, "scratch")
    write_page(folder / "report.html", "Label efficiency", [section], ["Look."])
    return folder / "report.html"


def prepared(folder: Path, _header: Header) -> Path:
    """What `python -m mim.data.prepare` shows of a folder: films, a cropped one, copies, and a file that is none."""
    source = folder / "films"
    source.mkdir()
    draws = np.random.default_rng(0)
    for number in range(3):
        framed = cv2.copyMakeBorder(draws.integers(40, 255, (60, 90)).astype(np.uint8), 30, 30, 20, 40, 0, value=0)
        assert cv2.imwrite(str(source / f"{number}.png"), framed)
    (source / "copy.png").write_bytes((source / "0.png").read_bytes())
    (source / "broken.png").write_text("no film")
    return (
        prepare(source, folder / "out", long_side=64, bits=8, salt=b"0" * 32, workers=1, crop="border").path
        / "report.html"
    )


PAGES: Mapping[str, Callable[[Path, Header], Path]] = {
    "two classes": two_classes,
    "one class only": one_class_only,
    "several classes": labels_page("classes"),
    "grades": labels_page("ordered"),
    "several labels": labels_page("several"),
    "study": study,
    "detection": detection,
    "comparison": comparison,
    "comparison of grades": comparison_of_grades,
    "sweep": sweep,
    "prepared films": prepared,
}
