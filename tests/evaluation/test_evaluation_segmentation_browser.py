"""The report of a segmenter in a real browser."""

import importlib.resources
import json
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, browser

from mim.evaluation import FilmMasks, Header, Settings, overlap, segmentation_section, write_segmentation_report
from mim.evaluation.threshold import Threshold

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report in")


def test_a_browser_shows_all_of_it_asks_for_nothing_and_axe_finds_nothing(header: Header, tmp_path: Path) -> None:
    truth, drawn = np.zeros((40, 60), dtype=bool), np.zeros((40, 60), dtype=bool)
    truth[5:15, 5:15] = drawn[8:18, 8:18] = drawn[30:34, 40:44] = True
    overlaps = [overlap(truth, drawn), overlap(truth, truth), overlap(drawn & ~drawn, drawn)]
    section = segmentation_section(
        overlaps,
        ["a", "b", "c"],
        Settings(100),
        tolerance=2.0,
        threshold=Threshold(0.4),
        columns={"grade": ["D1", "D2"], "site": ["site 1", "site 2"]},
        image_columns={"site": ["site 1", "site 2", "site 2"]},
    )
    masks = np.stack([truth, drawn]), np.stack([drawn, truth])
    names = ("occlusal caries", "proximal caries")
    grey = np.full((40, 60), 0.4, np.float32)
    film = FilmMasks("one", "a", grey, *masks, ("0 of 1 found.",), np.eye(4) > 0, names)
    report = write_segmentation_report(tmp_path, section, Settings(100), header, [film], [film], ["Look."])
    pytest.importorskip("axe_core_python", reason="axe-core is not installed (extra dev)", exc_type=ImportError)
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    with browser(tmp_path / "profile") as tab:
        for scheme in ("light", "dark"):
            tab.events.clear()
            tab.call(
                "Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}]
            )
            tab.open(report)
            assert tab.said() == []
            assert tab.asked_for() == [report.as_uri()]
            assert tab.run("[...document.images].map(one => one.complete && one.naturalWidth > 0)") == [True] * 6
            assert tab.run("document.querySelectorAll('.case.current').length") == 1, "one film at a time"
            numbers = "[...document.querySelectorAll('.case.current .truth text')].map(one => one.textContent)"
            assert tab.run(numbers) == ["1", "2", "2"]
            tab.run("document.querySelector('[data-layer=drawn]').click()")
            shown = "getComputedStyle(document.querySelector('.case.current .layer.{}')).display"
            assert [tab.run(shown.format(kind)) for kind in ("truth", "drawn")] == ["block", "none"]
            tab.run(f"{axe}; 0")
            found = tab.run("axe.run(document, {resultTypes: ['violations']})", wait=True)
            told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
            assert told == [], json.dumps(told, indent=1)
