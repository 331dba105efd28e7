"""The report in a real browser: what it shows, what it asks for, how it is used from a keyboard, and on paper."""

import base64
import importlib.resources
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Tab, browser
from PIL import Image

from mim.evaluation import (
    Case,
    Header,
    Predictions,
    Reconstruction,
    Section,
    Table,
    choose_worst,
    evaluate_predictions,
    write_report,
)
from mim.evaluation.calibration_section import calibration_section

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine to open the report in")

SHOWN = "[...document.querySelectorAll('.case')].flatMap((one, place) => one.checkVisibility() ? [place] : [])"
STATUS = "document.querySelector('[role=status]').textContent"


@pytest.fixture(scope="module")
def report(make: Callable[..., Predictions], header: Header, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with two false negatives and two false positives, and every layer."""
    predictions = make()
    metrics = evaluate_predictions(predictions, bootstrap=100)
    draws = np.random.default_rng(0)
    cases = []
    for row in (row for kind in choose_worst(predictions, metrics.threshold.value, 2) for row in kind):
        visible = draws.random((4, 8)) < 0.6
        scores = np.where(visible, draws.normal(size=(4, 8)), np.nan)
        film = draws.random((64, 128)).astype(np.float32)
        label = int(predictions.label[row])
        named = (predictions.image_id[row], predictions.patient_id[row], label, float(predictions.score[row]))
        cases.append(Case(*named, film, visible, [(8, 8, 20, 20)] if label else (), scores, "Explained by occlusion."))
    columns = ("severity", *(f"figure {place}" for place in range(7)))
    table = Table("Lesions seen", columns, (("enamel", *("0.512 (0.412 to 0.612)",) * 7),))
    sections = (
        Section("lesions", "Are lesions seen?", text=("Half of them.",), tables=(table,)),
        calibration_section(predictions, metrics.settings),
    )
    grey = np.full((32, 32), 0.5, dtype=np.float32)
    sheet = [Reconstruction(grey, np.eye(4, dtype=bool), grey)]
    folder = tmp_path_factory.mktemp("browser")
    return write_report(folder, metrics, predictions, cases, sheet, header, ["Look."], sections=sections)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture
def tab(opened: Tab, report: Path) -> Tab:
    """The report, opened anew."""
    opened.events.clear()
    opened.call("Emulation.setEmulatedMedia", media="", features=[])
    opened.call("Emulation.setScriptExecutionDisabled", value=False)
    opened.open(report)
    return opened


def pixels(tab: Tab) -> np.ndarray:
    shot = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB"))


def test_it_opens_without_an_error_and_without_a_request(tab: Tab, report: Path) -> None:
    assert tab.said() == []
    assert tab.asked_for() == [report.as_uri()]
    sizes = tab.run(
        "Promise.all([...document.images].map(one => one.decode().then(() => one.naturalWidth)))", wait=True
    )
    assert len(sizes) == 4 * 4 + 1  # film, film again, mask and explanation of each case, and the sheet
    assert min(sizes) > 100
    assert tab.run("[...document.querySelectorAll('svg.plot')].every(one => one.getBoundingClientRect().width > 200)")
    for colour in ((255, 244, 229), (179, 71, 0)):  # the box of warnings, the curve of the test films
        assert (pixels(tab) == colour).all(axis=2).sum() > 100


def test_a_script_that_is_not_its_own_does_not_run(tab: Tab) -> None:
    tab.run(
        "document.body.insertAdjacentElement('beforeend', document.createElement('script'))"
        ".textContent = 'window.ran = 1'"
    )
    assert tab.run("window.ran === undefined")
    assert any("Content Security Policy" in line for line in tab.said())


def test_cases_are_stepped_through_by_keys_and_by_buttons(tab: Tab) -> None:
    assert tab.run(SHOWN) == [0]
    seen = [tab.run(STATUS)]
    for _ in range(4):  # once more than there are
        tab.press("ArrowRight")  # nothing has the focus yet: the viewer takes it
        seen.append(tab.run(STATUS))
    assert [line.split(":")[0] for line in seen] == ["1 of 4", "2 of 4", "3 of 4", "4 of 4", "4 of 4"]
    assert ["false negative" in line for line in seen] == [True, True, False, False, False]
    assert tab.run(SHOWN) == [3]
    assert tab.run("document.activeElement.id") == "viewer"
    tab.press("ArrowLeft")
    assert tab.run(SHOWN) == [2]
    tab.press("Home")
    assert tab.run(SHOWN) == [0]
    tab.press("End")
    assert tab.run(SHOWN) == [3]
    tab.click("[data-do=previous]")
    assert tab.run(SHOWN) == [2]
    tab.click("[data-do=next]")
    assert tab.run(SHOWN) == [3]
    tab.click("[data-do=all]")
    assert tab.run(SHOWN) == [0, 1, 2, 3]
    assert tab.said() == []


def test_the_focus_is_seen_on_everything_that_takes_it(tab: Tab) -> None:
    met = []
    for _ in range(40):
        tab.press("Tab")
        place = tab.run(
            "(() => { const it = document.activeElement, style = getComputedStyle(it);"
            "const name = it.id || it.dataset.do || it.dataset.layer || it.tagName;"
            "return [name, style.outlineStyle, style.outlineWidth]; })()"
        )
        if place[0] == "BODY":
            break
        met.append(place)
    assert {"viewer", "next", "previous", "all", "mask", "boxes", "explanation"} <= {name for name, *_ in met}
    assert all(style == "solid" and width == "3px" for _, style, width in met), met


@pytest.mark.parametrize(("layer", "key"), [("mask", "m"), ("boxes", "b"), ("explanation", "e")])
def test_a_layer_is_taken_away_and_laid_back(tab: Tab, layer: str, key: str) -> None:
    there = f"document.querySelector('.case.current .layer.{layer}').checkVisibility()"
    assert tab.run(there)
    tab.click(f"[data-layer={layer}]")
    assert not tab.run(there)
    tab.press(key)
    assert tab.run(there)
    tab.press(" ")
    assert not tab.run(there)
    others = {"mask", "boxes", "explanation"} - {layer}
    assert all(tab.run(f"document.querySelector('.case.current .layer.{other}').checkVisibility()") for other in others)


def test_layers_lie_exactly_over_the_film(tab: Tab) -> None:
    boxes = tab.run(
        "[...document.querySelectorAll('.case.current .stack > *')].map(one => {"
        "const it = one.getBoundingClientRect(); return [it.x, it.y, it.width, it.height].map(Math.round); })"
    )
    assert len(boxes) == 4
    assert all(box == boxes[0] for box in boxes)


def test_without_scripts_all_is_there_and_nothing_that_does_nothing(opened: Tab, report: Path) -> None:
    opened.call("Emulation.setScriptExecutionDisabled", value=True)
    opened.open(report)
    shot = pixels(opened)
    assert opened.run(SHOWN) == [0, 1, 2, 3]
    assert not opened.run("document.querySelector('.controls').checkVisibility()")
    assert shot.std() > 10


def test_on_paper_every_case_is_there_with_all_its_layers_and_no_button(tab: Tab) -> None:
    tab.press("ArrowRight")
    tab.click("[data-layer=mask]")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run(SHOWN) == [0, 1, 2, 3]
    assert not tab.run("document.querySelector('.controls').checkVisibility()")
    assert tab.run("[...document.querySelectorAll('.layer')].every(one => one.checkVisibility())")
    tab.call("Emulation.setDeviceMetricsOverride", width=688, height=980, deviceScaleFactor=1, mobile=False)  # A4
    try:
        assert tab.run("document.documentElement.scrollWidth") <= 688
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")
    pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 50_000


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_is_as_dark_as_the_room(tab: Tab, scheme: str, dark: bool) -> None:
    tab.call("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
    background, ink = tab.run(
        "(() => { const style = getComputedStyle(document.documentElement);"
        "return [style.backgroundColor, style.color]; })()"
    )
    brightness = [sum(int(part) for part in colour[4:-1].split(",")) / 3 for colour in (background, ink)]
    assert (brightness[0] < 60) == dark
    assert (brightness[1] > 200) == dark


def test_nothing_is_wider_than_a_telephone(tab: Tab) -> None:
    tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    try:
        assert tab.run("document.documentElement.scrollWidth") <= 390
    finally:
        tab.call("Emulation.clearDeviceMetricsOverride")


def test_everything_that_can_be_used_has_a_name(tab: Tab) -> None:
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "checkbox", "image", "group", "region", "table", "figure", "heading", "graphics-document"}
    known = [node for node in tree if not node["ignored"] and node["role"]["value"] in roles - {"figure"}]
    assert {node["role"]["value"] for node in known} >= {"button", "checkbox", "image", "group", "region", "table"}
    unnamed = [node["role"]["value"] for node in known if not node.get("name", {}).get("value", "").strip()]
    assert unnamed == []


@pytest.mark.parametrize(("scheme", "button"), [("light", ""), ("dark", "[data-do=all]")])
def test_axe_finds_nothing(tab: Tab, scheme: str, button: str) -> None:
    pytest.importorskip("axe_core_python", reason="axe-core is not installed (extra dev)", exc_type=ImportError)
    axe = importlib.resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    tab.call("Emulation.setEmulatedMedia", media="", features=[{"name": "prefers-color-scheme", "value": scheme}])
    if button:
        tab.click(button)
    tab.run(f"{axe}; 0")
    found = tab.run("axe.run(document, {resultTypes: ['violations']})", wait=True)
    assert found["testEngine"]["name"] == "axe-core"
    assert len(found["passes"]) > 15
    told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]
    assert told == [], json.dumps(told, indent=1)
