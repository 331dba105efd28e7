"""A YAML file and dotted overrides to one checked configuration, and back."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mim.config.base import Config
from mim.config.draft import Draft, show, show_key
from mim.config.fields import Setting
from mim.config.yaml_text import YamlError, parse_yaml, write_yaml
from mim.errors import MimError

MAX_BYTES = 1024 * 1024
YAML_SUFFIXES = (".yaml", ".yml")
COMMAND_LINE = "command line"
_NULLS = ("null", "Null", "NULL", "~")
_OVERRIDE_FORM = "a setting is written key=value, for example seed=3"

C = TypeVar("C", bound=Config)


def load_config(schema: type[C], file: Path | None = None, overrides: Sequence[str] = ()) -> C:
    """Read a configuration: the defaults of the schema, then the file, then the overrides, the last word winning.

    Args:
        schema: Class of the configuration.
        file: YAML file, or None for the defaults alone.
        overrides: Dotted settings such as `training.epochs=3`. Values are YAML. Where the schema wants text, the text
            is taken as it stands, without quotes around it. A key below a block that is null makes the block with its
            defaults; a value for a whole block, such as `encoder={name: resnet18}`, takes the place of the block.

    Raises:
        MimError: One line that names the file (and line) or the command line, the dotted key, and what is wanted.
    """
    draft = Draft(schema)
    if file is not None:
        _add_file(draft, Path(file))
    for override in overrides:
        _add_override(draft, override)
    draft.take_out_unfit()
    try:
        config = schema.model_validate_json(json.dumps(draft.tree))
    except ValidationError as error:
        draft.add_errors(error)
        raise MimError(draft.summary()) from error
    if draft.summary():
        raise MimError(draft.summary())
    return config


def dump_config(config: Config) -> str:
    """Write every setting as YAML, which `load_config` reads back to an equal configuration."""
    return write_yaml(config.model_dump())


def read_text(file: Path) -> str:
    """Read a small UTF-8 file.

    Raises:
        MimError: It is missing, a folder, unreadable, above `MAX_BYTES`, or not UTF-8.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except IsADirectoryError:
        raise MimError(f"{file} is a folder, not a YAML file{_yaml_files_in(file, '')}") from None
    except FileNotFoundError:
        raise MimError(f"{file} does not exist{_yaml_files_in(file.parent, file.name)}") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise MimError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MAX_BYTES:
        raise MimError(f"{file} is larger than {MAX_BYTES // 1024} KiB, too large for a configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MimError(f"{file}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _yaml_files_in(folder: Path, wanted: str) -> str:
    if not folder.is_dir():
        return f", nor does its folder {folder}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in YAML_SUFFIXES)
    near = get_close_matches(wanted, names, n=1) if wanted else []
    if near:
        return f"; did you mean {folder / near[0]}?"
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"; the YAML files in {folder} are {listed}" if names else f"; there is no YAML file in {folder}"


def _add_file(draft: Draft, file: Path) -> None:
    text = read_text(file)
    try:
        document = parse_yaml(text)
    except YamlError as error:
        raise error.in_file(file) from error
    if document.tree is None:
        return
    if not isinstance(document.tree, dict):
        raise MimError(f"{file}: wanted lines of the form key: value, with blocks indented below their name")
    sources = {path: f"{file}, line {line}" for path, line in document.lines.items()}
    for key, value in document.tree.items():
        draft.set((key,), value, sources)


def _add_override(draft: Draft, override: str) -> None:
    key, equals, text = override.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise MimError(f"{COMMAND_LINE}: {show(override)} is not a setting; {_OVERRIDE_FORM}")
    item = draft.keys.find(path)
    if item is None:
        draft.add_unknown(path, COMMAND_LINE)
        return
    try:
        value = _override_value(item if isinstance(item, Setting) and not item.free else None, text)
    except YamlError as error:
        draft.add_problem(path, f"{COMMAND_LINE}: {show_key(path)} is {show(text)}, {error.what}")
        return
    draft.set(path, value, {path: COMMAND_LINE})


def _override_value(setting: Setting | None, text: str) -> Any:
    if setting is None or not setting.is_text:
        return parse_yaml(text).tree
    stripped = text.strip()
    if setting.is_list and stripped.startswith("["):
        return parse_yaml(text).tree
    if stripped[:1] in ("'", '"'):
        try:
            document = parse_yaml(stripped)
        except YamlError:
            return stripped
        return document.tree if document.quoted else stripped
    is_null = stripped in _NULLS or (setting.nullable and not stripped)
    return None if is_null else stripped
