import io
import logging

import pytest

from mim.stages.common import StandardError


def test_lines_go_to_what_standard_error_is_when_they_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.Logger("lines")
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stderr", first)
    logger.addHandler(StandardError())
    logger.warning("one")
    assert first.getvalue() == "one\n"
    first.close()
    monkeypatch.setattr("sys.stderr", second)
    logger.warning("two")
    assert second.getvalue() == "two\n"
