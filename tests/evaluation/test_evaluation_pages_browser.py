"""Every kind of page in a real browser: it asks for nothing, shows all of it, and axe finds nothing to mend."""

import importlib.resources
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Tab, browser
from pages import PAGES

from mim.evaluation import Header

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the pages in")

IMAGES = "Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth)))"
PLOTS = "[...document.querySelectorAll('svg.plot')].map(one => one.getBoundingClientRect().width)"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
WITH_PICTURES = {"two classes", "several classes", "grades", "several labels", "study", "detection", "prepared films"}
WITH_PLOTS = set(PAGES) - {"comparison", "comparison of grades", "prepared films"}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def axe() -> str:
    pytest.importorskip("axe_core_python", reason="axe-core is not installed (extra dev)", exc_type=ImportError)
    return importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", list(PAGES))
def test_a_page_is_whole_asks_for_nothing_and_can_be_read_by_all(
    kind: str, tab: Tab, axe: str, header: Header, tmp_path: Path
) -> None:
    page = PAGES[kind](tmp_path, header)
    for scheme in ("light", "dark"):
        tab.events.clear()
        tab.call("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
        tab.open(page)
        widths = tab.run(IMAGES, wait=True)
        assert min(widths, default=0) > 0 or kind not in WITH_PICTURES
        plots = tab.run(PLOTS)
        assert min(plots, default=0) > 200 or kind not in WITH_PLOTS
        assert tab.run(WIDER) <= 0, "no page is wider than the window"
        assert tab.said() == []
        assert tab.asked_for() == [page.as_uri()]
        tab.run(f"{axe}; 0")
        found = tab.run("axe.run(document, {resultTypes: ['violations']})", wait=True)
        assert found["testEngine"]["name"] == "axe-core"
        told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
        assert told == [], f"{scheme}: {json.dumps(told, indent=1)}"
