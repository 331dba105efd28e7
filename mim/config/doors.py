"""What the three doors share: reading a command line, and turning errors into one line and an exit status."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from mim.config.base import Config
from mim.config.help import help_text, wrap
from mim.config.keys import Keys
from mim.config.loading import YAML_SUFFIXES, dump_config, load_config
from mim.config.schema import FinetuneConfig, RunConfig
from mim.errors import Interrupted, MimError

EXIT_BAD_INPUT = 2
EXIT_TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h
EXIT_KEYBOARD = 130  # 128 + SIGINT

_HELP = ("-h", "--help")
_PRINT_CONFIG = "--print-config"
_EXAMPLES = ("seed=1", "training.epochs=3", "bootstrap=500", "input.image_size=[128,192]", "output=null")

C = TypeVar("C", bound=Config)


@dataclass(frozen=True)
class DoorArguments(Generic[C]):
    """What a command line asks for.

    Attributes:
        config: The checked configuration; `output` of a run of training is filled in.
        file: The YAML file given, or None.
        name: Stem of the YAML file; `pretrain`, `finetune` or the program's stem without one.
    """

    config: C
    file: Path | None
    name: str


def parse_door_arguments(
    schema: type[C],
    argv: Sequence[str],
    *,
    program: str,
    summary: str,
    positional: str | Sequence[str] = (),
    options: Mapping[str, str] = MappingProxyType({}),
) -> DoorArguments[C] | None:
    """Read the command line of a door, `[CONFIG.yaml] [key=value ...]`.

    Args:
        schema: Class of the configuration.
        argv: Arguments without the program's name.
        program: Name of the program, such as `train.py`.
        summary: What the program does, in one sentence, for --help.
        positional: Keys of settings that may be given without their keys, in this order: the first arguments that
            are folders, or neither YAML files nor key=value.
        options: Other ways of writing a setting: of `--data` it may say `data.path`, and `--data X` and `--data=X` are
            then data.path=X.

    Returns:
        What is asked for, or None where --help or --print-config was answered on standard output.

    Raises:
        MimError: An unknown option, two YAML files, or a bad configuration.
    """
    keys = (positional,) if isinstance(positional, str) else tuple(positional)
    if any(argument in _HELP for argument in argv):
        sys.stdout.write(_usage(schema, program, summary, keys, options))
        return None
    given = _write_out([a for a in argv if a != _PRINT_CONFIG], options)
    file, overrides = _sort_arguments(schema, given, keys)
    config = load_config(schema, file, overrides)
    name = file.stem if file else _default_name(schema, program)
    if isinstance(config, RunConfig) and config.output is None:
        config = config.model_copy(update={"output": f"runs/{name}"})
    if _PRINT_CONFIG in argv:
        sys.stdout.write(dump_config(config))
        return None
    return DoorArguments(config, file, name)


def door(main: Callable[[], object]) -> int:
    """Run a door and return its exit status: 0, 2 for bad input, 75 where it can go on, 130 for Ctrl-C.

    Bad input and a stop are told in one line on standard error. Any other exception is a fault of the program and
    goes through, with its traceback.
    """
    try:
        main()
    except MimError as error:
        _tell(f"error: {error}")
        return EXIT_BAD_INPUT
    except Interrupted as stop:
        _tell(str(stop))
        return EXIT_TRY_AGAIN
    except KeyboardInterrupt:
        _tell("stopped from the keyboard")
        return EXIT_KEYBOARD
    return 0


def _tell(message: str) -> None:
    lines = (line.strip() for line in message.splitlines())
    sys.stderr.write(" ".join(line for line in lines if line) + "\n")


def _default_name(schema: type[Config], program: str) -> str:
    if issubclass(schema, RunConfig):
        return "finetune" if issubclass(schema, FinetuneConfig) else "pretrain"
    return Path(program).stem


def _write_out(arguments: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Replace options that are another way of writing a setting by the setting."""
    written: list[str] = []
    left = iter(arguments)
    for argument in left:
        option, equals, value = argument.partition("=")
        if option not in options:
            written.append(argument)
            continue
        setting = f"{options[option]}="
        value = value if equals else next(left, "")
        if not value or (not equals and value.startswith("-")):
            raise MimError(f"{option}: what? write {option} <value>, or {setting}<value>")
        if any(other.startswith(setting) for other in (*written, *arguments)):
            raise MimError(f"{option} {value}: {setting.removesuffix('=')} is given twice")
        written.append(setting + value)
    return written


def _sort_arguments(
    schema: type[Config], arguments: Sequence[str], positional: tuple[str, ...]
) -> tuple[Path | None, list[str]]:
    """The YAML file and the overrides among the arguments."""
    file: Path | None = None
    values: list[str] = []
    overrides = []
    for argument in arguments:
        if argument.startswith("-"):
            raise MimError(_unknown_option(schema, argument))
        if _is_override(argument):
            overrides.append(argument)
        elif positional and (_stands(argument) == "folder" or not _is_yaml(argument)):
            if len(values) == len(positional):
                are = "is" if len(values) == 1 else "are"
                raise MimError(f"{argument}: {' and '.join(positional)} {are} given already, as {' and '.join(values)}")
            values.append(argument)
        elif file is not None:
            raise MimError(f"{argument}: a YAML file is given already, {file}; settings are written key=value")
        else:
            file = _config_file(argument)
    given = {override.partition("=")[0].strip() for override in overrides}
    for key, value in zip(positional, values, strict=False):
        if key in given:
            raise MimError(f"{value}: {key} is given twice, with its key and without")
    return file, [*map("=".join, zip(positional, values, strict=False)), *overrides]


def _is_override(argument: str) -> bool:
    """Whether an argument is key=value, and not a path that happens to hold an equals sign."""
    key, equals, _ = argument.partition("=")
    is_path = any(character in key for character in "/\\") and bool(_stands(argument))
    return bool(equals) and not is_path


def _config_file(argument: str) -> Path:
    if not _is_yaml(argument) and not _stands(argument):
        raise MimError(f"{argument} is neither a YAML file nor a setting; a setting is written key=value")
    return Path(argument)


def _is_yaml(argument: str) -> bool:
    return Path(argument).suffix.lower() in YAML_SUFFIXES


def _stands(argument: str) -> Literal["folder", "file", ""]:
    """What stands at a path; nothing at one that the system cannot take, such as one too long."""
    try:
        if Path(argument).is_dir():
            return "folder"
        return "file" if Path(argument).exists() else ""
    except OSError:
        return ""


def _unknown_option(schema: type[Config], argument: str) -> str:
    option, equals, value = argument.partition("=")
    bare = option.lstrip("-")
    near_option = get_close_matches(bare, ("help", _PRINT_CONFIG.lstrip("-")), n=1)
    if near_option:
        return f"unknown option {option}, did you mean --{near_option[0]}?"
    near_key = Keys(schema).nearest(bare.replace("-", "_"))
    if near_key:
        example = value if equals else "..."
        return f"unknown option {option}; settings have no dashes, did you mean {near_key}={example}?"
    return f"unknown option {option}; settings are written key=value, --help lists them"


def _usage(
    schema: type[Config], program: str, summary: str, positional: tuple[str, ...], options: Mapping[str, str]
) -> str:
    first = "".join(f"[{key.upper()}] " for key in positional)
    keys = Keys(schema)
    examples = [example for example in _EXAMPLES if keys.find(tuple(example.partition("=")[0].split(".")))]
    settings = (
        f"A setting is key=value, and the value is YAML: {', '.join(examples)}. "
        "The last word wins: defaults, then the YAML file, then the command line. "
        f"{_PRINT_CONFIG} prints what they come to, as YAML, and stops."
    )
    for key in positional:
        settings += f" {key.upper()} stands for {key}={key.upper()}."
    for option, key in options.items():
        settings += f" {option} X stands for {key}=X."
    more = "".join(f"[{option} X] " for option, key in options.items())
    usage = f"usage: {program} {first}[CONFIG.yaml] [key=value ...] {more}[--print-config] [--help]"
    return "\n\n".join([wrap(usage, further="  "), wrap(summary), wrap(settings), help_text(schema)])
