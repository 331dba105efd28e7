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
    SegmentedClasses,
    SegmentedImages,
    Settings,
    overlap,
    segmentation_section,
    write_segmentation_report,
)
from mim.evaluation.model_card import write_model_card
from mim.evaluation.outlines import outline_masks
from mim.evaluation.segmentation_card import facts_of_segmentation
from mim.evaluation.segmentation_report import choose_worst_masks
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
    alone = [(own,) for own in overlaps]
    assert choose_worst_masks(alone, 6) == ([2, 1], [3, 4])
    assert choose_worst_masks(alone, 1) == ([2], [3])
    nothing = overlap(blank, blank)
    several = [(nothing, own) for own in overlaps]
    assert choose_worst_masks(several, 6) == ([2, 1], [3, 4]), "in whichever class"


def corners_of(path: str) -> np.ndarray:
    return np.array([[float(side) for side in corner.split()] for corner in re.findall(r"[ML]([^MLZ]+)", path)])


@pytest.mark.parametrize("scale", [1, 4])
def test_the_truth_is_outlined_from_outside_and_what_was_drawn_from_inside(scale: int) -> None:
    mask = np.zeros((1, 64 * scale, 64 * scale), dtype=bool)
    mask[0, 20 * scale : 40 * scale, 10 * scale : 30 * scale] = True
    (truth,), (drawn,) = (outline_masks(kind, mask, (128, 128)) for kind in ("truth", "drawn"))
    outer, inner = corners_of(truth.classes[0].path), corners_of(drawn.classes[0].path)
    assert np.all(outer.min(axis=0) < (20, 40)), "no lesion is covered by its outline"
    assert np.all(outer.max(axis=0) > (60, 80))
    assert np.all(inner.min(axis=0) >= (20, 40))
    assert np.all(inner.max(axis=0) <= (60, 80))
    assert (truth.parts, truth.classes[0].label) == (1, "")


def test_a_hole_is_outlined_and_a_speck_of_a_large_film_is_not_lost() -> None:
    mask = np.zeros((2, 1000, 1000), dtype=bool)
    mask[0, 100:500, 100:500] = True
    mask[0, 200:400, 200:400] = False
    mask[1, 901, 777] = True
    (drawn,) = outline_masks("drawn", mask, (100, 100))
    assert [one.label for one in drawn.classes] == ["1", "2"], "classes are told apart by a number"
    assert drawn.classes[0].path.count("M") == 2
    assert (drawn.parts, drawn.said) == (2, "2 drawn parts")
    assert np.all(np.floor(corners_of(drawn.classes[1].path)) == (77, 90))
    assert outline_masks("truth", mask & False, (100, 100)) == ()


def test_the_report_says_what_it_must_and_asks_nobody(header: Header, tmp_path: Path) -> None:
    images = draw()
    section = section_of(images.of("test"))
    truth, drawn = np.zeros((20, 30), dtype=bool), np.zeros((5, 5), dtype=bool)
    truth[4:8, 4:8] = drawn[3, 3] = True
    grey, masks = np.full((40, 60), 0.4, np.float32), (truth[None], drawn[None])
    film = FilmMasks("<film>", "p", grey, *masks, ("0 of 1 found.",), np.eye(4) > 0)
    report = write_segmentation_report(tmp_path, section, SETTINGS, header, [film], [], ["Look <here>."])
    page = report.read_text()
    assert "&lt;film&gt;" in page
    assert "<film>" not in page
    assert "Look &lt;here&gt;." in page
    assert "Images without lesions are left out" in page
    assert "at least 50% of the area drawn" in page
    assert "0.4, at which Dice of all validation pixels together" in page
    assert page.count("data:image/png;base64,") == 3, "the film as it is, again under what lies over it, and the mask"
    assert page.count("<path d=") == 2
    assert "1 lesion outline." in page
    assert "1 drawn part." in page
    assert "script-src 'sha256-" in page
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
    tables = SegmentedClasses(["caries"], [images])
    facts = facts_of_segmentation(tables, [CHOSEN], section, SETTINGS, known, ["Beware."])
    write_model_card(tmp_path, facts, ["Beware."])
    card = (tmp_path / "model_card.md").read_text()
    assert "draws the pixels of what is sought" in card
    assert section.summary[0] in card
    assert "AUROC" not in card
