from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mim.data.groups import age_band, read_groups
from mim.data.labels import LabelledFilm
from mim.data.store import PreparedDataset
from mim.data.studies import ABSENT, Study
from mim.errors import MimError

MODALITIES = ("IO", "IO", "PX", "")
DATASET = cast(PreparedDataset, SimpleNamespace(rows=[SimpleNamespace(modality=name) for name in MODALITIES]))


def table(path: Path, **columns: list[str]) -> Path:
    lines = [",".join(("image", *columns))]
    lines += [",".join((f"{place}.png", *row)) for place, row in enumerate(zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def film(place: int) -> LabelledFilm:
    return LabelledFilm(place, f"id{place}", f"{place}.png", 0, f"p{place}", "", "", None, line=place + 2)


FILMS = [film(place) for place in range(4)]


@pytest.mark.parametrize(
    ("written", "band"),
    [
        ("0", "under 18"),
        ("17.9", "under 18"),
        ("18", "18 to 34"),
        ("049Y", "35 to 49"),
        ("6M", "under 18"),
        ("064y", "50 to 64"),
        ("65", "65 and over"),
        ("", ""),
        ("unknown", ""),
        ("19500101", ""),  # a date of birth is no age
        ("-3", ""),
    ],
)
def test_ages_become_bands(written: str, band: str) -> None:
    assert age_band(written) == band


def test_columns_are_read_under_their_headings_and_name_no_site(tmp_path: Path) -> None:
    path = table(
        tmp_path / "labels.csv",
        gender=["f", "m", "", "f"],
        site=["Zebra clinic", "Aardvark clinic", "Zebra clinic", ""],
        age=["20", "70", "33", "no"],
        grade=["0", "D1", "D2", "D2"],
        snacks=["1", "2", "3", "4"],
    )
    assert read_groups(DATASET, path).of_films(FILMS) == {
        "severity": ["0", "D1", "D2", "D2"],
        "site": ["site 2", "site 1", "site 2", ""],
        "sex": ["f", "m", "", "f"],
        "age": ["18 to 34", "65 and over", "18 to 34", ""],
        "modality": list(MODALITIES),
    }
    assert set(read_groups(DATASET, path, ["sex"]).of_films(FILMS)) == {"sex"}
    assert read_groups(DATASET, path, []).of_films(FILMS) == {}
    assert "modality" not in read_groups(DATASET, path).of_films(FILMS[:2]), "alike in all of them"


def test_text_divides_nothing_and_is_refused_where_it_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "Mrs Lovelace came in with a swollen cheek on Monday"
    path = table(tmp_path / "labels.csv", device=[secret, "b", "c", "d"])
    assert "device" not in read_groups(DATASET, path).of_films(FILMS)
    assert "films are not divided by it" in caplog.text
    assert secret not in caplog.text
    for wanted, said in (("device", "holds more than 40 different values"), ("tooth", "which groups=tooth needs")):
        with pytest.raises(MimError, match=said):
            read_groups(DATASET, path, [cast(Any, wanted)])


def test_a_study_has_the_value_of_its_films_or_several(tmp_path: Path) -> None:
    path = table(tmp_path / "labels.csv", device=["a", "a", "b", ""], sex=["f", "f", "m", "m"])
    first = Study("s1", "p1", 1, (0, 1, ABSENT), (1, 1, 1), (2, 3, 3))
    second = Study("s2", "p2", 0, (2, 3), (0, 0), (4, 5))
    third = Study("s3", "p3", 0, (0, 2), (0, 0), (2, 4))
    assert read_groups(DATASET, path).of_studies([first, second, third]) == {
        "device": ["a", "b", "several"],
        "sex": ["f", "m", "several"],
        "modality": ["IO", "PX", "several"],
    }
