import base64
import hashlib
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mim.evaluation import (
    Case,
    Header,
    Plot,
    Predictions,
    Reconstruction,
    Section,
    Table,
    choose_worst,
    evaluate_predictions,
    write_report,
)
from mim.evaluation.page import TEMPLATES

NASTY = "<script>alert('x')</script>"


class Page(HTMLParser):
    """What a reader, a browser and a screen reader meet in a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def policy(self) -> str:
        tags = [tag for tag in self.every("meta") if tag.get("http-equiv") == "Content-Security-Policy"]
        assert len(tags) == 1
        return tags[0]["content"] or ""

    def every(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def make_cases(predictions: Predictions, threshold: float | None) -> list[Case]:
    draws = np.random.default_rng(0)
    rows = [row for kind in choose_worst(predictions, threshold, 2) for row in kind]
    return [
        Case(
            predictions.image_id[row],
            predictions.patient_id[row],
            int(predictions.label[row]),
            float(predictions.score[row]),
            draws.random((32, 64)).astype(np.float32),
            draws.random((4, 8)) < 0.5 if row % 2 else None,
            [(8, 8, 20, 20)] if predictions.label[row] else (),
            draws.normal(size=(4, 8)) if row % 2 else None,
            "Explained by occlusion: orange speaks for a positive answer." if row % 2 else "",
        )
        for row in rows
    ]


def full_report(folder: Path, predictions: Predictions, header: Header) -> Page:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    image = np.full((32, 32), 0.5, dtype=np.float32)
    sheet = [Reconstruction(image, np.eye(4, dtype=bool), image)]
    cases = make_cases(predictions, metrics.threshold.value)
    warnings = ["3 test films were met in pretraining."]
    return Page(write_report(folder, metrics, predictions, cases, sheet, header, warnings))


@pytest.fixture
def page(tmp_path: Path, predictions: Predictions, header: Header) -> Page:
    return full_report(tmp_path, predictions, header)


def test_it_says_what_it_must(page: Page, predictions: Predictions, header: Header) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    auroc, counts = metrics.test.figures["auroc"], metrics.test.confusion
    assert counts is not None
    for text in (
        "not a medical device",
        "Evaluation of a classifier of “caries”",
        "3 test films were met in pretraining.",
        f"{auroc.value:.3f} AUROC on {metrics.test.films} test films of {metrics.test.patients} patients "
        f"(95 % interval {auroc.low:.3f} to {auroc.high:.3f})",
        f"threshold {metrics.threshold.value:.3f}",
        f"prevalence {metrics.test.figures['prevalence'].value:.3f}",
        header.data,
        header.split,
        header.checkpoint,
        header.version,
        "224 x 448 pixels",
        "vit_tiny_patch16_224",
        f"{counts.false_negatives} false negative",
        f"{counts.false_positives} false positive",
        f"2 of {counts.false_negatives} positive films called negative",
        "patients are drawn with replacement",
    ):
        assert text in page.text


def test_it_asks_nobody_for_anything(page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/png;base64,", "#"))
    assert not page.every("link", "iframe", "object", "form", "base")
    assert not re.search(r"https?:|@import|url\((?!#)", page.source)
    policy = page.policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_no_script_runs_but_the_one_of_the_viewer(
    page: Page, tmp_path: Path, predictions: Predictions, header: Header
) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    assert len(scripts) == 1 == len(page.every("script"))
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"; script-src 'sha256-{digest}';" in page.policy
    handlers = [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not handlers
    metrics = evaluate_predictions(predictions, bootstrap=100)
    without = Page(write_report(tmp_path / "without", metrics, predictions, [], [], header))
    assert not without.every("script")
    assert "; script-src 'none';" in without.policy


def test_it_can_be_read_without_seeing_it(page: Page) -> None:
    assert page.every("html")[0]["lang"] == "en"
    assert len(page.every("title", "h1")) == 2
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))
    cases = [tag for tag in page.every("figure") if tag.get("class") == "case"]
    layered = [tag for tag in page.every("div") if tag.get("class") == "stack"]
    laid = [(tag.get("class") or "").split() for tag in page.every("img", "svg")]
    assert len(cases) == 4
    assert sum(names == ["layer", "boxes"] for names in laid) == 2
    assert sum(names == ["layer", "mask"] for names in laid) == sum(names == ["layer", "explanation"] for names in laid)
    assert len(page.every("img")) == len(cases) + len(layered) + sum("layer" in names for names in laid) - 2 + 1
    assert all(image.get("alt") for image in page.every("img"))
    assert all(drawing.get("role") == "img" and drawing.get("aria-label") for drawing in page.every("svg"))
    assert len(page.every("caption")) == len(page.every("table")) == 3
    assert all(cell.get("scope") for cell in page.every("th"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert named <= set(ids)


def test_everything_given_is_escaped(tmp_path: Path, predictions: Predictions, header: Header) -> None:
    columns = (predictions.split, predictions.label, predictions.score, predictions.keep_rate)
    names = [f"{NASTY}{name}" for name in predictions.image_id]
    nasty = Predictions(names, [f'{NASTY}"{name}' for name in predictions.patient_id], *columns)
    page = full_report(tmp_path, nasty, replace(header, target=NASTY, more={NASTY: NASTY}))
    assert len(page.every("script")) == 1
    assert NASTY not in page.source
    assert f"Patient {NASTY}" in page.text


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, predictions: Predictions, header: Header) -> None:
    one = full_report(tmp_path / "one", predictions, header)
    assert full_report(tmp_path / "two", predictions, header).source == one.source


@pytest.mark.parametrize(("split", "label"), [("test", 0), ("test", 1), ("val", 1), ("test", None), ("val", None)])
def test_a_missing_class_is_said_at_the_top(
    tmp_path: Path, predictions: Predictions, header: Header, split: str, label: int | None
) -> None:
    own = zip(predictions.split, predictions.label.tolist(), strict=True)
    part = predictions.rows(np.array([name != split or value == label for name, value in own]))
    metrics = evaluate_predictions(part, bootstrap=100)
    cases = make_cases(part, metrics.threshold.value)
    page = Page(write_report(tmp_path, metrics, part, cases, [], header))
    assert page.text.index("Read this first") < page.text.index("Result")
    assert all(warning in page.text for warning in metrics.warnings)
    assert metrics.warnings
    assert "no decoder from pretraining" in page.text
    if split == "test":
        assert "There is no AUROC on the test films" in page.text
    else:
        assert "No threshold could be chosen" in page.text


def test_the_head_says_what_was_learnt_from_and_what_looks_like_it(
    tmp_path: Path, predictions: Predictions, header: Header
) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    told = replace(
        header,
        trained_on={"films": 50, "patients": 20, "positives": 10},
        lesions={"test": 31, "val": 1},
        near_copies={"pretraining": None, "training": 2},
    )
    text = Page(write_report(tmp_path, metrics, predictions, [], [], told)).text
    assert "50 of 20 patients: 10 positive, 40 negative (prevalence 0.200)" in text
    assert "; 31 marked lesions" in text
    assert "; 1 marked lesion " in text
    assert "not known in pretraining, 2 in training (near_copies.csv lists them)" in text


def test_why_there_are_no_reconstructions_is_said(tmp_path: Path, predictions: Predictions, header: Header) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    reason = "None are shown: this encoder was not pretrained."
    page = Page(write_report(tmp_path, metrics, predictions, [], [], header, why_no_reconstructions=reason))
    assert reason in page.text


def luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_what_is_behind_it(scheme: int) -> None:
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]))
    pairs = [(ink, back) for ink in ("ink", "soft", "positive", "negative", "accent") for back in ("paper", "panel")]
    for ink, back in [*pairs, ("alert-ink", "alert-paper")]:
        low, high = sorted((luminance(colours[ink]), luminance(colours[back])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{ink} on {back}"  # WCAG 2.2, 1.4.3


def test_a_block_is_drawn_with_all_its_parts_and_its_words_are_escaped(
    tmp_path: Path, predictions: Predictions, header: Header
) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    table = Table("Lesions seen", ("severity", "share"), (("enamel", "0.50"), (NASTY, "1.00")), "Mildest first.")
    block = Section(
        "lesions",
        "Are lesions seen?",
        text=("Half of it counts.",),
        tables=(table,),
        plots=(Plot("<svg></svg>", "Drawn."),),
    )
    page = Page(write_report(tmp_path, metrics, predictions, (), (), header, sections=(block,)))
    for words in ("Are lesions seen?", "Half of it counts.", "enamel 0.50", "Mildest first.", "Drawn.", NASTY):
        assert words in page.text
    assert not page.every("script")
    assert page.every("svg")


def test_a_table_whose_rows_do_not_fit_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells, not 2"):
        Table("Lesions", ("severity", "share"), (("enamel", "0.50"), ("dentine",)))
