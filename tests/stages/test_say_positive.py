"""Which of two classes is called positive."""

import pytest

from mim.stages.finetune import say_positive


@pytest.mark.parametrize("classes", [("0", "1"), ("0.0", "1.0"), ("-1", "1"), ("E1", "E2", "D1")])
def test_of_numbers_and_of_several_classes_nothing_is_said(classes: tuple[str, ...]) -> None:
    assert not list(say_positive(classes, "caries"))


def test_of_words_the_one_that_sensitivity_is_of_is_named() -> None:
    (said,) = say_positive(("caries", "healthy"), "status")
    assert said.startswith("positive is 'healthy'")
    assert "write 0 and 1 under 'status'" in said
