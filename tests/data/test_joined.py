import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from film_factory import pattern, store_films, write_png

from mim.data import PreparedDataset
from mim.data.annotations import Annotations, Lesion
from mim.data.joined import PREFIX, JoinedFilms, join_annotations


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedDataset, PreparedDataset]:
    """Three films, and two others under the names of the first two."""
    made = []
    for name, count, start in (("first", 3, 0), ("second", 2, 10)):
        root = tmp_path_factory.mktemp(name)
        for number in range(count):
            write_png(root / "films" / f"{number}.png", pattern(start + number))
        made.append(store_films(root / "films", root / "out"))
    return made[0], made[1]


def test_numbers_of_the_second_go_on_after_those_of_the_first(pair: tuple[PreparedDataset, PreparedDataset]) -> None:
    first, second = pair
    joined = JoinedFilms(first, second)
    assert len(joined) == len(joined.rows) == 5
    for number in range(5):
        films, place = (first, number) if number < 3 else (second, number - 3)
        for mine, theirs in zip(joined.levels(number), films.levels(place), strict=True):
            assert np.array_equal(mine, theirs)
        assert np.array_equal(joined.image(number), films.image(place))
        assert joined.rows[number].sha256 == films.rows[place].sha256
    with pytest.raises(IndexError):
        joined.levels(5)
    again = pickle.loads(pickle.dumps(joined))
    assert np.array_equal(again.image(4), joined.image(4))


def test_files_that_are_called_alike_have_ids_of_their_own(pair: tuple[PreparedDataset, PreparedDataset]) -> None:
    first, second = pair
    assert first.rows[0].image_id == second.rows[0].image_id, "hashes of the same path"
    rows = JoinedFilms(first, second).rows
    assert len({row.image_id for row in rows}) == 5
    assert [row.image_id for row in rows[3:]] == [f"{PREFIX}{row.image_id}" for row in second.rows]
    assert list(rows) == [rows[number] for number in range(5)]
    assert rows[-1] == rows[4]


def test_lesions_stay_with_their_films_and_are_not_known_where_they_are_of_the_second() -> None:
    lesion = Lesion((0.0, 0.0, 0.5, 0.5), "caries", 0, "D1", 0, "", 1.0, None)
    own = Annotations(Path("own.json"), {1: (lesion,)}, ("caries",), ())
    other = Annotations(Path("other.json"), {0: (replace(lesion, grade="D2"),)}, ("caries",), ("D1", "D2"))
    joined = join_annotations(own, other, 3)
    assert joined is not None
    assert [joined.of(film) for film in range(4)] == [(), own.of(1), (), other.of(0)]
    assert joined.grades == ("D1", "D2"), "the order of the films that are measured"
    assert join_annotations(own, None, 3) is None
    alone = join_annotations(None, other, 3)
    assert alone is not None
    assert alone.lesions == {3: other.of(0)}
