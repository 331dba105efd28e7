import re
from dataclasses import replace
from pathlib import Path

import pytest

from mim.evaluation import Header, Predictions, evaluate_predictions
from mim.evaluation.calibration_section import calibration_section
from mim.evaluation.model_card import MISSING, facts_of_evaluation, read_checklists, write_model_card

LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD = [f"{number}{letter}" for number in range(1, 28) for letter in LETTERS.get(number, ("",))]


def rows_of(path: Path) -> list[list[tuple[str, str]]]:
    """Number and answer of the items of each checklist of a card."""
    parts = path.read_text(encoding="utf-8").split("\n## ")
    tables = [re.findall(r"^\| (\d+[a-g]?) \|.*?\|.*?\| (.*) \|$", part, re.MULTILINE) for part in parts]
    return [table for table in tables if table]


def test_every_item_of_both_lists_is_there_once() -> None:
    claim, tripod = read_checklists()
    assert [item.number for item in claim.items] == [str(number) for number in range(1, 45)]
    assert [item.number for item in tripod.items] == TRIPOD
    assert all(item.item and item.section for item in (*claim.items, *tripod.items))


def test_without_facts_every_item_is_missing(tmp_path: Path) -> None:
    claim, tripod = rows_of(write_model_card(tmp_path, {}, []))
    assert [number for number, _ in tripod] == TRIPOD
    assert len(claim) == 44
    assert {answer for _, answer in (*claim, *tripod)} == {MISSING}


def test_what_is_filled_in_comes_from_the_evaluation(tmp_path: Path, predictions: Predictions, header: Header) -> None:
    metrics = evaluate_predictions(predictions, bootstrap=100)
    told = replace(header, trained_on={"films": 50, "patients": 20, "positives": 10}, lesions={"test": 31, "val": 7})
    calibration = calibration_section(predictions, metrics.settings)
    facts = facts_of_evaluation(metrics, told, ["Look."], [calibration])
    claim, _ = (dict(rows) for rows in rows_of(write_model_card(tmp_path, facts, ["Look."])))
    auroc, missed = metrics.test.figures["auroc"], metrics.test.confusion
    assert missed is not None
    assert f"{auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f})" in claim["37"]
    assert "training: 50 films of 20 patients, 10 positive" in claim["35"]
    assert f"{missed.false_negatives} false negatives" in claim["39"]
    assert "31 lesions" in claim["17"]
    assert MISSING in claim["17"]
    assert header.checkpoint in claim["42"]
    assert "Look." in claim["40"]
    assert all(row[0] in claim["38"] for row in calibration.tables[0].rows)
    for number in ("3", "4", "5", "15", "18", "31", "33", "34", "44"):
        assert claim[number] == MISSING, number
    fewer = facts_of_evaluation(metrics, header, [], [])
    assert "lesions" not in fewer
    assert "training:" not in fewer["counts"]


@pytest.mark.parametrize("nasty", ["<script>alert(1)</script>", "a | b", "one\ntwo", "`x`"])
def test_nothing_that_is_given_breaks_the_tables(tmp_path: Path, nasty: str) -> None:
    claim, tripod = rows_of(write_model_card(tmp_path, {"kind": nasty, "caution": "Research."}, [nasty]))
    assert len(claim) == 44
    assert len(tripod) == 52
    text = (tmp_path / "model_card.md").read_text()
    assert "<script" not in text
    assert "`" not in text
