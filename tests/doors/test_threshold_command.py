"""`python -m mim.masking.threshold` on drawn films, and fine-tuning behind a score that needs a model."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from door_calls import QUIET, own_logging, succeed

from mim.config import FinetuneConfig, load_config
from mim.errors import MimError
from mim.masking import ThresholdMasker
from mim.models import create_encoder
from mim.stages.common import NetworkInput
from mim.stages.score_source import start_source
from mim.stages.threshold_command import main

SIZE = "input.image_size=[64,64]"
CELLS = "encoder={name: vit_tiny_patch16_224, patch_size: 8, timm_args: {depth: 1, embed_dim: 48, num_heads: 3}}"


def arguments(labelled, output, *more):
    return [
        *labelled,
        SIZE,
        CELLS,
        "data.boxes=lesions.coco.json",
        "--output",
        str(output),
        "--resamples",
        "200",
        *more,
    ]


def curve(folder):
    with (folder / "threshold.csv").open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


@pytest.mark.parametrize("keep", ["above", "below"])
def test_the_proposal_hides_most_while_the_wanted_lesions_stay(labelled, tmp_path, keep, capsys):
    assert main(arguments(labelled, tmp_path, "--recall", "0.8", "--keep", keep)) == 0
    result = json.loads((tmp_path / "threshold.json").read_text())
    rows = curve(tmp_path)
    chosen = next(row for row in rows if row["threshold"] == result["threshold"])
    assert chosen["val_lesion_recall"] >= 0.8
    val, test = result["splits"]["val"], result["splits"]["test"]
    assert val["lesion_recall"]["value"] == pytest.approx(chosen["val_lesion_recall"], abs=1e-6)
    assert test["lesion_recall"]["value"] == pytest.approx(chosen["test_lesion_recall"], abs=1e-6)
    figure = test["lesion_recall"]
    assert figure["low"] <= figure["value"] <= figure["high"]
    stricter = [row for row in rows if row["val_keep_rate"] < chosen["val_keep_rate"]]
    assert stricter
    assert all(row["val_lesion_recall"] < 0.8 for row in stricter)
    rates = [row["val_keep_rate"] for row in rows]
    assert rates == sorted(rates, reverse=keep == "above")
    assert [row["threshold"] for row in result["other_thresholds"]] == ["otsu"]
    said = capsys.readouterr().out
    assert f"masker.threshold={result['threshold']!r}" in said
    assert (tmp_path / "threshold.png").read_bytes().startswith(b"\x89PNG")


def test_a_threshold_that_keeps_everything_is_warned_of_with_the_distribution(labelled, tmp_path, capsys):
    with own_logging():
        assert main(arguments(labelled, tmp_path, "--thresholds=-5,7")) == 0
    said = capsys.readouterr().err
    assert "the threshold -5.0 keeps everything of the validation films: scores are" in said
    assert "the threshold 7.0 keeps nothing of the validation films: scores are" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--recall", "1.5"], "recall is 1.5"),
        (["--thresholds", "median"], "--thresholds: a threshold is a number"),
        (["--score", "reconstruction_error"], "give init=<run of train.py>"),
        (["--score", "attention"], "the attention of fresh weights means nothing"),
        (["data.boxes=null"], "give --boxes"),
        (["data.boxes=nothing.json"], "nothing.json"),
        (["masker.scor=x"], "masker.score"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(labelled, tmp_path, capsys, more, message):
    output = tmp_path / "out"
    assert main(arguments(labelled, output, *more)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not output.exists()


@pytest.mark.parametrize("score", ["reconstruction_error", "attention"])
def test_a_finetuning_scored_by_a_pretrained_model_is_evaluated_without_its_run(
    labelled, pretrained, tmp_path, score, capsys
):
    run, before = tmp_path / "pretrained", tmp_path / "threshold"
    shutil.copytree(pretrained, run)
    asked = ["data.boxes=lesions.coco.json", "--run", str(run), "--score", score, "--resamples", "200"]
    assert main([*labelled, *asked, "--output", str(before)]) == 0
    threshold = json.loads((before / "threshold.json").read_text())["threshold"]
    output = tmp_path / "run"
    brief = ("training.workers=0", "training.batch_size=4", "training.accelerator=cpu", "training.max_steps=2")
    masker = f"masker={{kind: threshold, score: {score}, threshold: {threshold!r}}}"
    succeed("finetune", *labelled, *QUIET, *brief, f"init={run}", masker, f"output={output}")
    shutil.rmtree(run)
    said = succeed("evaluate", f"run={output}", "bootstrap=100", "accelerator=cpu")
    assert "share of cells seen" in said.out
    # what was seen is what the threshold said beforehand
    with (output / "predictions.csv").open() as file:
        rates = [float(row["keep_rate"]) for row in csv.DictReader(file) if row["split"] == "val"]
    wanted = json.loads((before / "threshold.json").read_text())["splits"]["val"]["keep_rate"]
    assert np.mean(rates) == pytest.approx(wanted, abs=0.5 / 16)  # a film with nothing keeps one cell


def test_attention_of_a_cnn_is_refused_with_the_way_out():
    settings = ["masker={kind: threshold, score: attention}", "encoder={name: resnet18, pretrained: true}"]
    config = load_config(FinetuneConfig, None, settings)
    with pytest.raises(MimError, match=r"masker\.score=attention: a ResNet has no attention.*choose a ViT, or"):
        start_source(config, create_encoder("resnet18", (64, 64)), NetworkInput())


def test_the_command_decides_as_the_masker_does(labelled, tmp_path):
    assert main(arguments(labelled, tmp_path, "--recall", "0.9", "--score", "variance")) == 0
    chosen = json.loads((tmp_path / "threshold.json").read_text())["threshold"]
    scores = torch.tensor([chosen], dtype=torch.float64).float()
    assert float(scores) == chosen  # a score of a cell, to the last bit: it is kept
    assert ThresholdMasker(chosen, scores.view(1, 1), patch_size=1)({"image": torch.zeros(1, 1, 1, 1)}).visible.all()
