import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import model_validator

from mim.config import DecoderConfig, EvaluateConfig, FinetuneConfig, PretrainConfig, load_config
from mim.config.loading import MAX_BYTES
from mim.errors import MimError


def refusal(schema, file=None, overrides=()):
    with pytest.raises(MimError) as refused:
        load_config(schema, file, overrides)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="config.yaml"):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write_file


@pytest.mark.parametrize("override", ["training.epochs", "=3", "", " =3", ".seed=1", "data..path=x", "data.=x"])
def test_an_override_of_another_form_is_told_the_form(override):
    assert "key=value" in refusal(PretrainConfig, None, [override])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "optimizer.lr"),
        ("epochs", "training.epochs"),
        ("batchsize", "training.batch_size"),
        ("train.epochs", "training.epochs"),
        ("data.pth", "data.path"),
        ("optimiser.lr", "optimizer.lr"),
        ("encoder.nmae", "encoder.name"),
        ("data.image_size", "input.image_size"),
        ("training.epochs.max", "training.epochs"),
        ("learning_rate", "optimizer.lr"),
        ("decoder.wdith", "decoder.width"),
        ("optimizer.learning_rate", "optimizer.lr"),
        ("optimizer.epochs", "training.epochs"),
        ("data.folder", "data.path"),
    ],
)
def test_an_unknown_override_is_answered_with_the_nearest_key(key, meant):
    message = refusal(PretrainConfig, None, [f"{key}=1"])
    assert message == f"command line: unknown key {key}, did you mean {meant}?"


def test_an_unknown_key_with_none_near_points_to_the_help():
    assert refusal(PretrainConfig, None, ["qqqq=1"]) == "command line: unknown key qqqq, --help lists all keys"


def test_unknown_keys_of_a_file_are_named_with_their_lines(write):
    file = write("seed: 1\nlr: 1\ndata:\n  path: x\n  long_sde: 3\n")
    message = refusal(PretrainConfig, file)
    assert f"{file}, line 2: unknown key lr, did you mean optimizer.lr?" in message
    assert f"{file}, line 5: unknown key data.long_sde, did you mean data.long_side?" in message


def test_an_unknown_key_within_an_override_of_a_block_is_named():
    message = refusal(FinetuneConfig, None, ["encoder={name: resnet18, depht: 3, pretained: true}"])
    assert "unknown key encoder.pretained, did you mean encoder.pretrained?" in message
    assert "unknown key encoder.depht" in message


def test_a_dotted_key_in_a_file_is_told_how_to_write_it(write):
    message = refusal(PretrainConfig, write("data.path: x\n"))
    assert "unknown key data.path" in message
    assert "indented" in message


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.epochs=abc", ['training.epochs is "abc"', "integer, at least 1", "passes over the training films"]),
        ("training.epochs=3.0", ["training.epochs is 3.0", "integer"]),
        ("training.epochs=true", ["training.epochs is true", "integer"]),
        ("training.epochs=1_000", ['"1_000"', "integer"]),
        ("training.epochs=0", ["training.epochs is 0", "at least 1"]),
        ("training.epochs=null", ["training.epochs is null", "integer"]),
        ("training.epochs=", ["training.epochs is null", "integer"]),
        ("training.epochs=[3", ["training.epochs", "YAML"]),
        ("tracking.tensorboard=yes", ['"yes"', "true or false"]),
        ("tracking.tensorboard=1", ["is 1", "true or false"]),
        ("optimizer.lr=0", ["optimizer.lr is 0", "number, above 0", "peak learning rate"]),
        ("optimizer.lr=.nan", ["optimizer.lr", "finite"]),
        ("optimizer.lr=.inf", ["optimizer.lr", "finite"]),
        ("optimizer.lr=1e999", ["optimizer.lr", "finite"]),
        ("optimizer.lr=1" + "0" * 350, ["optimizer.lr", "64 bits"]),
        ("seed=99999999999999999999", ["seed", "64 bits"]),
        ("optimizer.betas=[0.9]", ["optimizer.betas is [0.9]", "two numbers, each from 0 to 1"]),
        ("optimizer.betas=[0.9,.nan]", ["optimizer.betas is [0.9, NaN]", "finite"]),
        ("input.image_size=[128,0]", ["input.image_size is [128, 0]", "two integers or null, each at least 1"]),
        ("input.image_size=128", ["input.image_size is 128", "two integers"]),
        ("encoder.hidden=mask", ['encoder.hidden is "mask"', "one of drop, token, sparse, layer, fill, or null"]),
        ("encoder.hidden=[drop]", ['encoder.hidden is ["drop"]', "one of drop, token, sparse, layer, fill, or null"]),
        ("data.bits=8.0", ["data.bits is 8.0", "one of 8, 16"]),
        ("data.path=null", ["data.path is null", "text"]),
        ("data.path=\udcff", ["data.path", "UTF-8"]),
        ("data=3", ["data is 3", "block"]),
        ("data=null", ["data is null", "block"]),
        ("encoder=3", ["encoder is 3", "block", "or null"]),
        ("encoder.timm_args=3", ["encoder.timm_args is 3", "block of any keys"]),
        ("encoder.timm_args.drop.rate=[1, .nan]", ["encoder.timm_args.drop.rate.1", "finite"]),
        ("encoder.timm_args.drop=\udcff", ["encoder.timm_args.drop", "U+DCFF"]),
        ('encoder.timm_args.drop="\\ud800"', ["encoder.timm_args.drop", "UTF-8"]),
        ("encoder.timm_args.\udcff=1", ["encoder.timm_args.", "UTF-8"]),
        ("schema_version=true", ["schema_version is true", "wanted 1"]),
    ],
)
def test_a_wrong_value_is_answered_with_key_value_and_what_is_wanted(override, parts):
    message = refusal(FinetuneConfig, None, [override])
    assert message.startswith("command line: ")
    assert [part for part in parts if part not in message] == []


def test_a_wrong_value_of_a_file_is_named_with_its_line(write):
    file = write("data:\n  path: films\n  target: 7\n")
    message = refusal(FinetuneConfig, file)
    assert message.startswith(f"{file}, line 3: data.target is 7, wanted text or list of texts or null, in quotes")


def test_an_overridden_mistake_of_a_file_is_no_mistake(write):
    file = write("training: {epochs: many}\n")
    assert load_config(PretrainConfig, file, ["training.epochs=2"]).training.epochs == 2
    assert refusal(PretrainConfig, file, ["training.epochs=few"]).startswith("command line: ")


def test_a_key_below_a_value_is_refused():
    assert "cannot be set" in refusal(FinetuneConfig, None, ["encoder=3", "encoder.name=x"])
    message = refusal(FinetuneConfig, None, ["encoder.timm_args.depth=6", "encoder.timm_args.depth.x=1"])
    assert message == (
        "command line: encoder.timm_args.depth.x cannot be set, as encoder.timm_args.depth is 6, not a block"
    )


def test_each_unfit_part_of_a_free_block_is_told():
    message = refusal(PretrainConfig, None, ["encoder.timm_args.a=[.nan, 1, .inf]", "encoder.timm_args.b=.nan"])
    assert "encoder.timm_args.a.0 is NaN" in message
    assert "encoder.timm_args.a.2 is Infinity" in message
    assert "encoder.timm_args.b is NaN" in message


def test_three_problems_are_told_and_the_rest_counted():
    message = refusal(PretrainConfig, None, ["seed=-1", "lr=1", "training.epochs=x", "data.bits=9", "epohcs=3"])
    assert message.count("command line: ") == 3
    assert message.endswith("; and 2 more")


def test_long_and_unprintable_values_are_shortened_and_escaped():
    message = refusal(PretrainConfig, None, ["training.epochs=" + "9x" * 1000, "data.bits='\x1b[31m\u2028'", "a\nb=1"])
    assert len(message) < 600
    assert message.isprintable()


@pytest.mark.parametrize(("version", "age"), [(2, "newer"), (0, "older")])
def test_another_schema_version_is_told_before_all_else(version, age, write):
    file = write(f"unknown: 1\nschema_version: {version}\n")
    message = refusal(EvaluateConfig, file)
    assert message.startswith(f"{file}, line 2: schema_version is {version}: written by a")
    assert age in message


def test_a_missing_file_is_answered_with_the_nearest_name(write):
    file = write("seed: 1\n", "bitewings.yaml")
    missing = file.with_name("bitewing.yaml")
    assert refusal(PretrainConfig, missing) == f"{missing} does not exist; did you mean {file}?"


def test_a_missing_file_with_none_near_is_answered_with_a_list(write):
    folder = write("", "a.yaml").parent
    write("", "b.yml")
    write("", "notes.txt")
    message = refusal(PretrainConfig, folder / "something-else.json")
    assert message.endswith(f"the YAML files in {folder} are a.yaml, b.yml")
    assert message.startswith(str(folder / "something-else.json"))


@pytest.mark.parametrize("name", ["a\0.yaml", "a" * 300 + ".yaml"])
def test_a_file_that_cannot_be_opened_is_told(tmp_path, name):
    assert "cannot be read" in refusal(PretrainConfig, tmp_path / name)


def test_what_a_schema_checks_by_itself_is_told_in_its_own_words(write):
    class Divided(DecoderConfig):
        """A decoder."""

        @model_validator(mode="after")
        def check_heads(self):
            if self.width % self.heads:
                raise ValueError("heads must divide the width")
            return self

    class Checked(PretrainConfig):
        """Settings."""

        decoder: Divided = Divided()

    assert refusal(Checked, None, ["decoder.heads=5"]) == "command line: decoder: heads must divide the width"
    file = write("seed: 1\ndecoder:\n  heads: 5\n")
    assert refusal(Checked, file) == f"{file}, line 2: decoder: heads must divide the width"


def test_a_missing_folder_and_an_empty_one_are_told(tmp_path):
    assert f"nor does its folder {tmp_path / 'no'}" in refusal(PretrainConfig, tmp_path / "no" / "a.yaml")
    assert f"no YAML file in {tmp_path}" in refusal(PretrainConfig, tmp_path / "a.yaml")


def test_a_folder_in_place_of_the_file_is_told(write):
    folder = write("", "a.yaml").parent
    message = refusal(PretrainConfig, folder)
    assert "is a folder" in message
    assert "a.yaml" in message


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("data:\n  path: [x\n", r"config\.yaml, line 3, column 1: .*YAML"),
        ("seed: 1\nseed: 2\n", r"config\.yaml, line 2, column 1: the key seed stands here twice"),
        ("a: &a [x]\nb: *a\n", r"config\.yaml, line 2, column 4: aliases"),
        ("- seed\n", r"config\.yaml: .*key: value"),
        ("just text\n", r"config\.yaml: .*key: value"),
        (b"seed: 1\ndata: \xff\n", r"config\.yaml, line 2: not UTF-8"),
        ("seed: 1 #" + "x" * MAX_BYTES, r"config\.yaml is larger than 1024 KiB"),
    ],
)
def test_a_broken_file_is_named_with_the_place(content, pattern, write):
    assert re.search(pattern, refusal(PretrainConfig, write(content)))


def test_many_unknown_keys_are_answered_soon(write):
    file = write("".join(f"unknown_{i}: 1\n" for i in range(2000)))
    assert refusal(PretrainConfig, file).endswith("and 1997 more")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        ["seed", "data", "data.path", "encoder", "encoder.timm_args.x", "optimizer.betas", "init", "no.such"]
    ),
    st.text() | st.text(alphabet="[]{}:,'\"\\&*!#%@|>-? 0123456789.eaxn~\n\t"),
)
def test_any_override_is_taken_or_refused_in_one_line(key, text):
    try:
        outcome = repr(load_config(FinetuneConfig, None, [f"{key}={text}"]).seed)
    except MimError as error:
        outcome = str(error)
    assert len(outcome.splitlines()) == 1
