import pytest
from door_calls import run

from mim.config import EvaluateConfig, FinetuneConfig, PretrainConfig, list_settings


@pytest.mark.parametrize(
    ("name", "schema"), [("train", PretrainConfig), ("finetune", FinetuneConfig), ("evaluate", EvaluateConfig)]
)
def test_help_lists_every_setting(name: str, schema: type) -> None:
    said = run(name, "--help")
    assert said.status == 0
    assert said.err == ""
    listed = {line.split()[0] for line in said.out.splitlines() if line.startswith("  ") and line[2] != " "}
    assert {setting.key for setting in list_settings(schema)} <= listed
    assert said.out.startswith(f"usage: {name}.py ")
