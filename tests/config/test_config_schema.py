import pytest
from pydantic import ValidationError

from mim.config import Config, EvaluateConfig, FinetuneConfig, PretrainConfig, list_blocks, list_settings

DOORS = [PretrainConfig, FinetuneConfig, EvaluateConfig]


def blocks_of(config):
    yield config
    for value in dict(config).values():
        if isinstance(value, Config):
            yield from blocks_of(value)


@pytest.mark.parametrize("schema", DOORS)
def test_every_setting_has_a_meaning_and_every_block_a_title(schema):
    assert [setting.key for setting in list_settings(schema) if not setting.meaning] == []
    assert [block.key for block in list_blocks(schema) if not block.title] == []


@pytest.mark.parametrize("schema", DOORS)
def test_the_defaults_of_a_block_do_not_depend_on_where_it_stands(schema):
    # Saying one key of a block must leave its others as --help tells them.
    assert all(block == type(block)() for block in blocks_of(schema()))


@pytest.mark.parametrize("schema", DOORS)
def test_a_config_cannot_be_changed(schema):
    with pytest.raises(ValidationError):
        schema().seed = 1


def test_settings_are_told_in_plain_words():
    wanted = {setting.key: setting.wanted for setting in list_settings(FinetuneConfig)}
    assert wanted["input.image_size"] == "two integers or null, each at least 1"
    assert wanted["input.mean"] == "number or null"
    assert wanted["data.target"] == "text or list of texts or null"
    assert wanted["encoder.hidden"] == "one of drop, token, sparse, layer, fill, or null"
    assert wanted["encoder.patch_size"] == "integer or null, at least 1"
    assert wanted["encoder.timm_args"] == "block of any keys"
    assert wanted["optimizer.layer_decay"] == "number, above 0 and at most 1"
    assert wanted["optimizer.ema_decay"] == "number or null, at least 0 and below 1"
    assert wanted["masker.random_keep"].startswith("two numbers or null")
    assert wanted["class_weights"] == "true or false"
    assert wanted["data.bits"] == "one of 8, 16"


def test_blocks_stand_in_the_order_of_the_schema_with_the_top_first():
    blocks = list_blocks(FinetuneConfig)
    assert [block.key for block in blocks][:3] == ["", "data", "augment"]
    assert {block.key for block in blocks if block.default_is_null} == {"encoder"}
