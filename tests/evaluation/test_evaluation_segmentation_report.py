"""The table behind the figures of a segmenter, the choice of its threshold, and its report."""

import json
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from mim.errors import MimError
from mim.evaluation import (
    FilmMasks,
    Header,
    PixelCounts,
    SegmentedImages,
    Settings,
    overlap,
    segmentation_section,
    write_segmentation_report,
)
from mim.evaluation.model_card import write_model_card
from mim.evaluation.pictures import BOX, MARK
from mim.evaluation.segmentation_card import facts_of_segmentation
from mim.evaluation.segmentation_report import choose_worst_masks, outline_picture
from mim.evaluation.segmentation_threshold import THRESHOLDS
from mim.evaluation.threshold import Threshold

SETTINGS = Settings(100)
SIZE = (40, 60)


def draw(seed: int = 0, images: int = 30) -> SegmentedImages:
    """Images with no lesion up to two, drawn more or less well, two of a patient."""
    draws = np.random.default_rng(seed)
    overlaps, grades = [], []
    for number in range(images):
        lesions = []
        for column in range(number % 3):
            lesion = np.zeros(SIZE, dtype=bool)
            top, left = draws.integers(2, 20), 5 + 25 * column
            lesion[top : top + draws.integers(4, 12), left : left + draws.integers(4, 12)] = True
            lesions.append(lesion)
            grades.append(f"D{1 + len(grades) % 3}")
        truth = np.any(lesions, axis=0) if lesions else np.zeros(SIZE, dtype=bool)
        drawn = np.roll(truth, draws.integers(0, 5), axis=1)
        drawn[34:37, 50:53] |= number % 4 == 0
        overlaps.append(overlap(truth, drawn, lesions=lesions))
    return SegmentedImages(
        [f"image{number:03d}" for number in range(images)],
        [f"{number // 2:08x}" for number in range(images)],
        ["val" if (number // 2) % 3 == 0 else "test" for number in range(images)],
        overlaps,
        draws.uniform(0.5, 1, images).tolist(),
        {"grade": grades},
    )


CHOSEN = Threshold(0.4)


def section_of(images: SegmentedImages, threshold: Threshold = CHOSEN):
    return segmentation_section(
        images.overlaps, images.patient_id, SETTINGS, tolerance=2.0, threshold=threshold, columns=images.columns
    )


def test_every_figure_can_be_computed_from_the_table(tmp_path: Path) -> None:
    images = draw()
    images.save(tmp_path / "segmentation.csv")
    again = SegmentedImages.load(tmp_path / "segmentation.csv")
    assert len(again) == len(images)
    assert again.columns == images.columns
    assert section_of(again.of("test")).figures == section_of(images.of("test")).figures
    rows = [line.split(",") for line in (tmp_path / "segmentation.csv").read_text().splitlines()[1:]]
    for _, _, _, lesion, area, drawn, both, dice, *_ in rows:
        if dice and int(area):
            assert float(dice) == pytest.approx(2 * int(both) / (int(area) + int(drawn)), abs=1e-6), lesion


def test_a_table_is_cut_by_split_with_its_lesions() -> None:
    images = draw()
    val, test = images.of("val"), images.of("test")
    assert len(val) + len(test) == len(images)
    count = sum(len(own.lesions) for own in test.overlaps)
    assert len(test.columns["grade"]) == count
    owned = [
        grade
        for grade, image in zip(
            images.columns["grade"],
            [name for name, own in zip(images.image_id, images.overlaps, strict=True) for _ in own.lesions],
            strict=True,
        )
        if image in test.image_id
    ]
    assert list(test.columns["grade"]) == owned


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda text: text.replace("image_id", "film", 1), "columns are film"),
        (lambda text: re.sub(r"^(image001,.*),1,(\d+),", r"\1,2,\2,", text, flags=re.M), "from 1"),
        (lambda text: text.replace(",val,", ",train,", 1), "split 'train' must be val or test"),
        (lambda text: text + text.splitlines()[1] + "\n", "named twice"),
        (lambda text: text.replace("image000,00000000,val,,0,", "image000,00000000,val,,many,", 1), "row 1 "),
    ],
)
def test_a_table_that_is_not_one_is_told(changed, said: str, tmp_path: Path) -> None:
    path = tmp_path / "segmentation.csv"
    draw(images=6).save(path)
    text = path.read_text()
    path.write_text(changed(text))
    assert path.read_text() != text
    with pytest.raises(MimError, match=said) as error:
        SegmentedImages.load(path)
    assert "segmentation.csv" in str(error.value)


def test_the_threshold_is_the_best_by_dice_of_all_pixels_together() -> None:
    draws = np.random.default_rng(0)
    truth = draws.random((3, 20, 30)) < 0.2
    truth[2] = False  # an image without a lesion counts by what is drawn in it
    probability = np.clip(0.3 * truth + draws.random(truth.shape) * 0.6, 0, 1)
    counts = PixelCounts()
    for image, there in zip(probability, truth, strict=True):
        counts.add(image, there)
    for place, at in enumerate(THRESHOLDS):
        drawn = probability >= at
        expected = 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum())
        assert counts.dice()[place] == pytest.approx(expected)
    assert counts.choose().value == THRESHOLDS[np.argmax(counts.dice())]


def test_what_is_drawn_in_images_without_a_lesion_speaks_against_a_threshold() -> None:
    truth = np.zeros((10, 10), dtype=bool)
    truth[:, :5] = True
    counts = PixelCounts()
    counts.add(np.where(truth, np.linspace(0.3, 0.9, 10)[:, None], 0.1), truth)
    assert counts.choose().value == pytest.approx(0.21), "in the middle of 0.11 to 0.30"
    counts.add(np.full((40, 40), 0.5), np.zeros((40, 40), dtype=bool))
    assert counts.choose().value > 0.5


def test_counts_are_read_back_and_ties_are_met_in_the_middle(tmp_path: Path) -> None:
    counts = PixelCounts()
    truth = np.eye(8, dtype=bool)
    counts.add(np.where(truth, 0.9, 0.1), truth)
    assert counts.choose().value == pytest.approx(0.51), "from 0.11 to 0.90 all are as good"
    counts.save(tmp_path / "thresholds.csv")
    again = PixelCounts.load(tmp_path / "thresholds.csv", 1)
    assert again.choose() == counts.choose()
    (tmp_path / "thresholds.csv").write_text("threshold,drawn,both,truth\n0.5,1,1,1\n")
    with pytest.raises(MimError, match="its thresholds are not"):
        PixelCounts.load(tmp_path / "thresholds.csv", 1)


@pytest.mark.parametrize(
    ("truth", "probability", "said"),
    [
        (None, None, "no validation images"),
        (np.zeros((4, 4)), np.ones((4, 4)), "hold no lesion"),
        (np.eye(4), np.zeros((4, 4)), "at no threshold is a pixel of a lesion drawn"),
    ],
)
def test_a_threshold_that_cannot_be_chosen_says_why(truth, probability, said: str) -> None:
    counts = PixelCounts()
    if truth is not None:
        counts.add(probability, truth)
    chosen = counts.choose()
    assert chosen.value is None
    assert said in str(chosen.reason)
    section = section_of(draw().of("test"), chosen)
    assert any("0.5 is taken" in line for line in section.first_lines)


def test_lesions_are_grouped_by_size_and_grade_the_worst_first() -> None:
    images = draw(images=60).of("test")
    groups = section_of(images).figures["strata"]
    assert set(groups) == {"size, square pixels", "grade"}
    lesions = [lesion for own in images.overlaps for lesion in own.lesions]
    for group in groups["grade"]:
        own = [one for one, name in zip(lesions, images.columns["grade"], strict=True) if name == group["group"]]
        assert group["counts"] == {"lesions": len(own)}
        assert group["lesions_found"]["value"] == pytest.approx(np.mean([one.covered >= 0.5 for one in own]))
    found = [group["lesions_found"]["value"] for group in groups["grade"]]
    assert found == sorted(found)


def test_the_worst_are_those_with_most_missed_and_most_drawn_wrongly() -> None:
    blank, two = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    two[2:6, 2:6] = two[20:30, 20:30] = True
    one = two.copy()
    one[20:30, 20:30] = False
    wrong = np.roll(two, 30, axis=1)
    overlaps = [overlap(two, two), overlap(two, one), overlap(two, blank), overlap(blank, wrong), overlap(blank, one)]
    assert choose_worst_masks(overlaps, 6) == ([2, 1], [3, 4])
    assert choose_worst_masks(overlaps, 1) == ([2], [3])


def test_both_outlines_are_seen_where_truth_and_prediction_are_the_same() -> None:
    mask = np.zeros((64, 64), dtype=bool)
    mask[20:40, 20:40] = True
    grey = np.full((64, 64), 0.5, dtype=np.float32)
    picture = outline_picture(FilmMasks("a", "b", grey, mask, mask, ""), side=128)
    yellow, magenta = ((picture == colour).all(axis=2) for colour in (BOX, MARK))
    large = np.kron(mask, np.ones((2, 2))).astype(bool)
    assert yellow.any()
    assert magenta.any()
    assert not (yellow & large).any(), "the truth is outlined from outside: no lesion is covered by it"
    assert large[magenta].all()


def test_the_report_says_what_it_must_and_asks_nobody(header: Header, tmp_path: Path) -> None:
    images = draw()
    section = section_of(images.of("test"))
    truth, drawn = np.zeros((20, 30), dtype=bool), np.zeros((5, 5), dtype=bool)
    truth[4:8, 4:8] = drawn[3, 3] = True
    film = FilmMasks("<film>", "p", np.full((40, 60), 0.4, np.float32), truth, drawn, "0 of 1 found.", np.eye(4) > 0)
    report = write_segmentation_report(tmp_path, section, SETTINGS, header, [film], [], ["Look <here>."])
    page = report.read_text()
    assert "&lt;film&gt;" in page
    assert "<film>" not in page
    assert "Look &lt;here&gt;." in page
    assert "Images without lesions are left out" in page
    assert "at least 50% of the area drawn" in page
    assert "0.4, at which Dice of all validation pixels together" in page
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    content = json.loads((tmp_path / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    assert content["blocks"]["segmentation"]["threshold"] == {"value": 0.4, "chosen_on": "val", "reason": None}
    assert content["warnings"] == ["Look <here>."]


def test_the_model_card_is_filled_in(header: Header, tmp_path: Path) -> None:
    known = Header(
        **{
            **vars(header),
            "trained_on": {"films": 9, "patients": 5, "positives": 4},
            "lesions": {"val": 3, "test": 6},
            "more": {"Started from": "fresh weights"},
        }
    )
    images = draw()
    section = section_of(images.of("test"))
    write_model_card(tmp_path, facts_of_segmentation(images, section, SETTINGS, known, ["Beware."]), ["Beware."])
    card = (tmp_path / "model_card.md").read_text()
    assert "draws the pixels of what is sought" in card
    assert section.summary[0] in card
    assert "AUROC" not in card
