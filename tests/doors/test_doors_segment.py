import csv
import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from door_calls import BRIEF, CONFIGS, call, losses, read_metrics, succeed
from jsonschema import Draft202012Validator

from mim.evaluation import PixelCounts, SegmentedImages, Settings, measure_overlaps
from mim.tasks import MaskedSegmenter

FILE = CONFIGS / "finetune" / "segment_caries.yaml"
SMALL = (*BRIEF, "input.image_size=[64,96]", "encoder.timm_args={layers: [1, 1, 1, 1]}", "segment.channels=16")
LEARNED = ("masker.kind=learned", "masker.width=4", "masker.supervised=1.0")
MASKED = ("masker.kind=threshold", "masker.threshold=quantile:0.4")


@pytest.fixture(scope="module")
def run(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run behind a mask that has learnt enough to draw something somewhere."""
    folder = tmp_path_factory.mktemp("segment") / "run"
    enough = ("training.max_steps=20", "optimizer.lr=5e-3", "optimizer.ema_decay=null")
    succeed("finetune", FILE, *SMALL, *boxed, *MASKED, *enough, f"output={folder}")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_segmenter_is_trained_watched_and_measured(run: Path, tmp_path: Path, phantom: Path) -> None:
    assert any("val/dice" in record and "val/loss" in record for record in read_metrics(run))
    assert json.loads((run / "films.json").read_text())["films"] > 0
    output = tmp_path / "report"
    said = succeed("evaluate", run, f"output={output}", "bootstrap=100", "accelerator=cpu")
    assert "test Dice, mean over images" in said.out
    assert f"report: {output / 'report.html'}" in said.out
    images = SegmentedImages.load(output / "segmentation.csv")
    measured = {row["image_id"]: row["split"] for row in rows(run / "splits.csv") if row["split"] != "train"}
    assert dict(zip(images.image_id, images.split, strict=True)) == measured, "films without a lesion, too"
    assert images.keep_rate == pytest.approx([0.6] * len(images), abs=0.15)

    coco = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    areas = {annotation["area"] for annotation in coco["annotations"]}
    ours = {lesion.area for own in images.overlaps for lesion in own.lesions}
    assert ours
    assert ours <= areas, "in pixels of the films, as the file has them"
    assert set(images.columns["grade"]) <= {str(one["attributes"]["grade"]) for one in coco["annotations"]}

    content = json.loads((output / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    block = content["blocks"]["segmentation"]
    test = images.of("test")
    again = measure_overlaps(test.overlaps, test.patient_id, Settings(100))
    assert all(block[name]["value"] == figure.value for name, figure in again.items()), "from the table alone"
    counts = PixelCounts.load(output / "segmentation_thresholds.csv", list(measured.values()).count("val"))
    assert counts.choose().value == block["threshold"]["value"]
    val = images.of("val")
    assert counts.truth == sum(own.area for own in val.overlaps)
    chosen = 0.5 if block["threshold"]["value"] is None else block["threshold"]["value"]
    place = round(100 * chosen) - 1
    assert counts.drawn[place] == sum(own.drawn for own in val.overlaps)
    assert counts.both[place] == sum(own.both for own in val.overlaps)

    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 2
    assert "outlined in yellow" in page
    assert str(phantom) not in page
    assert "draws the pixels" in (output / "model_card.md").read_text()
    assert (output / "near_copies.csv").is_file()


def test_the_rule_for_empty_truth_and_the_tolerance_are_settings(run: Path, tmp_path: Path) -> None:
    settings = ("segmentation.empty_truth=score", "segmentation.tolerance=0", "bootstrap=100", "worst=0")
    succeed("evaluate", run, f"output={tmp_path}", *settings, "accelerator=cpu")
    test = SegmentedImages.load(tmp_path / "segmentation.csv").of("test")
    empty = [own for own in test.overlaps if not own.lesions]
    assert empty
    assert [own.dice for own in empty] == [float(not own.drawn) for own in empty]
    block = json.loads((tmp_path / "metrics.json").read_text())["blocks"]["segmentation"]
    assert (block["empty_truth"], block["tolerance"]) == ("score", 0)
    assert "Images without lesions count 1 where nothing is drawn" in (tmp_path / "report.html").read_text()


def test_a_run_that_broke_off_goes_on_as_if_it_had_not(
    boxed: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*SMALL, *boxed, "training.max_steps=6", "training.checkpoint_every=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    succeed("finetune", FILE, *settings, f"output={whole}")
    forward, met = MaskedSegmenter.forward, []

    def break_off(self, batch):
        met.append(self.training)
        if met.count(True) == 4:
            raise RuntimeError("as if the power had gone")
        return forward(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(MaskedSegmenter, "forward", break_off)
        with pytest.raises(RuntimeError, match="power"):
            call("finetune", FILE, *settings, f"output={broken}")
    assert not (broken / "finished.json").exists()
    assert any((broken / "checkpoints").iterdir()), "it does not begin anew"
    succeed("finetune", FILE, *settings, f"output={broken}")
    assert len(losses(whole)) == 6
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def bare(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same lesions without pixels."""
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    for annotation in content["annotations"]:
        annotation.pop("segmentation")
    file = tmp_path_factory.mktemp("bare") / "boxes.json"
    file.write_text(json.dumps(content))
    return f"data.boxes={file}"


def test_boxes_without_pixels_are_refused_unless_they_are_to_be_filled(
    boxed: tuple[str, ...], bare: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = (*SMALL, *boxed, bare, "training.max_steps=1", f"output={folder}")
    said = call("finetune", FILE, *settings).error()
    assert "annotations are boxes without pixels" in said
    assert "segment.boxes=fill" in said
    succeed("finetune", FILE, *settings, "segment.boxes=fill")
    output = tmp_path / "report"
    succeed("evaluate", folder, f"output={output}", "bootstrap=100", "worst=0", "accelerator=cpu")
    boxes = json.loads(Path(bare.partition("=")[2]).read_text())["annotations"]
    areas = {annotation["bbox"][2] * annotation["bbox"][3] for annotation in boxes}
    ours = {lesion.area for own in SegmentedImages.load(output / "segmentation.csv").overlaps for lesion in own.lesions}
    assert ours <= {round(area) for area in areas}
    assert "the whole box counts" in (output / "report.html").read_text()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("data.boxes=null",), "data.boxes is not set: task=segment learns from pixels"),
        (("data.labels=null",), "data.labels is not set"),
        (("data.target=caries",), "data.target is a label of whole films"),
        ((*LEARNED, "masker.keep=0.3"), "nothing is found in hidden cells; for task=segment give at least 0.5"),
        ((*LEARNED, "masker.random_keep=[0.2,1.0]"), "masker.random_keep [0.2, 1.0]: nothing is found in hidden cells"),
        ((*LEARNED, "masker.follow=network"), "masker.follow=network: Dice compares with pixels"),
        ((*LEARNED, "masker.stages=[0.5,0.5,0.5]"), "masker.stages [0.5, 0.5, 0.5]"),
        ((*LEARNED, "masker.reconstruction=1.0"), "masker.reconstruction: rebuilds with a pretrained model"),
        ((*LEARNED, "masker.scorer=tokens"), "masker.scorer=tokens: reads a pretrained encoder"),
        (("masker.kind=threshold", "masker.score=attention"), "the attention of fresh weights means nothing"),
        (("masker.kind=threshold", "masker.threshold=quantile:0.7"), "segment: the masker shows 30% of the cells"),
        (("segment.finest=8", "segment.channels=40"), "segment.channels"),
        (("smoothing=0.1",), "smoothing is read only with task=classify"),
        (("detect.finest=4",), "detect.finest is read only with task=detect"),
        (("task=detect",), "segment.channels is read only with task=segment"),
    ],
)
def test_what_a_segmenter_cannot_have_is_told_in_a_line(
    changed: tuple[str, ...], said: str, boxed: tuple[str, ...], tmp_path: Path
) -> None:
    output = tmp_path / "none"
    unread = (*boxed, "data.path=no such folder")  # it is told before a film is looked for
    assert said in call("finetune", FILE, *SMALL, *unread, *changed, f"output={output}").error()
    assert not (output / "checkpoints").exists()


@pytest.fixture(scope="module")
def behind_learned(boxed: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("learned") / "run"
    stages = ("masker.stages=[0.3,0.4,0.3]", "encoder.patch_size=16")
    succeed("finetune", FILE, *SMALL, *boxed, *LEARNED, *stages, f"output={folder}")
    return folder


def test_a_learned_mask_is_watched_and_what_it_hides_stands_first(behind_learned: Path, tmp_path: Path) -> None:
    records = read_metrics(behind_learned)
    watched = {"val/dice", "val/keep", "val/lesion_shown", "val/mask_rate", "val/mask_film_deviation"}
    assert any(watched <= set(record) for record in records)
    assert "train/loss_supervised" not in records[0]
    assert {"train/loss_pixels", "train/loss_supervised", "train/loss_budget"} <= set(records[1])
    said = succeed("evaluate", behind_learned, f"output={tmp_path}", "bootstrap=100", "accelerator=cpu")
    assert said.out.index("lesion recall") < said.out.index("test Dice")
    content = json.loads((tmp_path / "metrics.json").read_text())
    schema = json.loads((files("mim.evaluation") / "schemas" / "metrics.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(content)
    assert list(content["blocks"]) == ["mask", "segmentation"]
    mask = content["blocks"]["mask"]
    assert mask["share"] == pytest.approx(0.5, abs=0.05)
    assert {"all"} < {row["grade"] for row in mask["lesion_recall"]}, "by grade"
    assert set(mask["lesion_recall"][-1]["figures"]) == {"masker", "random"}
    assert mask["lesion_recall"][-1]["lesions"] == content["blocks"]["segmentation"]["lesions"]
    page = (tmp_path / "report.html").read_text()
    assert page.index("What does the mask hide?") < page.index("Segmentation of lesions")


def test_a_segmenter_without_a_masker_has_no_block_of_masks(boxed: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    succeed("finetune", FILE, *SMALL, *boxed, "training.max_steps=1", f"output={folder}")
    succeed("evaluate", folder, "bootstrap=100", "worst=0", "accelerator=cpu")
    assert list(json.loads((folder / "metrics.json").read_text())["blocks"]) == ["segmentation"]


@pytest.mark.parametrize(
    "masker",
    [
        ("masker.kind=threshold", "masker.score=reconstruction_error", "masker.threshold=quantile:0.4"),
        ("masker.kind=threshold", "masker.score=attention", "masker.threshold=quantile:0.4"),
        (*LEARNED, "masker.scorer=tokens", "masker.reconstruction=1.0", "masker.keep=0.6"),
    ],
)
def test_a_segmenter_behind_what_a_pretrained_model_says(
    masker: tuple[str, ...], boxed: tuple[str, ...], pretrained: Path, tmp_path: Path
) -> None:
    folder, start = tmp_path / "run", tmp_path / "pretrained"
    shutil.copytree(pretrained, start)
    small = ("task=segment", "segment.channels=16")
    succeed("finetune", *BRIEF, *small, *masker, *boxed, f"init={start}", f"output={folder}")
    shutil.rmtree(start)  # to measure, nothing of it is needed
    succeed("evaluate", folder, "bootstrap=100", "accelerator=cpu")
    share = json.loads((folder / "metrics.json").read_text())["blocks"]["mask"]["share"]
    assert share == pytest.approx(0.6, abs=0.1)


def test_pixels_that_changed_since_the_training_stop_the_evaluation(
    boxed: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    content = json.loads((phantom / "labelled" / "lesions.coco.json").read_text())
    file = tmp_path / "lesions.json"
    file.write_text(json.dumps(content))
    folder = tmp_path / "run"
    succeed("finetune", FILE, *SMALL, *boxed, f"data.boxes={file}", "training.max_steps=1", f"output={folder}")
    counts = content["annotations"][0]["segmentation"]["counts"]
    counts[0:3] = [counts[0] + 1, counts[1] - 1, counts[2]]  # the box stays as it is
    file.write_text(json.dumps(content))
    assert "pixels or splits of" in call("evaluate", folder, f"output={tmp_path / 'report'}").error()


def test_probabilities_that_are_no_numbers_are_left_out_and_said(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = MaskedSegmenter.forward

    def spoil(self, batch):
        out = forward(self, batch)
        out["logits"][-1] = np.nan
        return out

    monkeypatch.setattr(MaskedSegmenter, "forward", spoil)
    settings = ("bootstrap=100", "worst=0", "batch_size=4", "accelerator=cpu")
    said = succeed("evaluate", run, f"output={tmp_path}", *settings)
    assert "have probabilities that are no numbers" in said.err
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert any("no numbers" in warning for warning in content["warnings"])
    assert content["blocks"]["segmentation"]["images"] > 0


@pytest.mark.parametrize("setting", ["specificity=0.5"])
def test_settings_that_are_not_read_are_refused(setting: str, run: Path, tmp_path: Path) -> None:
    said = call("evaluate", run, setting, f"output={tmp_path / 'report'}").error()
    assert f"{setting.partition('=')[0]} is not read of a run with task=segment" in said


def test_the_settings_of_masks_are_refused_where_there_are_none(
    boxed: tuple[str, ...], labelled: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    network = ("input.image_size=[64,64]", "encoder.name=resnet18", "encoder.timm_args={layers: [1, 1, 1, 1]}")
    succeed("finetune", *BRIEF, *network, *labelled, "masker.kind=none", "training.max_steps=1", f"output={folder}")
    said = call("evaluate", folder, "segmentation.tolerance=1", f"output={tmp_path / 'report'}").error()
    assert "segmentation is read only of runs with task=segment" in said
