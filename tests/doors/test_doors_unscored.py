from typing import Any

import numpy as np
import pytest

from mim.data import Splits
from mim.stages.evaluate import leave_out_unscored
from mim.stages.evaluation_context import Scored


@pytest.mark.parametrize(
    ("scores", "val", "test"),
    [([0.1, np.nan, 0.3, 0.4, np.nan], ("a",), ("c", "d")), ([np.nan, np.nan, np.nan, 0.4, 0.5], (), ("d", "e"))],
)
def test_rows_go_on_belonging_together_when_films_have_no_score(
    scores: list[float], val: tuple[Any, ...], test: tuple[Any, ...]
) -> None:
    films: tuple[Any, ...] = ("a", "b", "c", "d", "e")
    splits = Splits(train=(), val=films[:2], test=films[2:], classes=("healthy", "sick"))
    visible = np.arange(5)[:, None, None] % 2 == 0
    kept, scored = leave_out_unscored(splits, Scored(np.array(scores), visible))
    assert (kept.val, kept.test) == (val, test)
    rows = [row for row, score in enumerate(scores) if not np.isnan(score)]
    assert scored.score.tolist() == [scores[row] for row in rows]
    assert np.array_equal(scored.visible, visible[rows])
