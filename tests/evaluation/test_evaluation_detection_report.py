"""The report of a detector: its errors are stepped through, with boxes that can be taken away."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Tab, browser

from mim.evaluation import FilmErrors, Header, Section, Settings, write_detection_report

STATUS = "document.querySelector('[role=status]').textContent"
FRAMES = "[...document.querySelectorAll('.case.current svg')].filter(one => one.checkVisibility())"
KINDS = f"{FRAMES}.map(one => one.classList[1] + ' ' + one.querySelectorAll('rect').length)"
SECTION = Section("detection", "Detection of lesions", text=("Two films.",))


def film(name: str, missed: int, false: int, visible: np.ndarray | None) -> FilmErrors:
    image = np.random.default_rng(0).random((60, 120)).astype(np.float32)
    boxes = [(10.0 + 20 * place, 10.0, 25.0 + 20 * place, 30.0) for place in range(4)]
    return FilmErrors(name, "patient", image, boxes[:missed], boxes[4 - false :], f"{missed} missed.", visible)


@pytest.fixture(scope="module")
def report(header: Header, tmp_path_factory: pytest.TempPathFactory) -> Path:
    masked = film("first", 2, 1, np.eye(4, 8, dtype=bool))
    others = [film("second", 1, 0, None), film("third", 0, 1, None)]
    folder = tmp_path_factory.mktemp("detection")
    return write_detection_report(folder, SECTION, Settings(100), header, [masked, others[0]], others[1:])


def test_each_film_has_its_boxes_by_kind_and_in_its_place(report: Path) -> None:
    page = report.read_text()
    cases = page.split('<figure class="case"')[1:]
    assert [case.count("<rect ") for case in cases] == [3, 1, 1]
    assert [case.count('class="layer mask"') for case in cases] == [1, 0, 0]
    assert "2 lesion frames." in cases[0]
    assert "1 wrong mark." in cases[0]
    x, y, wide, high = (
        float(number) for number in re.findall(r'<rect x="(.*?)" y="(.*?)" width="(.*?)"\s+height="(.*?)"', cases[0])[0]
    )
    scale = 512 / 120  # framed from outside, by three pixels
    assert (x, y, wide, high) == pytest.approx(
        (10 * scale - 3, 10 * scale - 3, 15 * scale + 6, 20 * scale + 6), abs=0.1
    )
    for name in ("Hidden cells", "Lesion frames", "Wrong marks"):
        assert name in page


def test_without_errors_there_is_no_script(header: Header, tmp_path: Path) -> None:
    page = write_detection_report(tmp_path, SECTION, Settings(100), header, [], []).read_text()
    assert "<script" not in page
    assert "script-src 'none'" in page


@pytest.fixture
def tab(report: Path, tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path / "profile") as opened:
        opened.open(report)
        yield opened


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report in")
def test_films_are_stepped_through_and_boxes_taken_away_by_keys(tab: Tab, report: Path) -> None:
    assert tab.said() == []
    assert tab.asked_for() == [report.as_uri()]
    assert tab.run(STATUS) == "1 of 3: false negative"
    assert tab.run(KINDS) == ["boxes 2", "marks 1"]
    tab.press("ArrowRight")
    assert tab.run(KINDS) == ["boxes 1"]
    tab.press("ArrowRight")
    assert tab.run(STATUS) == "3 of 3: false positive"
    assert tab.run(KINDS) == ["marks 1"]
    tab.press("w")
    assert tab.run(KINDS) == []
    tab.press("Home")
    assert tab.run(KINDS) == ["boxes 2"]
    tab.press("b")
    tab.press("w")
    assert tab.run(KINDS) == ["marks 1"]
