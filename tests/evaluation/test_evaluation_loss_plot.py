import io

import numpy as np
import pytest
from PIL import Image

from mim.errors import MimError
from mim.evaluation import loss_picture


def pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def test_the_lines_are_in_the_plot_where_they_belong() -> None:
    steps, losses = range(1, 301), list(np.geomspace(1.2, 0.4, 300))
    plain = pixels(loss_picture(steps, losses, {}))
    drawn = pixels(loss_picture(steps, losses, {"low": 0.5, "high": 1.1}))
    assert plain.shape == drawn.shape
    rows = {}
    for name, colour in (("low", (179, 71, 0)), ("high", (0, 99, 156))):
        found = (drawn == colour).all(axis=2).sum(axis=1)
        assert not (plain == colour).all(axis=2).any()
        rows[name] = found.argmax()
        assert found.max() > drawn.shape[1] // 8, "a line across the plot"
    assert rows["high"] < rows["low"], "larger losses are further up"


def test_the_same_run_gives_the_same_bytes_and_gaps_are_left_out() -> None:
    losses = [1.0, float("nan"), 0.8, float("inf"), 0.7]
    assert loss_picture(range(1, 6), losses, {"a": 0.9}) == loss_picture(range(1, 6), losses, {"a": 0.9})
    assert pixels(loss_picture([1], [1.0], {})).std() > 0
    with pytest.raises(MimError, match="no loss is a finite number"):
        loss_picture([1], [float("nan")], {})
    with pytest.raises(MimError, match="2 steps and 1 losses"):
        loss_picture([1, 2], [1.0], {})
