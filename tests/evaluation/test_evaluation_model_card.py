import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mim.evaluation import Header, Predictions, evaluate_predictions
from mim.evaluation.calibration_section import calibration_section
from mim.evaluation.model_card import MISSING, facts_of_evaluation, read_checklists, write_model_card
from mim.evaluation.strata_section import strata_section

LETTERS = {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg", 18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
TRIPOD = [f"{number}{letter}" for number in range(1, 28) for letter in LETTERS.get(number, ("",))]


# words of the published lists (Tejani et al. 2024, table; Collins et al. 2024, table 1), at the numbers they have there
ASKED_BY_CLAIM = {
    5: "retrospective", 7: "come from", 8: "excluded", 9: "Preprocessing", 11: "De-identification", 12: "Missing",
    13: "images were taken", 14: "reference standard", 17: "test set", 18: "Variability", 19: "divided", 20: "level",
    21: "size", 23: "Software", 24: "First values", 26: "final model", 27: "Ensembles", 28: "Metrics",
    29: "uncertainty", 30: "Robustness", 31: "Explainability", 32: "internal", 33: "external", 34: "trial",
    35: "included", 39: "Failures", 40: "Limitations", 41: "practice", 42: "Protocol", 43: "Availability",
    44: "Funding",
}  # fmt: skip
ASKED_BY_TRIPOD = {
    "3c": "inequalities", "4": "Objectives", "5a": "Sources", "5b": "Dates", "6a": "centres", "6b": "Eligibility",
    "6c": "Treatments", "7": "Preparation", "8a": "Outcome", "8c": "Blinding", "9a": "Choice", "9b": "Definition",
    "10": "Size", "11": "Missing", "12a": "divided", "12b": "handled", "12c": "tuning", "12d": "clusters",
    "12e": "performance", "12f": "Updating", "12g": "calculated", "13": "Imbalance", "14": "Fairness", "15": "Output",
    "16": "Differences", "17": "ethics", "18a": "Funding", "18b": "Conflicts", "18c": "Protocol", "18d": "Registration",
    "18e": "data", "18f": "code", "19": "public", "20a": "Flow", "20b": "Characteristics", "20c": "beside",
    "21": "each analysis", "22": "in full", "23a": "intervals", "23b": "clusters", "24": "updating",
    "25": "Interpretation", "26": "Limitations", "27a": "poor", "27b": "users", "27c": "research",
}  # fmt: skip


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


def test_items_have_the_numbers_of_the_published_lists() -> None:
    claim, tripod = ({item.number: item.item for item in checklist.items} for checklist in read_checklists())
    assert [number for number, word in ASKED_BY_CLAIM.items() if word not in claim[str(number)]] == []
    assert [number for number, word in ASKED_BY_TRIPOD.items() if word not in tripod[number]] == []


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


def test_every_grouping_stands_in_the_card_under_its_name(
    tmp_path: Path, predictions: Predictions, header: Header
) -> None:
    place = np.arange(len(predictions))
    columns = {"severity": [f"D{row % 2}" for row in place], "site": [f"site {row % 3}" for row in place]}
    grouped = replace(predictions, columns=columns)
    metrics = evaluate_predictions(grouped, bootstrap=50)
    strata = strata_section(grouped, metrics.settings)
    assert strata is not None
    _, tripod = (
        dict(rows)
        for rows in rows_of(write_model_card(tmp_path, facts_of_evaluation(metrics, header, [], [strata]), []))
    )
    for number in ("12d", "14", "23b"):
        assert "By severity, worst first: D" in tripod[number]
        assert "By site, worst first: site " in tripod[number]


@pytest.mark.parametrize(
    "nasty",
    ["<script>alert(1)</script>", "a | b", "a \\| b", "one\ntwo", "`x`", "![x](http://evil.example/x.png)", "[x](y)"],
)
def test_nothing_that_is_given_breaks_the_tables(tmp_path: Path, nasty: str) -> None:
    claim, tripod = rows_of(write_model_card(tmp_path, {"kind": nasty, "caution": "Research."}, [nasty]))
    assert len(claim) == 44
    assert len(tripod) == 52
    text = (tmp_path / "model_card.md").read_text()
    assert "<script" not in text
    assert "`" not in text
    told = [re.sub(r"\\.", "", line) for line in text.splitlines()]  # without what is escaped
    assert all(line.count("|") == 5 for line in told if line.startswith("| "))
    assert not any("[" in line for line in told), "a link, or a picture that is fetched from somewhere"
