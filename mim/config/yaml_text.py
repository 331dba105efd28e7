"""YAML with the scalars of YAML 1.2, read without aliases, repeated keys or anything but plain data."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml
from yaml.reader import ReaderError

from mim.errors import MimError

MAX_DEPTH = 32
MAX_DIGITS = 400

_TAG = "tag:yaml.org,2002:"
_TEXT, _NULL, _BOOL, _INT, _FLOAT = (_TAG + name for name in ("str", "null", "bool", "int", "float"))
# The core schema of YAML 1.2.2, section 10.3.2: `on`, `yes`, `1_000`, `1:30` and dates are text.
_CORE_SCALARS = (
    (_NULL, re.compile(r"(?:null|Null|NULL|~|)\Z")),
    (_BOOL, re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")),
    (_INT, re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z")),
    (
        _FLOAT,
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
    ),
)


class Place(NamedTuple):
    """Where something stands in a YAML text, both counted from 1."""

    line: int
    column: int


class YamlError(Exception):
    """A text that is not the YAML wanted here: what is wrong in a few words, and where, if known."""

    def __init__(self, what: str, place: Place | None) -> None:
        super().__init__(what)
        self.what = what
        self.place = place

    def in_file(self, file: object) -> MimError:
        """The error a user reads, naming the file, the line and the column."""
        place = f", line {self.place.line}, column {self.place.column}" if self.place else ""
        return MimError(f"{file}{place}: {self.what}")


@dataclass(frozen=True)
class Document:
    """What a YAML text says.

    Attributes:
        tree: Nested dicts and lists of None, bool, int, float and str.
        lines: Line, from 1, of each key that mappings give, by its path from the top.
        quoted: Whether the text is one quoted scalar.
    """

    tree: Any
    lines: dict[tuple[str, ...], int]
    quoted: bool


def _core_tag(value: str) -> str:
    return next((tag for tag, pattern in _CORE_SCALARS if pattern.match(value)), _TEXT)


def _place(mark: Any) -> Place | None:
    return None if mark is None else Place(mark.line + 1, mark.column + 1)


class _NodeReader(yaml.SafeLoader):
    """Text to nodes. Values are made from the nodes here, so no constructor and no Python tag can run."""

    depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _core_tag(value) if implicit[0] else _TEXT
        return _TAG + ("seq" if kind is yaml.SequenceNode else "map")

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise YamlError("aliases (*name) are not read here; write the value out", _place(event.start_mark))
        if self.depth >= MAX_DEPTH:
            raise YamlError(f"nested more than {MAX_DEPTH} deep", _place(event.start_mark))
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_yaml(text: str) -> Document:
    """Read one YAML document.

    Raises:
        YamlError: Broken syntax, an alias, a repeated key, a key that is not text, an unknown tag, a number too
            long to read, more than one document, or nesting deeper than `MAX_DEPTH`.
    """
    root = _compose(text)
    lines: dict[tuple[str, ...], int] = {}
    tree = None if root is None else _value(root, (), lines)
    return Document(tree, lines, isinstance(root, yaml.ScalarNode) and root.style in ("'", '"'))


def _compose(text: str) -> yaml.Node | None:
    try:
        return _NodeReader(text).get_single_node()
    except ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, error.position - before.rfind("\n"))
        raise YamlError(f"the character U+{ord(text[error.position]):04X} is not allowed in YAML", place) from error
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(f"not valid YAML: {what}", _place(error.problem_mark or error.context_mark)) from error
    except (ValueError, OverflowError) as error:  # PyYAML lets escapes beyond Unicode through to chr()
        raise YamlError(f"not valid YAML: {error}", None) from error


def _value(node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, str(i)), lines) for i, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or node.tag != _TAG + "map":
        raise YamlError(f"the tag {node.tag} is not read here", _place(node.start_mark))
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != _TEXT:
            raise YamlError("a key must be text; put it in quotes", _place(key_node.start_mark))
        key = key_node.value
        if key in mapping:
            raise YamlError(f"the key {'.'.join((*path, key))} stands here twice", _place(key_node.start_mark))
        lines[*path, key] = key_node.start_mark.line + 1
        mapping[key] = _value(value_node, (*path, key), lines)
    return mapping


def _scalar(node: yaml.ScalarNode) -> bool | int | float | str | None:
    text: str = node.value
    if node.tag == _TEXT:
        return text
    if node.tag != _core_tag(text) and not (node.tag == _FLOAT and _core_tag(text) == _INT):
        raise YamlError(f"the tag {node.tag} does not fit this value, or is not read here", _place(node.start_mark))
    if len(text) > MAX_DIGITS:
        raise YamlError(f"a number of more than {MAX_DIGITS} digits", _place(node.start_mark))
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return text.lower() == "true"
    if node.tag == _INT:
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))


class _Writer(yaml.SafeDumper):
    """Values to text that YAML 1.1 and 1.2 readers understand alike: what either would not take for text is quoted."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        if kind is yaml.ScalarNode and implicit[0]:
            core = _core_tag(value)
            return tag if core == _TEXT else core
        return tag

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_list(writer: yaml.SafeDumper, values: Any) -> yaml.Node:
    return writer.represent_sequence(_TAG + "seq", values, flow_style=True)


def _represent_text(writer: yaml.SafeDumper, text: str) -> yaml.Node:
    # Only double quotes keep line breaks, U+0085 among them, as they are and on one line.
    return writer.represent_scalar(_TEXT, text, style=None if text.isprintable() else '"')


_Writer.add_representer(str, _represent_text)
_Writer.add_representer(list, _represent_list)
_Writer.add_representer(tuple, _represent_list)


def write_yaml(tree: Any, *, one_line: bool = False) -> str:
    """Write nested dicts, lists, tuples and scalars as YAML which `parse_yaml` reads back, lists in brackets."""
    text: str = yaml.dump(
        tree, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=2**31, default_flow_style=one_line
    )
    return text.removesuffix("...\n").rstrip("\n") if one_line else text
