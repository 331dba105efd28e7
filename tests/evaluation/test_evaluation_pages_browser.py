"""Every kind of page in a real browser: it asks for nothing, shows all of it, and axe finds nothing to mend."""

import importlib.resources
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


def open_page(tab: Tab, page: Path, scheme: str) -> None:
    tab.events.clear()
    tab.call("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.open(page)


def faults_of(tab: Tab, page: Path, axe: str) -> list[str]:
    """What the console says, what is asked for, and what axe finds, of a page that is open."""
    found = [*tab.said(), *(address for address in tab.asked_for() if address != page.as_uri())]
    tab.run(f"{axe}; 0")
    violations = tab.run("axe.run(document, {resultTypes: ['violations']})", wait=True)["violations"]
    return found + [f"{one['id']}: {node['html'][:200]}" for one in violations for node in one["nodes"]]


@pytest.mark.parametrize("kind", list(PAGES))
def test_a_page_is_whole_asks_for_nothing_and_can_be_read_by_all(
    kind: str, tab: Tab, axe: str, header: Header, tmp_path: Path
) -> None:
    page = PAGES[kind](tmp_path, header)
    for scheme in ("light", "dark"):
        open_page(tab, page, scheme)
        pictures, plots = tab.run(IMAGES, wait=True), tab.run(PLOTS)
        assert bool(pictures) == (kind in WITH_PICTURES)
        assert bool(plots) == (kind in WITH_PLOTS)
        assert min([*pictures, 1]) > 0
        assert min([*plots, 201]) > 200
        assert tab.run(WIDER) <= 0, "no page is wider than the window"
        assert faults_of(tab, page, axe) == [], scheme


@pytest.mark.parametrize("kind", ["grades", "several labels"])
def test_errors_of_each_class_are_stepped_through(kind: str, tab: Tab, header: Header, tmp_path: Path) -> None:
    open_page(tab, PAGES[kind](tmp_path, header), "light")
    status = "document.querySelector('[role=status]').textContent"
    seen = [tab.run(status)]
    tab.press("ArrowRight")
    seen.append(tab.run(status))
    assert [line.split(" of ")[0] for line in seen] == ["1", "2"]
    assert "c0" in seen[0], "the class is named"
    for layer in ("mask", "boxes"):
        there = f"document.querySelector('.case.current .layer.{layer}').checkVisibility()"
        assert tab.run(there)
        tab.press(layer[0])
        assert not tab.run(there)


def test_a_page_with_faults_is_told_from_one_without(tab: Tab, axe: str, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text(
        "<!DOCTYPE html><title>Bad</title><p style='color: #ccc; background: #fff'>Pale</p>"
        "<img src='elsewhere.png'><script>console.error('broken')</script>"
    )
    open_page(tab, page, "light")
    found = " ".join(faults_of(tab, page, axe))
    for fault in ("broken", "elsewhere.png", "image-alt", "color-contrast", "html-has-lang"):
        assert fault in found
