import logging
from pathlib import Path

import pytest
from door_calls import NETWORK, call, losses, read_metrics, succeed
from PIL import Image

from mim.stages.pretrain_watch import judge

STEPS = 7


def train(folder: Path, *settings: str) -> Path:
    succeed("train", *settings, f"training.max_steps={STEPS}", "optimizer.ema_decay=0.9", f"output={folder}")
    return folder


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "pictures").iterdir())


@pytest.fixture(scope="module")
def watched(unlabelled: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("watch") / "watched", *unlabelled, "watch.looks=4")


def test_pictures_come_at_log_spaced_steps_and_the_baselines_once(watched: Path) -> None:
    assert names(watched) == ["loss.png", *(f"step-{step:08d}.png" for step in (1, 2, 4, 7))]
    for path in (watched / "pictures").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    found = [line for line in read_metrics(watched) if "baseline_mean" in line]
    assert [line["step"] for line in found] == [1]
    assert 0 < found[0]["baseline_neighbours"] <= found[0]["baseline_mean"] < 1.01


def test_what_is_looked_at_changes_no_step_and_no_weight(
    watched: Path, unlabelled: tuple[str, ...], tmp_path: Path
) -> None:
    blind = train(tmp_path / "blind", *unlabelled, "watch.looks=0")
    assert names(blind) == []
    assert losses(blind) == losses(watched)
    assert (blind / "model.safetensors").read_bytes() == (watched / "model.safetensors").read_bytes()


def test_sheets_and_baselines_can_be_left_out(unlabelled: tuple[str, ...], tmp_path: Path) -> None:
    run = train(tmp_path / "run", *unlabelled, "watch={looks: 1, pictures: 0, baseline_films: 0}")
    assert names(run) == ["loss.png"]
    assert not any("baseline_mean" in line for line in read_metrics(run))


@pytest.mark.parametrize(("last", "learnt"), [([0.4, 0.5], True), ([0.9, 0.7], False), ([float("nan")], False)])
def test_a_model_that_is_no_better_than_interpolation_is_warned_of(
    last: list[float], learnt: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="mim"):
        judge(last, {"mean": 0.99, "neighbours": 0.8})
    assert "predict from the neighbours 0.8000" in caplog.messages[0]
    assert ("has not learnt more than interpolation" in caplog.text) is not learnt


def probed(phantom: Path) -> tuple[str, ...]:
    return (f"probe.path={phantom / 'labelled'}", "probe.labels=labels.csv", "probe.target=caries")


def test_the_encoder_is_tried_on_labelled_films_and_learns_nothing_from_them(
    watched: Path, unlabelled: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    run = train(tmp_path / "run", *unlabelled, "watch.looks=4", *probed(phantom))
    looks = [line for line in read_metrics(run) if "probe_linear" in line]
    assert [line["step"] for line in looks] == [1, 2, 4, 7]
    assert all(0 <= line[name] <= 1 for line in looks for name in ("probe_linear", "probe_knn"))
    assert all(1 <= line["rankme"] <= 12 for line in looks), "of the twelve films that are trained on"
    assert losses(run) == losses(watched)
    assert (run / "model.safetensors").read_bytes() == (watched / "model.safetensors").read_bytes()
    assert not any("probe_linear" in line for line in read_metrics(watched))
    assert [line["step"] for line in read_metrics(watched) if "rankme" in line] == [1, 2, 4, 7]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("probe.labels=labels.csv",), "probe.target is not set"),
        (("probe.path=films",), "probe.labels is not set"),
        (("probe.labels=labels.csv", "probe.target=caries", "watch.looks=0"), "watch.looks=0 never asks the probe"),
    ],
)
def test_a_probe_that_is_half_described_is_refused_before_films_are_read(
    settings: tuple[str, ...], words: str, unlabelled: tuple[str, ...]
) -> None:
    assert words in call("train", *unlabelled, "data.path=nowhere", *settings).error()


def test_labels_that_are_not_there_stop_the_run_at_its_beginning(
    unlabelled: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    settings = (*unlabelled, *probed(phantom), "probe.target=fractures", f"output={tmp_path / 'run'}")
    error = call("train", *settings).error()
    assert "probe: " in error
    assert "'fractures'" in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_statistics_of_batch_norm_are_not_touched_by_looking(
    unlabelled: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    brief = tuple(setting for setting in unlabelled if setting not in NETWORK)
    resnet = (
        "encoder.name=resnet18",
        "encoder.timm_args={layers: [1, 1, 1, 1]}",
        "input.image_size=[64,64]",
        "decoder={width: 48, depth: 1}",
    )
    looked = train(tmp_path / "looked", *brief, *resnet, *probed(phantom))
    blind = train(tmp_path / "blind", *brief, *resnet, "watch.looks=0")
    assert (blind / "model.safetensors").read_bytes() == (looked / "model.safetensors").read_bytes()
