import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import matplotlib
import pytest

from mim.evaluation import Predictions
from mim.evaluation.curves import precision_recall_plot, roc_plot, score_histogram


def all_plots(films: Predictions, threshold: float | None) -> list[str]:
    test, val = films.of("test"), films.of("val")
    return [
        roc_plot(test, val, threshold, "the ROC curve"),
        precision_recall_plot(test, val, threshold, "the PR curve"),
        score_histogram(test, threshold, "the scores"),
    ]


def test_the_same_films_give_the_same_drawings_whatever_the_users_style(predictions: Predictions) -> None:
    plain = all_plots(predictions, 0.5)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert all_plots(predictions, 0.5) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_drawings_can_stand_in_one_page(predictions: Predictions) -> None:
    plots = all_plots(predictions, 0.5)
    ids = [found for plot in plots for found in re.findall(r'\bid="([^"]+)"', plot)]
    assert len(ids) == len(set(ids)) > 20
    referred = [found for plot in plots for found in re.findall(r'(?:href="#|url\(#)([^")]+)', plot)]
    assert referred
    assert set(referred) <= set(ids)
    assert not any(word in plot for plot in plots for word in ("http", "<style", "<metadata", "<?xml", "<image"))


def test_colours_are_the_pages_own(predictions: Predictions) -> None:
    for plot in all_plots(predictions, 0.5):
        assert "currentColor" in plot
        outside = re.sub(r"var\(--\w+, #[0-9a-f]{6}\)", "", plot)
        assert not re.search(r"#[0-9a-f]{6}\b", outside)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.5, 1.0])
def test_drawings_are_well_formed_and_have_a_name(predictions: Predictions, threshold: float | None) -> None:
    for plot, name in zip(all_plots(predictions, threshold), ("ROC", "PR", "scores"), strict=True):
        root = ET.fromstring(plot)
        assert root.get("role") == "img"
        assert name in (root.get("aria-label") or "")


def test_the_threshold_is_marked_on_either_split(predictions: Predictions) -> None:
    for plot in all_plots(predictions, 0.5)[:2]:
        assert "test, at the threshold" in plot
        assert "validation, at the threshold" in plot
    assert "at the threshold" not in "".join(all_plots(predictions, None))
    assert "threshold 0.500" in all_plots(predictions, 0.5)[2]


def test_a_validation_set_of_one_class_is_left_out(make: Callable[..., Predictions]) -> None:
    films = make(200)
    test, val = films.of("test"), films.of("val")
    plot = roc_plot(test, val.rows(val.label == 0), 0.5, "x")
    assert "test, at the threshold" in plot
    assert "validation" not in plot


def test_a_label_with_markup_stays_text(predictions: Predictions) -> None:
    plot = score_histogram(predictions, None, 'a "quoted" <script>')
    assert ET.fromstring(plot).get("aria-label") == 'a "quoted" <script>'
