from pathlib import Path

import pytest
import yaml

CARDS = sorted((Path(__file__).parents[2] / "data" / "cards").glob("*.yaml"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.stem)
def test_a_card_says_licence_splits_and_where_to_ask(card: Path) -> None:
    facts = yaml.safe_load(card.read_text(encoding="utf-8"))
    assert {"name", "about", "films", "labels", "licence", "splits", "where_to_ask", "cite", "layout"} <= facts.keys()
    assert facts["where_to_ask"].startswith("https://")
    assert isinstance(facts["films"], int)


def test_there_are_cards() -> None:
    assert len(CARDS) >= 2
