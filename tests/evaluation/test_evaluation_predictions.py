from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mim.errors import MimError
from mim.evaluation import Predictions

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12)
SHARES = st.floats(0, 1)
GOOD: dict[str, Any] = {
    "image_id": ["a", "b"],
    "patient_id": ["p", "q"],
    "split": ["val", "test"],
    "label": [0, 1],
    "score": [0.25, 0.75],
    "keep_rate": [1.0, 0.5],
}


def equal(one: Predictions, other: Predictions) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("image_id", "patient_id", "split", "label", "score", "keep_rate")
    )


@given(
    st.lists(
        st.tuples(NAMES, NAMES, st.sampled_from(["val", "test"]), st.integers(0, 1), SHARES, SHARES),
        unique_by=lambda row: row[0],
        max_size=6,
    )
)
def test_a_table_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(6)]
    table = Predictions(*columns)
    path = tmp_path_factory.mktemp("table") / "predictions.csv"
    table.save(path)
    assert equal(Predictions.load(path), table)


def test_saving_leaves_nothing_else_behind(tmp_path: Path, predictions: Predictions) -> None:
    predictions.save(tmp_path / "deep" / "predictions.csv")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("keep_rate", [0.5, float("nan")], "row 2 .*'b'.*keep_rate is nan"),
        ("columns", {"label": ["a", "b"]}, "cannot be called 'label'"),
        ("columns", {"": ["a", "b"]}, "cannot be called ''"),
        ("columns", {"site": ["a"]}, "column site has 1 rows"),
        ("columns", {"site": ["a", "b\n"]}, "row 2: site"),
        ("score", [1.5, 0.5], "row 1 .*'a'.*score is 1.5"),
        ("score", [0.5, -0.1], "row 2 .*score is -0.1"),
        ("score", [0.5, "high"], "row 2: score is 'high'"),
        ("keep_rate", [float("inf"), 0.5], "row 1 .*keep_rate is inf"),
        ("label", [0, 2], "row 2 .*label is 2"),
        ("label", [0.5, 1], "row 1 .*label is 0.5"),
        ("label", [0, None], "row 2 .*label is nan"),
        ("label", [-1, 1], "row 1 .*label is -1"),
        ("split", ["val", "train"], "row 2 .*'train' must be val or test"),
        ("image_id", ["a", "a"], "row 2: image 'a' stands in row 1"),
        ("image_id", ["a", ""], "row 2: image_id ''"),
        ("patient_id", ["p\n", "q"], r"row 1: patient_id 'p\\n'"),
        ("patient_id", ["p", 7], "row 2: patient_id 7"),
        ("score", [0.5], "column score has 1 rows, image_id has 2"),
    ],
)
def test_a_bad_row_is_named(column: str, values: Any, message: str) -> None:
    with pytest.raises(MimError, match=message):
        Predictions(**GOOD | {column: values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are missing"),
        ("image_id,score\na,0.5\n", "columns are image_id, score; expected image_id, patient_id"),
        ("image_id,patient_id,split,label,score,keep_rate\na,p,val,0,0.5\n", "row 1 has 5 values, expected 6"),
        ("image_id,patient_id,split,label,score,keep_rate\na,p,val,0.4,0.5,1\n", "row 1 .*label is 0.4"),
        ("image_id,patient_id,split,label,score,keep_rate\na,p,val,0,?,1\n", r"row 1: score is '\?'"),
        ('image_id,patient_id,split,label,score,keep_rate\n"a,p,val,0,1,1\n', "cannot be read"),
        (
            "image_id,patient_id,split,label,score,keep_rate,site,site\na,p,val,0,1,1,x,y\n",
            "column 'site' stands",
        ),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MimError, match=rf"predictions\.csv.*{message}"):
        Predictions.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MimError, match=r"nowhere\.csv"):
        Predictions.load(tmp_path / "nowhere.csv")


def test_splits_part_the_rows(make: Callable[..., Predictions]) -> None:
    table = make(90)
    val, test = table.of("val"), table.of("test")
    assert len(val) + len(test) == 90
    assert set(val.split) == {"val"}
    assert set(test.image_id).isdisjoint(val.image_id)
    assert test.score.tolist() == [s for s, split in zip(table.score, table.split, strict=True) if split == "test"]
