"""Comparison of two segmenters."""

import csv
import json
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from door_calls import BRIEF, CONFIGS, call, succeed
from jsonschema import Draft202012Validator

from mim.evaluation import SegmentedImages, Settings
from mim.evaluation.segmentation import LesionOverlap, Overlap, measure_overlaps

QUICK = ("bootstrap=100", "worst=0", "accelerator=cpu")
SMALL = ("input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
FILE = CONFIGS / "finetune" / "segment_caries.yaml"


def perfect(own: Overlap) -> Overlap:
    """The same image, all of it drawn as it is."""
    lesions = tuple(LesionOverlap(1.0, 1.0, one.area, one.area, one.area) for one in own.lesions)
    value = 1.0 if lesions else own.dice
    return Overlap(value, value, lesions, own.area, own.area, own.area, 0, 0)


def save(images: SegmentedImages, run: Path) -> None:
    """Puts a table into a run, with the figures of its test films."""
    images.save(run / "segmentation.csv")
    path, test = run / "metrics.json", images.of("test")
    content = json.loads(path.read_text())
    for name, figure in measure_overlaps(test.overlaps, test.patient_id, Settings(100)).items():
        content["blocks"]["segmentation"][name]["value"] = figure.value
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def segmenters(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A segmenter after a step, and one that draws every lesion as it is."""
    folder = tmp_path_factory.mktemp("compare-segmenters")
    for seed in (0, 1):
        run = folder / f"seed{seed}"
        settings = (*BRIEF, *SMALL, *boxed, "training.max_steps=1", f"seed={seed}")
        succeed("finetune", FILE, *settings, f"output={run}")
        succeed("evaluate", run, *QUICK)
    images = SegmentedImages.load(folder / "seed1" / "segmentation.csv")
    save(replace(images, overlaps=[perfect(own) for own in images.overlaps]), folder / "seed1")
    return folder / "seed0", folder / "seed1"


def test_two_segmenters_are_compared_on_the_same_films_and_lesions(segmenters: tuple[Path, Path]) -> None:
    said = succeed("evaluate", *segmenters, *QUICK)
    output = segmenters[0].parent / "seed1-against-seed0"
    with (output / "comparison.csv").open(newline="") as file:
        rows = {row["figure"]: row for row in csv.DictReader(file)}
    tables = [SegmentedImages.load(run / "segmentation.csv").of("test") for run in segmenters]
    figures = [measure_overlaps(table.overlaps, table.patient_id, Settings(100)) for table in tables]
    assert set(rows) == set(figures[0])
    for name, row in rows.items():
        one, other = (own[name].value for own in figures)
        assert [float(row["first"]), float(row["second"])] == pytest.approx([one, other]), name
        assert float(row["difference"]) == pytest.approx(other - one), name
        assert float(row["low"]) <= other - one <= float(row["high"])
    assert float(rows["lesion_dice"]["second"]) == 1
    assert float(rows["lesion_dice"]["p"]) < 0.05
    content = json.loads((output / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    assert set(content["blocks"]) == {"segmentation", "comparison"}
    assert content["blocks"]["segmentation"]["lesion_dice"]["value"] == 1
    assert "difference of Dice, mean over lesions +" in said.out
    page = (output / "report.html").read_text()
    assert "Normalised surface distance, mean over lesions" in page
    assert str(segmenters[0].parent) not in page


def test_what_was_measured_otherwise_is_not_compared(segmenters: tuple[Path, Path], tmp_path: Path) -> None:
    said = call("evaluate", *segmenters, *QUICK, "segmentation.tolerance=1", f"output={tmp_path / 'out'}").error()
    assert "was measured with segmentation.tolerance=2.0, and segmentation.tolerance is 1.0" in said
    first, copy = segmenters[0], tmp_path / "copy"
    shutil.copytree(segmenters[1], copy)
    images = SegmentedImages.load(copy / "segmentation.csv")
    place = next(p for p, own in enumerate(images.overlaps) if own.lesions and images.split[p] == "test")
    lesion = replace(images.overlaps[place].lesions[0], area=1)
    changed = list(images.overlaps)
    changed[place] = replace(changed[place], lesions=(lesion, *changed[place].lesions[1:]))
    save(replace(images, overlaps=changed), copy)
    said = call("evaluate", first, copy, *QUICK, f"output={tmp_path / 'out'}").error()
    assert "1 test images have another patient or other lesions" in said
    described = json.loads((copy / "task.json").read_text())
    (copy / "task.json").write_text(json.dumps({**described, "classes": ["calculus"]}))
    assert "its classes are of pixels (calculus)" in call("evaluate", first, copy, *QUICK).error()
    assert not (tmp_path / "out").exists()


def test_films_that_one_of_two_could_not_draw_are_left_out_of_both(
    segmenters: tuple[Path, Path], tmp_path: Path
) -> None:
    first, copy = segmenters[0], tmp_path / "copy"
    shutil.copytree(segmenters[1], copy)
    images = SegmentedImages.load(copy / "segmentation.csv")
    gone = next(place for place, split in enumerate(images.split) if split == "test")
    save(images.take([place for place in range(len(images)) if place != gone]), copy)
    said = succeed("evaluate", first, copy, *QUICK, f"output={tmp_path / 'out'}")
    assert "only what both runs could score is compared" in said.err
    assert f"{len(images.of('test')) - 1} test films of" in said.out


def test_a_table_of_another_run_is_not_taken_for_its_own(segmenters: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(segmenters[0], copy)
    own = (copy / "segmentation.csv").read_text()
    shutil.copy(segmenters[1] / "segmentation.csv", copy)
    said = succeed("evaluate", segmenters[1], copy, *QUICK, f"output={tmp_path / 'out'}")
    assert "its metrics.json is not of its segmentation.csv; all are made again" in said.err
    assert (copy / "segmentation.csv").read_text() == own
