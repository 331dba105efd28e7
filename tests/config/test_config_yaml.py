import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mim.config.yaml_text import MAX_DEPTH, YamlError, parse_yaml, write_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
YAML_LIKE = st.text(alphabet="ab: -[]{}&*!|>'\"#%@,?\n\t.0123=~<é\\xuU\x00\x85")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        (".5", 0.5),
        ("-1.", -1.0),
        ("0o17", 15),
        ("0x1F", 31),
        ("007", 7),
        ("-12", -12),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("none", "none"),
        ("2026-01-31", "2026-01-31"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("<<", "<<"),
        ("'1'", "1"),
        ("[128, 192]", [128, 192]),
        ("{a: [x, 1e2]}", {"a": ["x", 100.0]}),
        ("!!float 3", 3.0),
        ("!!str 3", "3"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    read = parse_yaml(text).tree
    assert read == value
    assert type(read) is type(value)


def test_infinity_and_nan_are_read_as_floats():
    assert parse_yaml("[.inf, -.INF, +.inf]").tree == [math.inf, -math.inf, math.inf]
    assert math.isnan(parse_yaml(".NaN").tree)


def test_lines_of_keys_are_told():
    document = parse_yaml("a: 1\n\nb:\n  # said below\n  c: {d: 2}\n")
    assert document.lines == {("a",): 1, ("b",): 3, ("b", "c"): 5, ("b", "c", "d"): 5}


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("a: 1\nb: 2\na: 3", (3, 1), "twice"),
        ("a:\n  b: 1\n  b: 1", (3, 3), "a.b"),
        ("a: &x 1\nb: *x", (2, 4), "aliases"),
        ("a: [1", (1, 6), "YAML"),
        ("a: 1\n b: 2", (2, 3), "YAML"),
        ("\tx: 1", (1, 1), "YAML"),
        ("a: 1\nb: \x01", (2, 4), r"U\+0001"),
        ("1: x", (1, 1), "quotes"),
        ("? [a]\n: x", (1, 3), "text"),
        ("null: x", (1, 1), "text"),
        ("a: !!python/object/apply:os.getcwd []", (1, 4), "tag"),
        ("a: !!binary aGk=", (1, 4), "tag"),
        ("a: !!set {x}", (1, 4), "tag"),
        ("a: !!int x", (1, 4), "tag"),
        ("a\n---\nb", (2, 1), "document"),
        ("a: " + "9" * 5000, (1, 4), "digits"),
        ("[" * 100_000, (1, MAX_DEPTH + 1), "deep"),
    ],
)
def test_what_is_refused_is_named_with_its_place(text, place, word):
    with pytest.raises(YamlError, match=word) as refused:
        parse_yaml(text)
    assert refused.value.place == place
    assert f"file.yaml, line {place[0]}, column {place[1]}: " in str(refused.value.in_file("file.yaml"))


def test_an_escape_beyond_unicode_is_refused():
    with pytest.raises(YamlError, match="not valid YAML"):
        parse_yaml('"\\UFFFFFFFF"')


@given(YAML_LIKE)
def test_any_text_is_read_or_refused(text):
    try:
        tree = parse_yaml(text).tree
    except YamlError as error:
        tree = error.what
    assert isinstance(tree, dict | list | str | int | float | None)


@settings(deadline=None)
@given(TREES)
def test_what_is_written_is_read_back(tree):
    assert parse_yaml(write_yaml(tree)).tree == tree


def test_a_value_that_stands_twice_is_written_twice():
    shared = {"a": [1]}
    assert write_yaml({"x": shared, "y": shared}) == "x:\n  a: [1]\ny:\n  a: [1]\n"


@settings(deadline=None)
@given(TREES)
def test_one_line_is_one_line_and_read_back(tree):
    line = write_yaml(tree, one_line=True)
    assert "\n" not in line
    assert parse_yaml(line).tree == tree


@given(st.text() | st.sampled_from(["on", "no", "1e-3", "1:30", "2026-01-31", "=", "0x1f", "~"]))
def test_text_is_text_for_readers_of_yaml_1_1_too(text):
    assert yaml.safe_load(write_yaml({"key": text})) == {"key": text}
