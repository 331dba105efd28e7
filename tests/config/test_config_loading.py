import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from mim.config import (
    Config,
    EvaluateConfig,
    FinetuneConfig,
    InputConfig,
    PretrainConfig,
    dump_config,
    list_settings,
    load_config,
)
from mim.config.yaml_text import write_yaml

BOUNDS = ("ge", "gt", "le", "lt")
DOORS = [PretrainConfig, FinetuneConfig, EvaluateConfig]
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
PLAIN = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ANYTHING = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


def values(annotation, constraints=()):
    """Values that a field of the schema takes."""
    if get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        inner = [c for extra in extras for c in (extra.metadata if isinstance(extra, FieldInfo) else [extra])]
        return values(annotation, [*constraints, *inner])
    if get_origin(annotation) in (Union, types.UnionType):
        return st.one_of(*(values(member, constraints) for member in get_args(annotation)))
    if get_origin(annotation) is tuple and Ellipsis in get_args(annotation):
        return st.lists(values(get_args(annotation)[0]), max_size=3).map(tuple)
    if get_origin(annotation) is tuple:
        return st.tuples(*(values(item) for item in get_args(annotation)))
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is dict:
        return st.dictionaries(st.text(), ANYTHING, max_size=3)
    if annotation in (int, float):
        step = next((c.multiple_of for c in constraints if hasattr(c, "multiple_of")), None)
        if step is not None:
            return st.integers(1, 1000).map(lambda times: times * step)
        return numbers(annotation, {n: getattr(c, n) for c in constraints for n in BOUNDS if hasattr(c, n)})
    if issubclass(annotation, Config):
        return configs(annotation)
    return {str: st.text(), bool: st.booleans(), type(None): st.none()}[annotation]


def numbers(kind, bounds):
    low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    if kind is int:
        return st.integers(-(2**63) + 1 if low is None else low, 2**63 - 1 if high is None else high)
    return st.floats(
        low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds, allow_nan=False, allow_infinity=False
    )


def configs(schema):
    return st.builds(schema, **{n: values(f.annotation, f.metadata) for n, f in schema.model_fields.items()})


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="config.yaml"):
        file = tmp_path / name
        file.write_bytes(text.encode())
        return file

    return write_file


@pytest.mark.parametrize("schema", DOORS)
def test_nothing_said_gives_the_defaults(schema, write):
    assert load_config(schema, None, []) == schema()
    assert load_config(schema, write("# nothing but a comment\n"), []) == schema()


def test_the_last_word_wins_defaults_then_file_then_overrides(write):
    file = write("training:\n  epochs: 7\n  batch_size: 8\ninput: {image_size: [64, 96]}\n")
    config = load_config(PretrainConfig, file, ["training.epochs=3", "training.epochs=4"])
    assert config.training.epochs == 4
    assert config.training.batch_size == 8
    assert config.training.workers == PretrainConfig().training.workers
    assert config.input.image_size == (64, 96)


@pytest.mark.parametrize(
    ("override", "attribute", "value"),
    [
        ("data.path=../x", "data.path", "../x"),
        ("input.image_size=[128,192]", "input.image_size", (128, 192)),
        ("training.epochs=3", "training.epochs", 3),
        (" training.epochs = 3 ", "training.epochs", 3),
        ("init=null", "init", None),
        ("init=", "init", None),
        ("data.path=", "data.path", ""),
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("optimizer.lr=1", "optimizer.lr", 1.0),
        ("tracking.wandb=off", "tracking.wandb", "off"),
        ("tracking.tensorboard=false", "tracking.tensorboard", False),
        ("training.precision=32-true", "training.precision", "32-true"),
        ("data.bits=16", "data.bits", 16),
        ("data.labels=null", "data.labels", None),
        ("data.labels='null'", "data.labels", "null"),
        ("data.target=1", "data.target", "1"),
        ("data.target=0.5", "data.target", "0.5"),
        ("data.target=007", "data.target", "007"),
        ("data.target=true", "data.target", "true"),
        ("data.target=2026-01-31", "data.target", "2026-01-31"),
        ('data.target="a: b"', "data.target", "a: b"),
        ("data.target=caries: any", "data.target", "caries: any"),
        ("data.target=a=b", "data.target", "a=b"),
        ("data.target=*caries", "data.target", "*caries"),
        ("data.target='tis", "data.target", "'tis"),
        ("data.path=films #2 [new]", "data.path", "films #2 [new]"),
        ("data.cache=none", "data.cache", "none"),
        ("encoder.name=resnet18", "encoder.name", "resnet18"),
        ("encoder.timm_args.depth=6", "encoder.timm_args", {"depth": 6}),
        ("encoder.timm_args.a.b=[x, 1.5]", "encoder.timm_args", {"a": {"b": ["x", 1.5]}}),
        ("encoder.timm_args={depth: 6, act: null}", "encoder.timm_args", {"depth": 6, "act": None}),
    ],
)
def test_an_override_sets_what_a_user_expects(override, attribute, value):
    read = load_config(FinetuneConfig, None, [override])
    for name in attribute.split("."):
        read = getattr(read, name)
    assert read == value
    assert type(read) is type(value)


def test_a_key_below_null_makes_the_block_with_its_defaults(write):
    config = load_config(
        FinetuneConfig, write("encoder: null\n"), ["encoder.name=resnet18", "input.image_size=[32,64]"]
    )
    assert config.encoder.name == "resnet18"
    assert config.encoder.pretrained is False
    assert config.input == InputConfig(image_size=(32, 64))


def test_a_block_given_whole_takes_the_place_of_the_block(write):
    file = write("encoder: {name: resnet18, pretrained: true}\n")
    assert load_config(FinetuneConfig, file, ["encoder=null"]).encoder is None
    replaced = load_config(FinetuneConfig, file, ["encoder={name: resnet34}"]).encoder
    assert (replaced.name, replaced.pretrained) == ("resnet34", False)


def test_overrides_below_a_free_block_are_added_to_it(write):
    file = write("encoder:\n  timm_args: {depth: 6, anything: {at: all}}\n")
    config = load_config(PretrainConfig, file, ["encoder.timm_args.anything.else=1"])
    assert config.encoder.timm_args == {"depth": 6, "anything": {"at": "all", "else": 1}}


def test_a_file_with_byte_order_mark_windows_line_ends_and_umlauts_is_read(write):
    config = load_config(PretrainConfig, write("\ufeffdata:\r\n  path: Zähne\r\n"), [])
    assert config.data.path == "Zähne"


@pytest.mark.parametrize("schema", DOORS)
def test_dumped_defaults_are_read_back_and_say_every_key(schema, write):
    text = dump_config(schema())
    assert load_config(schema, write(text), []) == schema()
    for name in schema.model_fields:
        assert f"\n{name}:" in f"\n{text}"


@pytest.mark.parametrize(("schema", "setting"), [(schema, s) for schema in DOORS for s in list_settings(schema)])
def test_every_setting_can_be_said_on_the_command_line(schema, setting):
    config = load_config(schema, None, [f"{setting.key}={write_yaml(setting.default, one_line=True)}"])
    value = config
    for name in setting.key.split("."):
        value = getattr(value, name)
    assert value == setting.default


@pytest.mark.parametrize("schema", DOORS)
def test_any_dumped_config_is_read_back(schema, tmp_path_factory):
    file = tmp_path_factory.mktemp("dumped") / "config.yaml"

    @settings(max_examples=40, deadline=None)
    @given(configs(schema))
    def round_trip(config):
        file.write_text(dump_config(config), encoding="utf-8")
        assert load_config(schema, file, []) == config

    round_trip()


def test_dumped_overrides_are_read_back(write):
    overrides = ["data.target=1e-3", "data.labels=on", "data.path='", "encoder.timm_args={a: '1', b: 1, c: 1.0, d: []}"]
    config = load_config(FinetuneConfig, None, overrides)
    assert load_config(FinetuneConfig, write(dump_config(config)), []) == config
    assert [type(value) for value in config.encoder.timm_args.values()] == [str, int, float, list]


def test_the_file_may_be_named_from_the_working_folder(write, monkeypatch):
    monkeypatch.chdir(write("seed: 5\n").parent)
    assert load_config(PretrainConfig, Path("config.yaml"), []).seed == 5


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("caries", "caries"),
        ("[caries, appliance]", ("caries", "appliance")),
        ("'[caries, appliance]'", "[caries, appliance]"),
        ("null", None),
    ],
)
def test_where_text_or_a_list_is_wanted_brackets_tell_a_list(text: str, target: object) -> None:
    assert load_config(FinetuneConfig, None, [f"data.target={text}"]).data.target == target
