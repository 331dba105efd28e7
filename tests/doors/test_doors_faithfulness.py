import json
from pathlib import Path
from typing import Any

import pytest
from door_calls import BRIEF, NETWORK, call, succeed

FEW = ("bootstrap=100", "faithfulness={keep_rates: [0.25, 1.0], resamples: 100, random_masks: 2}")


@pytest.fixture(scope="module")
def runs(labelled: tuple[str, ...], pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs behind a learned mask, behind Otsu's, and without a mask."""
    folder = tmp_path_factory.mktemp("faithfulness")
    boxes = "data.boxes=lesions.coco.json"
    succeed("finetune", *BRIEF, *labelled, boxes, f"init={pretrained}", f"output={folder / 'learned'}")
    fresh = (*BRIEF, *NETWORK, *labelled)
    succeed("finetune", *fresh, boxes, "masker={kind: threshold, threshold: otsu}", f"output={folder / 'otsu'}")
    succeed("finetune", *fresh, "masker.kind=none", f"output={folder / 'none'}")
    return folder


def block(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "metrics.json").read_text())["blocks"]["faithfulness"]
    return content


def test_an_evaluation_says_what_a_learned_mask_is_worth(runs: Path) -> None:
    said = succeed("evaluate", runs / "learned", *FEW, f"faithfulness.evaluator={runs / 'none'}")
    figures = block(runs / "learned")
    ways = {"masker", "random", "otsu", "variance", "attention", "reconstruction_error", "oracle"}
    assert set(figures["curves"]) == ways, figures["absent"]
    assert figures["absent"] == {}
    everything = {name: points[-1] for name, points in figures["curves"].items()}
    assert all(point["keep_rate"] == 1.0 for point in everything.values())
    assert len({point["value"] for point in everything.values()}) == 1, "where all is seen, no way differs"
    whole = json.loads((runs / "learned" / "metrics.json").read_text())
    assert figures["at_own_share"]["masker"]["value"] == whole["test"]["auroc"]["value"]
    rows = figures["lesion_recall"]
    assert rows[-1]["grade"] == "all"
    assert rows[-1]["lesions"] == sum(row["lesions"] for row in rows[:-1]) > 0
    assert set(rows[-1]["figures"]) == {"masker", "random", "otsu"}
    assert "lesion recall" in said.out
    difference = figures["differences"]["random"]
    beaten = difference["low"] is not None and difference["low"] > 0
    assert ("does not beat a random mask" in str(whole["warnings"])) or beaten or difference["high"] < 0
    assert figures["leakage"]["evaluator"]["masker"] == "none"
    assert figures["leakage"]["overlap"]["value"] > 0
    report = (runs / "learned" / "report.html").read_text()
    assert report.index("Read this first") < report.index("Lesion recall: lesions with at least half")


def test_the_same_evaluation_gives_the_same_figures(runs: Path, tmp_path: Path) -> None:
    for name, batch in (("first", 64), ("second", 5)):
        succeed("evaluate", runs / "learned", *FEW, f"output={tmp_path / name}", f"batch_size={batch}")
    first, second = block(tmp_path / "first"), block(tmp_path / "second")
    assert first["lesion_recall"] == second["lesion_recall"]
    assert first["leakage"]["alone"] == second["leakage"]["alone"]
    assert first["curves"] == second["curves"]


def test_otsus_mask_is_not_held_against_itself(runs: Path) -> None:
    succeed("evaluate", runs / "otsu", *FEW)
    figures = block(runs / "otsu")
    assert figures["same_mask"] == ["otsu"]
    assert figures["differences"]["otsu"]["value"] == 0
    assert "pretraining run" in figures["absent"]["reconstruction_error"]
    assert figures["leakage"]["no_evaluator"]


def test_without_a_masker_the_curves_of_the_rules_remain(runs: Path) -> None:
    said = succeed("evaluate", runs / "none", *FEW)
    figures = block(runs / "none")
    assert set(figures["curves"]) == {"random", "otsu", "variance", "attention"}
    assert "data.boxes" in figures["absent"]["oracle"]
    assert figures["leakage"] is None
    assert figures["differences"] == {}
    assert figures["no_lesion_recall"]
    assert "lesion recall: none" in said.out


def test_the_block_can_be_left_out(runs: Path, tmp_path: Path) -> None:
    succeed("evaluate", runs / "none", "bootstrap=100", "faithfulness.enabled=false", f"output={tmp_path}")
    assert "faithfulness" not in json.loads((tmp_path / "metrics.json").read_text())["blocks"]


@pytest.mark.parametrize(
    ("evaluator", "wanted"),
    [
        ("learned", "not independent of its mask"),
        ("otsu", "was trained behind a threshold mask of its own"),
        ("nowhere", "there is no such run"),
    ],
)
def test_an_evaluator_that_is_none(runs: Path, evaluator: str, wanted: str) -> None:
    error = call("evaluate", runs / "learned", *FEW, f"faithfulness.evaluator={runs / evaluator}").error()
    assert wanted in error
    assert evaluator in error


def test_an_evaluator_that_met_the_test_films(runs: Path, labelled: tuple[str, ...], tmp_path: Path) -> None:
    other = (*BRIEF, *NETWORK, *labelled, "masker.kind=none", "data.folds=2", f"output={tmp_path / 'run'}")
    succeed("finetune", *other)
    error = call("evaluate", runs / "learned", *FEW, f"faithfulness.evaluator={tmp_path / 'run'}").error()
    assert "may know the test films" in error
