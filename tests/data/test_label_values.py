import logging
from pathlib import Path

import pytest
from film_factory import SALT, pattern, store_films, write_csv, write_png

from mim.data import PreparedDataset, Splits, attach_labels, load_splits, save_splits, split_films, split_hash
from mim.data.augment import evaluation_transform
from mim.data.label_values import MISSING, LabelKind, read_values
from mim.data.labels import LabelledFilms
from mim.data.learnable import check_learnable
from mim.data.loader import FilmDataset, evaluation_loader
from mim.data.tables import TableRow
from mim.data.write_splits import write_splits
from mim.errors import MimError

DRAW = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0}
FILMS = 40
TABLE = Path("labels.csv")


def rows_of(*values: str) -> list[TableRow]:
    return [TableRow(line, {"grade": value}) for line, value in enumerate(values, 2)]


def read(*values: str, kind: LabelKind = "classes", order: tuple[str, ...] | None = None) -> tuple[str, ...]:
    return read_values(TABLE, rows_of(*values), "grade", kind, order).classes


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    root = tmp_path_factory.mktemp("labels")
    for number in range(FILMS):
        write_png(root / "films" / f"{number:02}.png", pattern(number))
    return store_films(root / "films", root / "prepared")


def attach(films: PreparedDataset, *cells: tuple[object, ...], **options: object) -> LabelledFilms:
    """Labels `a`, `b`, `c` of the films in their order."""
    rows = [(f"{number:02}.png", *own) for number, own in enumerate(cells)]
    names = ("a", "b", "c")[: len(cells[0])]
    path = write_csv(films.source / "several.csv", ("image", *names), *rows)
    return attach_labels(films, films.source, path.name, names, SALT, **options)


def test_more_than_two_values_are_classes_and_two_are_as_ever() -> None:
    assert read("bacteria", "none", "virus", "none") == ("bacteria", "none", "virus")
    assert read("10", "9", "9") == read("10", "9", "9", kind="two") == ("9", "10")
    values = read_values(TABLE, rows_of("10", "9", "2"), "grade", "classes")
    assert (values.classes, values.of_row) == (("2", "9", "10"), (2, 1, 0))


def test_labels_may_have_to_be_of_the_classes_of_a_run() -> None:
    known = ("none", "virus", "bacteria")
    values = read_values(TABLE, rows_of("virus", "virus"), "grade", "two", classes=known)
    assert (values.classes, values.of_row) == (known, (1, 1)), "not all of them need be there"
    with pytest.raises(
        MimError, match=r"row 3: 'fungus' stands under 'grade', which is no class of the run \(none, vir"
    ):
        read_values(TABLE, rows_of("none", "fungus"), "grade", classes=known)
    rows = [TableRow(2, {"x": "1", "y": ""}), TableRow(3, {"x": "1", "y": "0"})]
    several = read_values(TABLE, rows, ("x", "y"), classes=("caries", "filling"))
    assert (several.labels, several.several) == (("caries", "filling"), ((1, MISSING), (1, 0)))


@pytest.mark.parametrize(
    ("values", "order", "expected"),
    [
        (("3", "0", "10"), None, ("0", "3", "10")),
        (("D1", "E2", "D3", "E0"), None, ("E0", "E2", "D1", "D3")),
        (("severe", "mild", "moderate"), None, ("mild", "moderate", "severe")),
        (("bad", "good", "fair"), ("good", "fair", "bad"), ("good", "fair", "bad")),
    ],
)
def test_grades_stand_in_their_order(
    values: tuple[str, ...], order: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    assert read(*values, kind="ordered", order=order) == expected


@pytest.mark.parametrize(
    ("values", "kind", "order", "said"),
    [
        (("a", "b", "c"), "two", None, "3 values under 'grade' .*exactly two are supported"),
        (("a", "a"), "classes", None, "only one class under 'grade'"),
        (("0", "1", "nan"), "classes", None, "row 4: 'nan' stands under 'grade': leave the cell empty"),
        (("0", "1", "N/A"), "two", None, "row 4: 'N/A' stands under 'grade'"),
        (tuple(map(str, range(101))), "classes", None, "101 different values .*more than 100"),
        (("good", "fair", "bad"), "ordered", None, "is not known: name them all in data.label_order"),
        (("good", "fair", "bad"), "ordered", ("good", "bad"), "'fair' is not among those given"),
        (("1", "2"), "ordered", None, "needs three or more"),
        (("1", "2", "3"), "ordered", ("1", "2", "3", "1"), "names a grade twice"),
    ],
)
def test_labels_that_are_not_such_as_they_should_be_are_refused(
    values: tuple[str, ...], kind: LabelKind, order: tuple[str, ...] | None, said: str
) -> None:
    with pytest.raises(MimError, match=said):
        read(*values, kind=kind, order=order)


def test_a_film_lacks_a_label_and_stays(films: PreparedDataset) -> None:
    labelled = attach(films, (1, 0), (0.0, ""), ("", "1.0"), ("", ""), (0, 1))
    assert labelled.labels == ("a", "b")
    assert [film.labels for film in labelled.films] == [(1, 0), (0, MISSING), (MISSING, 1), (0, 1)]
    assert labelled.unlabelled == 1
    assert labelled.target == "a, b"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (((1, 0), (0, 2), (0, 1)), "row 3: '2' stands under 'b': each of several labels is 0 or 1"),
        (((1, 0), (0, "yes"), (0, 1)), "row 3: 'yes' stands under 'b'"),
        (((1, 1), (0, 1), (0, 1)), "only 1 stands under 'b'"),
        (((1, ""), (0, ""), (0, "")), "nothing stands under 'b'"),
    ],
)
def test_several_labels_are_zero_or_one_or_empty(
    films: PreparedDataset, cells: tuple[tuple[object, ...], ...], said: str
) -> None:
    with pytest.raises(MimError, match=said):
        attach(films, *cells)


def rare_labels() -> list[tuple[object, ...]]:
    """`a` is common, `b` is rare and only together with it, `c` is not known of half of the films."""
    return [
        (int(number % 2 == 0), int(number % 10 == 0), "" if number % 4 < 2 else int(number % 8 == 2))
        for number in range(FILMS)
    ]


def test_each_split_gets_its_share_of_the_rare_labels(films: PreparedDataset) -> None:
    splits = split_films(attach(films, *rare_labels()), **DRAW)
    assert set(splits.classes) == {"none", "a", "b", "c"}
    for part in (splits.train, splits.val, splits.test):
        for place in range(3):
            assert {0, 1} <= {film.labels[place] for film in part}
    assert len(splits.train) == 24
    check_learnable(splits, TABLE, "a, b, c")


def test_the_split_remembers_every_label(films: PreparedDataset, tmp_path: Path) -> None:
    cells = rare_labels()
    splits = split_films(attach(films, *cells), **DRAW)
    digest = save_splits(tmp_path / "splits.csv", splits)
    rows = load_splits(tmp_path / "splits.csv")
    assert digest == split_hash(splits) == split_hash(rows)
    assert "a=1; b=1; c=?" in {row.label for row in rows}
    cells[4] = (cells[4][0], cells[4][1], 0 if cells[4][2] == "" else "")
    assert split_hash(split_films(attach(films, *cells), **DRAW)) != digest, "a label that was not known is a change"


def test_training_must_hold_what_is_to_be_learnt(films: PreparedDataset, caplog: pytest.LogCaptureFixture) -> None:
    labelled = attach(films, *rare_labels())
    splits = split_films(labelled, **DRAW)
    without = tuple(film for film in splits.train if film.labels[1] != 1)
    with pytest.raises(MimError, match="no training film has 1 under 'b'"):
        check_learnable(Splits(without, splits.val, splits.test, splits.classes, (), splits.labels), TABLE, "a, b, c")
    rest = tuple(film for film in splits.test if film.labels[1] != 1)
    with caplog.at_level(logging.WARNING):
        check_learnable(Splits(splits.train, splits.val, rest, splits.classes, (), splits.labels), TABLE, "a, b, c")
    assert "no test film has 1 under 'b': that cannot be measured" in caplog.text


def test_a_class_without_training_films_is_named(films: PreparedDataset) -> None:
    path = write_csv(
        films.source / "classes.csv",
        ("image", "kind", "split"),
        *((f"{n:02}.png", "xyz"[n % 3], ("train", "val", "test")[n // 14] if n % 3 else "test") for n in range(FILMS)),
    )
    labelled = attach_labels(films, films.source, path.name, "kind", SALT, kind="classes")
    with pytest.raises(MimError, match="no training film is of class 'x'"):
        check_learnable(split_films(labelled, **DRAW), path, "kind")


def test_samples_hold_all_labels_of_a_film(films: PreparedDataset) -> None:
    labelled = attach(films, *rare_labels())
    labels = [film.labels for film in labelled.films]
    dataset = FilmDataset(films, range(FILMS), evaluation_transform((32, 32)), 0, labels=labels)
    batch = next(iter(evaluation_loader(dataset, batch_size=8, workers=0)))
    assert batch["label"].tolist() == [list(own) for own in labels[:8]]
    assert batch["label"].dtype.is_floating_point is False


def test_a_split_can_be_drawn_by_classes_and_by_several_labels(films: PreparedDataset) -> None:
    attach(films, *rare_labels())
    draw = {"val_fraction": 0.2, "test_fraction": 0.2, "seed": 0, "split_by": "patient"}
    digest = write_splits(films.path, "several.csv", ("a", "b", "c"), **draw)
    written = attach_labels(films, films.source, "several.csv", ("a", "b", "c"), SALT)
    assert len(digest) == 64
    assert {film.split for film in written.films} == {"train", "val", "test"}
    with pytest.raises(MimError, match="has a column 'split' already"):
        write_splits(films.path, "several.csv", "a", **draw)
