"""Several classes of pixels: their table, their means, and the block of the report."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator
from monai.metrics import DiceMetric, SurfaceDiceMetric

from mim.errors import MimError
from mim.evaluation import FilmMasks, Header, SegmentedClasses, SegmentedImages, Settings, overlap
from mim.evaluation.segmentation import measure_overlaps
from mim.evaluation.segmentation_classes_section import class_means, segmentation_classes_section
from mim.evaluation.segmentation_comparison import compare_segmentations
from mim.evaluation.segmentation_report import write_segmentation_report
from mim.evaluation.segmentation_section import segmentation_section
from mim.evaluation.threshold import Threshold

SETTINGS = Settings(100)
NAMES = ("enamel, early", "dentine", "root")
SIZE = (40, 60)
CHOSEN = (Threshold(0.4), Threshold(0.5), Threshold(None, "the validation images hold no lesion"))


def draw_masks(images: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction (images, classes, H, W): classes that overlap, the last on no image."""
    draws = np.random.default_rng(seed)
    truth = np.zeros((images, 3, *SIZE), dtype=bool)
    for image in range(images):
        for label in range(2):
            if (image + label) % 3:
                top, left = draws.integers(2, 20), draws.integers(5, 30)
                truth[image, label, top : top + draws.integers(4, 12), left : left + draws.integers(4, 12)] = True
    drawn = np.roll(truth, 2, axis=3)
    drawn[::5, 1, 35:38, 50:55] = True
    return truth, drawn


def tables(seed: int = 0) -> SegmentedClasses:
    truth, drawn = draw_masks(seed=seed)
    count = len(truth)
    made = []
    for label in range(3):
        overlaps = [overlap(one[label], other[label]) for one, other in zip(truth, drawn, strict=True)]
        lesions = sum(len(own.lesions) for own in overlaps)
        made.append(
            SegmentedImages(
                [f"image{number:02d}" for number in range(count)],
                [f"{number // 2:08x}" for number in range(count)],
                ["val" if number // 2 % 4 == 0 else "test" for number in range(count)],
                overlaps,
                [0.5] * count,
                {"grade": [f"D{1 + number % 2}" for number in range(lesions)]},
                {"site": [f"site {1 + number // 2 % 2}" for number in range(count)]},
            )
        )
    return SegmentedClasses(NAMES, made)


def section_of(images: SegmentedClasses):
    return segmentation_classes_section(images, SETTINGS, tolerance=2.0, thresholds=CHOSEN)


def test_each_class_is_measured_as_monai_measures_its_channel() -> None:
    truth, drawn = draw_masks()
    test = tables().of("test")
    places = [int(name.removeprefix("image")) for name in test.image_id]
    there, called = (torch.from_numpy(masks[places]) for masks in (truth, drawn))
    dice = DiceMetric(reduction="mean_batch")(called.float(), there.float())
    surface = SurfaceDiceMetric([2.0] * 3, include_background=True)(called, there)
    section = section_of(test)
    for label in range(2):
        figures = section.figures["classes"][label]["figures"]
        known = there[:, label].flatten(1).any(dim=1)
        assert figures["dice"]["value"] == pytest.approx(float(dice[known, label].mean()), abs=1e-6)
        assert figures["surface"]["value"] == pytest.approx(float(surface[known, label].mean()), abs=1e-6)


def test_the_mean_of_the_classes_is_over_those_that_have_lesions() -> None:
    test = tables().of("test")
    own = [measure_overlaps(table.overlaps, table.patient_id, SETTINGS) for table in test.images]
    means = class_means(test, SETTINGS)
    assert own[2]["dice"].value is None
    for name in ("dice", "surface", "lesion_dice", "lesions_found"):
        assert means[name].value == pytest.approx((own[0][name].value + own[1][name].value) / 2)
        assert means[name].low <= means[name].value <= means[name].high
    assert means["false_parts"].value == pytest.approx(np.mean([one["false_parts"].value for one in own]))
    section = section_of(test)
    assert any("no test image has a lesion of root" in line for line in section.text)
    assert any(line.startswith("root: Segmentation: no threshold") for line in section.first_lines)


def test_all_figures_come_from_the_table(tmp_path: Path) -> None:
    images = tables()
    images.save(tmp_path / "segmentation.csv")
    again = SegmentedClasses.load(tmp_path / "segmentation.csv", NAMES)
    assert section_of(again.of("test")).figures == section_of(images.of("test")).figures
    heading = (tmp_path / "segmentation.csv").read_text().splitlines()[0]
    assert heading.startswith("class,image_id,patient_id,split,lesion,")
    with pytest.raises(MimError, match="is none of"):
        SegmentedClasses.load(tmp_path / "segmentation.csv", NAMES[:2])
    with pytest.raises(MimError, match="columns are class"):
        SegmentedImages.load(tmp_path / "segmentation.csv")


def test_one_class_has_the_table_and_the_figures_that_it_had(tmp_path: Path) -> None:
    one = tables().images[0]
    alone = SegmentedClasses(NAMES[:1], [one])
    one.save(tmp_path / "one.csv")
    alone.save(tmp_path / "alone.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "alone.csv").read_bytes()
    SegmentedClasses.load(tmp_path / "alone.csv", NAMES[:1]).save(tmp_path / "again.csv")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    figures = measure_overlaps(one.overlaps, one.patient_id, SETTINGS)
    assert class_means(alone, SETTINGS) == figures


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a", "a", "b"), "name of its own"), (("a", "b\nc", "d"), "on one line"), (("a", "b"), "2 classes and 3 tables")],
)
def test_classes_that_no_table_can_hold_are_refused(names: tuple[str, ...], said: str) -> None:
    with pytest.raises(MimError, match=said):
        SegmentedClasses(names, tables().images)


def test_groups_of_images_and_of_lesions_stand_the_worst_first() -> None:
    own = tables().images[0].of("test")
    arguments = {"tolerance": 2.0, "columns": own.lesion_columns, "image_columns": own.image_columns}
    section = segmentation_section(own.overlaps, own.patient_id, SETTINGS, **arguments)
    assert set(section.figures["strata"]) == {"size, square pixels", "grade", "site"}
    (column,) = section.figures["image_strata"]
    assert column == "site"
    groups = section.figures["image_strata"]["site"]
    assert [group["dice"]["value"] for group in groups] == sorted(group["dice"]["value"] for group in groups)
    for group in groups:
        rows = [place for place, name in enumerate(own.image_columns["site"]) if name == group["group"]]
        mean = np.nanmean([own.overlaps[place].dice for place in rows])
        assert group["dice"]["value"] == pytest.approx(mean)
        sick = sum(bool(own.overlaps[place].lesions) for place in rows)
        assert group["counts"] == {"images with lesions": sick, "without": len(rows) - sick}
        assert group["few"], "fewer than ten are marked and not hidden"
    assert any("†" in row[0] for table in section.tables for row in table.rows)


def test_two_segmenters_of_several_classes_are_compared_class_by_class() -> None:
    first, second = tables(), tables()
    found = compare_segmentations(first, second, SETTINGS)
    assert found["dice"].difference.value == found["dice: dentine"].difference.value == 0
    assert found["dice: root"].difference.reason is not None
    other = SegmentedClasses(("enamel, early", "dentine", "pulp"), second.images)
    with pytest.raises(MimError, match="of other classes"):
        compare_segmentations(first, other, SETTINGS)


def test_the_report_names_the_classes_and_keeps_to_its_schema(header: Header, tmp_path: Path) -> None:
    truth, drawn = draw_masks()
    grey = np.full(SIZE, 0.4, np.float32)
    film = FilmMasks("film", "p", grey, truth[1], drawn[1], ("1 enamel, early: found.",), None, ("<enamel>", "b", "c"))
    report = write_segmentation_report(tmp_path, section_of(tables().of("test")), SETTINGS, header, [film], [])
    content = json.loads((tmp_path / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    assert [own["name"] for own in content["blocks"]["segmentation_classes"]["classes"]] == list(NAMES)
    page = report.read_text()
    assert "<strong>1</strong> &lt;enamel&gt;; <strong>2</strong> b" in page
    captions = [line for line in page.splitlines() if line.startswith("<caption>")]
    assert len(set(captions)) == len(captions)
