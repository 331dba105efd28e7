import pytest

from mim.config import EvaluateConfig, FinetuneConfig, PretrainConfig, help_text, list_blocks, list_settings

DOORS = [PretrainConfig, FinetuneConfig, EvaluateConfig]


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("schema", DOORS)
def test_help_tells_every_key_type_default_and_meaning(schema):
    text = flat(help_text(schema))
    for setting in list_settings(schema):
        entry = f"{setting.key} {setting.wanted}; default "
        assert entry in text
        assert flat(setting.meaning) in text.partition(entry)[2][: len(flat(setting.meaning)) + 160]


def test_help_writes_defaults_as_they_are_set():
    text = flat(help_text(FinetuneConfig))
    for entry in (
        "input.image_size two integers or null, each at least 1; default null",
        "encoder.hidden one of drop, token, sparse, layer, fill, or null; default null",
        "data.path text; default ''",
        "class_weights true or false; default true",
        "encoder.timm_args block of any keys; default {}",
        "optimizer.lr number, above 0; default 0.001",
    ):
        assert entry in text


@pytest.mark.parametrize("schema", DOORS)
def test_help_is_grouped_by_block_with_its_title(schema):
    text = flat(help_text(schema))
    places = [text.index(f"{block.key}: {block.title}" if block.key else block.title) for block in list_blocks(schema)]
    assert places == sorted(places)


def test_help_says_which_blocks_are_null_where_nothing_is_said():
    text = flat(help_text(FinetuneConfig))
    assert text.count("Default null (null = as in init)") == 1
    assert "encoder.name" in text


@pytest.mark.parametrize(("columns", "width"), [("40", 72), ("90", 90), ("300", 120)])
def test_help_keeps_to_the_width_of_the_terminal(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    lines = help_text(FinetuneConfig).splitlines()
    assert width - 12 < max(map(len, lines)) <= width


@pytest.mark.parametrize("schema", DOORS)
def test_settings_without_a_description_still_have_help(schema):
    class Derived(schema):
        """A title.

        More.
        """

        mixed: tuple[int, str] = (1, "a")
        many: tuple[float, ...] = ()

    text = flat(help_text(Derived))
    assert text.startswith("A title.")
    assert "mixed list of integer, text; default [1, a]" in text
    assert "many list of numbers; default []" in text
