import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from film_factory import SALT, pattern, write_dicom, write_png

from mim.data import PreparedDataset
from mim.data.prepare import prepare


class Page(HTMLParser):
    """The pictures under each heading, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: dict[str, list[dict[str, str]]] = {}
        self.text: list[str] = []
        self._heading, self._in_heading = "", False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs) -> None:
        self._in_heading = tag == "h2"
        if tag == "img":
            self.pictures.setdefault(self._heading, []).append(dict(attrs))

    def handle_endtag(self, tag) -> None:
        self._in_heading = False

    def handle_data(self, data) -> None:
        self.text.append(data)
        if self._in_heading:
            self._heading = data


def drawn(picture: dict[str, str]) -> np.ndarray:
    content = base64.b64decode(picture["src"].removeprefix("data:image/png;base64,"))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("sheet") / "HospitalNord"
    dark = np.zeros((200, 300), np.uint8)
    dark[40:160, 50:250] = 200 - pattern(90, 120, 200) // 2
    for number in range(30):
        film = np.where(dark > 0, np.maximum(dark - number, 1), 6 + number % 3).astype(int)
        write_dicom(root / f"Meier_{number:02}.dcm", film * 16, patient=f"P{number}")
    write_dicom(root / "Schulze_turned.dcm", (255 - dark.astype(int)) * 16, patient="X")
    framed = cv2.copyMakeBorder(pattern(5, 200, 300), 100, 100, 50, 150, cv2.BORDER_CONSTANT, value=0)
    write_png(root / "framed.png", framed)
    (root / "Huber.pdf").write_text("no film")
    return prepare(root, root.parent / "out", long_side=128, bits=16, salt=SALT, workers=2, crop="border")


def test_the_likeliest_inverted_film_and_the_most_cropped_one_are_shown_first(prepared: PreparedDataset) -> None:
    page = Page(prepared.path / "report.html")
    ids = {row.image: row.image_id for row in prepared.rows}
    assert page.pictures["Brightest edges"][0]["alt"] == f"Film {ids['Schulze_turned.dcm']}"
    turned = next(number for number, row in enumerate(prepared.rows) if row.image == "Schulze_turned.dcm")
    assert prepared.rows[turned].edge_brightness > 0.9
    np.testing.assert_array_equal(drawn(page.pictures["Brightest edges"][0])[:, :, 0], prepared.image(turned) >> 8)
    assert len(page.pictures["A sample"]) == 24
    cropped = {picture["alt"]: drawn(picture) for picture in page.pictures["Cropped most"]}
    framed = cropped[f"Film {ids['framed.png']}"]
    assert framed.shape[:2] == (205, 256)
    frame = np.argwhere((framed[:, :, 2] == 255) & (framed[:, :, 0] == 60))
    row = next(row for row in prepared.rows if row.image == "framed.png")
    assert row.crop == (50, 100, 350, 300)
    scale = 256 / 500
    np.testing.assert_allclose(frame.min(axis=0), [100 * scale, 50 * scale], atol=1.5)
    np.testing.assert_allclose(frame.max(axis=0), [300 * scale, 350 * scale], atol=1.5)


def test_the_sheet_loads_nothing_and_names_nobody(prepared: PreparedDataset) -> None:
    text = re.sub(r"base64,[^\"]*", "base64,", (prepared.path / "report.html").read_text())
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|<script|<link|http", text.replace("http-equiv", ""))
    page = Page(prepared.path / "report.html")
    said = " ".join(page.text)
    for secret in ("Meier", "Schulze", "Huber", "Nord", "Doe", "framed.png", "pdf", str(prepared.source)):
        assert secret not in text
    known = {row.image_id for row in prepared.rows}
    assert {picture["alt"].removeprefix("Film ") for group in page.pictures.values() for picture in group} <= known
    assert "not-an-image" in said
    assert "crop border" in said
    assert prepared.report["skipped"][0]["image"] == "Huber.pdf"


def test_the_sheet_is_the_same_every_time(prepared: PreparedDataset, tmp_path: Path) -> None:
    again = prepare(prepared.source, tmp_path / "out", long_side=128, bits=16, salt=SALT, workers=1, crop="border")
    assert (again.path / "report.html").read_bytes() == (prepared.path / "report.html").read_bytes()
