import pytest

from mim.config import (
    EvaluateConfig,
    FinetuneConfig,
    PretrainConfig,
    door,
    help_text,
    load_config,
    parse_door_arguments,
)
from mim.errors import Interrupted, MimError


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def pretrain(*argv):
    return parse_door_arguments(PretrainConfig, argv, program="train.py", summary="Hide patches and rebuild them.")


def finetune(*argv):
    return parse_door_arguments(FinetuneConfig, argv, program="finetune.py", summary="Put a head on it.")


def evaluate(*argv):
    return parse_door_arguments(
        EvaluateConfig, argv, program="evaluate.py", summary="Report on a run.", positional="run"
    )


def refusal(parse, *argv):
    with pytest.raises(MimError) as refused:
        parse(*argv)
    assert len(str(refused.value).splitlines()) == 1
    return str(refused.value)


def test_a_file_and_settings_are_read_in_any_order(tmp_path):
    (tmp_path / "small.yaml").write_text("training: {epochs: 2}\n")
    for argv in (["small.yaml", "seed=3"], ["seed=3", "small.yaml"]):
        arguments = pretrain(*argv)
        assert (arguments.config.training.epochs, arguments.config.seed) == (2, 3)
        assert (str(arguments.file), arguments.name) == ("small.yaml", "small")


def test_the_output_is_named_after_the_file_or_the_door(tmp_path):
    (tmp_path / "small.caries.yaml").write_text("seed: 1\n")
    (tmp_path / "with.yaml").write_text("output: elsewhere\n")
    assert pretrain("small.caries.yaml").config.output == "runs/small.caries"
    assert pretrain("with.yaml").config.output == "elsewhere"
    assert pretrain("small.caries.yaml", "output=here").config.output == "here"
    assert pretrain().config.output == "runs/pretrain"
    assert finetune().config.output == "runs/finetune"
    assert finetune("output=null").config.output == "runs/finetune"
    assert evaluate().config.output is None
    assert evaluate().name == "evaluate"


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_answered_whatever_else_is_said(flag, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert pretrain("no-such.yaml", "bad", flag) is None
    text = capsys.readouterr().out
    assert text.startswith("usage: train.py [CONFIG.yaml] [key=value ...]")
    assert "Hide patches and rebuild them." in text
    assert text.endswith(help_text(PretrainConfig))


@pytest.mark.parametrize("parse", [pretrain, finetune, evaluate])
def test_the_examples_of_the_usage_work(parse, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    parse("--help")
    line = " ".join(capsys.readouterr().out.split())
    examples = line.partition("the value is YAML: ")[2].partition(". ")[0].split(", ")
    assert len(examples) >= 2
    assert parse(*examples) is not None


def test_print_config_prints_yaml_that_reads_back_and_stops(tmp_path, capsys):
    (tmp_path / "small.yaml").write_text("training: {epochs: 2}\n")
    assert pretrain("small.yaml", "--print-config", "seed=5") is None
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    printed = load_config(PretrainConfig, tmp_path / "printed.yaml", [])
    assert printed == pretrain("small.yaml", "seed=5").config
    assert printed.output == "runs/small"


def test_evaluate_takes_its_run_without_the_key(tmp_path):
    (tmp_path / "runs" / "lr=0.1").mkdir(parents=True)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "report.yaml").write_text("worst: 2\n")
    assert evaluate("runs/lr=0.1").config.run == "runs/lr=0.1"
    assert evaluate("folder.yaml").config.run == "folder.yaml"
    assert evaluate("runs/not-there").config.run == "runs/not-there"
    assert evaluate("007").config.run == "007"
    assert evaluate("run=elsewhere").config.run == "elsewhere"
    both = evaluate("runs/lr=0.1", "report.yaml", "seed=1")
    assert (both.config.run, both.config.worst, both.config.seed) == ("runs/lr=0.1", 2, 1)


def test_evaluate_refuses_two_runs():
    assert "given already, as a" in refusal(evaluate, "a", "b")
    assert "given twice" in refusal(evaluate, "a", "run=b")


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("--epochs=3", "did you mean training.epochs=3?"),
        ("--batch-size", "did you mean training.batch_size=...?"),
        ("--hlep", "did you mean --help?"),
        ("--print_config", "did you mean --print-config?"),
        ("-x", "--help lists them"),
        ("epochs", "key=value"),
        ("e" * 5000, "key=value"),
        ("small.yaml", "does not exist"),
        ("lr=1", "did you mean optimizer.lr?"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(argument, answer):
    message = refusal(pretrain, argument)
    assert argument.partition("=")[0] in message
    assert answer in message


def test_two_files_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("")
    assert "a YAML file is given already, a.yaml" in refusal(pretrain, "a.yaml", "b.yaml")


def test_a_door_that_does_its_work_exits_with_0(capsys):
    assert door(lambda: pretrain("seed=1")) == 0
    assert capsys.readouterr() == ("", "")


def raiser(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (MimError("films.csv, row 3: no patient\n  give one\n"), 2, "error: films.csv, row 3: no patient give one\n"),
        (Interrupted(7), 75, "stopped at step 7; start the same command again to go on\n"),
        (KeyboardInterrupt(), 130, "stopped from the keyboard\n"),
    ],
)
def test_a_door_tells_what_stopped_it_in_one_line(error, status, line, capsys):
    assert door(raiser(error)) == status
    assert capsys.readouterr() == ("", line)


def test_a_fault_of_the_program_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        door(raiser(ZeroDivisionError()))


def test_a_stop_knows_its_step():
    assert Interrupted(12).step == 12
    assert not isinstance(Interrupted(12), MimError)


def measure(*argv):
    return parse_door_arguments(
        EvaluateConfig,
        argv,
        program="evaluate.py",
        summary="Report on a run.",
        positional=("run", "second_run"),
        options={"--data": "data.path"},
    )


@pytest.mark.parametrize("written", [("--data", "films"), ("--data=films",), ("data.path=films",)])
def test_an_option_is_another_way_of_writing_a_setting(written):
    config = measure("runs/a", *written, "seed=3").config
    assert (config.run, config.second_run, config.data.path, config.seed) == ("runs/a", None, "films", 3)


def test_an_option_without_a_value_or_given_twice_is_refused():
    assert "write --data <value>" in refusal(measure, "runs/a", "--data")
    assert "write --data <value>" in refusal(measure, "runs/a", "--data", "--print-config", "--data=")
    assert "given twice" in refusal(measure, "runs/a", "--data", "x", "data.path=y")
    assert "given twice" in refusal(measure, "runs/a", "--data", "x", "--data=y")
    assert "unknown option --data" in refusal(evaluate, "runs/a", "--data", "x")


def test_help_shows_an_option(capsys):
    assert measure("--help") is None
    shown = " ".join(capsys.readouterr().out.split())
    assert "[--data X]" in shown
    assert "--data X stands for data.path=X." in shown
