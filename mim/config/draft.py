"""A configuration under construction: where each value was said, and all that is wrong with it."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from mim.config.base import SCHEMA_VERSION, Config
from mim.config.fields import Block, Setting
from mim.config.keys import KeyPath, Keys
from mim.errors import MimError

MAX_PROBLEMS = 3
_LARGEST_INTEGER = 2**63 - 1
_LONGEST_SHOWN = 60


class Draft:
    """Values set so far, as nested dicts, with the problems met.

    Args:
        schema: What the configuration is to become.

    Attributes:
        keys: All that may be set.
        tree: Values by key, block within block; only keys that the schema knows.
    """

    def __init__(self, schema: type[Config]) -> None:
        self.keys = Keys(schema)
        self.tree: dict[str, Any] = {}
        self._sources: dict[KeyPath, str] = {}
        self._problems: dict[KeyPath, str] = {}

    def set(self, path: KeyPath, value: Any, sources: Mapping[KeyPath, str]) -> None:
        """Set the value at a path, making the blocks above it; unknown keys in it become problems.

        Args:
            path: Keys from the top.
            value: Any YAML value.
            sources: Where that path, and any below it, was said: a file and line, or the command line.

        Raises:
            MimError: The value is another schema version than the one read here.
        """
        if self.keys.find(path) is None:
            self.add_unknown(path, sources[path])
            return
        if path == ("schema_version",):
            _check_version(value, sources[path])
        above = self.tree
        for depth, key in enumerate(path[:-1], start=1):
            if above.get(key) is None:
                above[key] = {}
            above = above[key]
            if not isinstance(above, dict):
                taken = f"{'.'.join(path[:depth])} is {show(above)}, not a block"
                self.add_problem(path, f"{sources[path]}: {show_key(path)} cannot be set, as {taken}")
                return
        self._sources = {p: s for p, s in self._sources.items() if p[: len(path)] != path}
        self._sources.update({p: s for p, s in sources.items() if p[: len(path)] == path})
        above[path[-1]] = self._known(path, value)

    def add_problem(self, path: KeyPath, message: str) -> None:
        """Note what is wrong at a path; the first thing said about it stands."""
        self._problems.setdefault(path, message)

    def add_unknown(self, path: KeyPath, source: str) -> None:
        """Note an unknown key, with the nearest right one."""
        # A search takes a millisecond, and only the first few problems are told.
        near = self.keys.nearest(".".join(path)) if len(self._problems) < MAX_PROBLEMS else None
        way_out = f"did you mean {near}?" if near else "--help lists all keys"
        if near == ".".join(path):
            way_out = "in a file each part of a dotted key is a line of its own, indented below the one before"
        self.add_problem(path, f"{source}: unknown key {show_key(path)}, {way_out}")

    def add_errors(self, error: ValidationError) -> None:
        """Note what pydantic found wrong."""
        for detail in error.errors(include_url=False, include_context=False):
            path, item = self.keys.owner(tuple(str(part) for part in detail["loc"]))
            if detail["type"] in ("value_error", "assertion_error"):
                name = show_key(path) if path else "the settings together"
                self.add_problem(path, f"{self._source(path)}: {name}: {detail['msg'].partition(', ')[2]}")
            else:
                self._add_wrong(path, item)

    def take_out_unfit(self) -> None:
        """Note, and take out, what JSON or pydantic would misread: NaN, infinity, numbers beyond 64 bits, not UTF-8."""
        unfit = set()
        for path, value in _walk(self.tree):
            owner, item = self.keys.owner(path)
            fault = _fault(path, value)
            if fault or (isinstance(item, Setting) and item.choices and not _is_choice(value, item)):
                free = isinstance(item, Setting) and item.free
                self._add_wrong(path if free else owner, item, fault)
                unfit.add(tuple(item.key.split(".")))
        for path in unfit:
            self._remove(path)

    def summary(self) -> str:
        """All problems in one line, the first `MAX_PROBLEMS` in full; empty where there is none."""
        messages = [" ".join(message.split("\n")) for message in self._problems.values()]
        more = len(messages) - MAX_PROBLEMS
        return "; ".join(messages[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")

    def _known(self, path: KeyPath, value: Any) -> Any:
        """The value without the unknown keys of blocks."""
        if not isinstance(value, dict) or not isinstance(self.keys.find(path), Block):
            return value
        kept = {}
        for key, inner in value.items():
            if self.keys.find((*path, key)) is None:
                self.add_unknown((*path, key), self._source((*path, key)))
            else:
                kept[key] = self._known((*path, key), inner)
        return kept

    def _add_wrong(self, path: KeyPath, item: Setting | Block, fault: str = "") -> None:
        value = self._value(path)
        parts = [f"{self._source(path)}: {show_key(path)} is {show(value)}{fault}"]
        if isinstance(item, Block):
            parts.append("wanted a block of settings" + (" or null" if item.nullable else ""))
        elif show_key(path) == item.key:
            quotes = ", in quotes" if item.is_text and not isinstance(value, str | list | dict) else ""
            parts.append(f"wanted {item.wanted}{quotes} ({item.meaning})")
        self.add_problem(path, ", ".join(parts))

    def _source(self, path: KeyPath) -> str:
        below = [source for said, source in self._sources.items() if said[: len(path)] == path]
        while path and path not in self._sources:
            path = path[:-1]
        return self._sources.get(path) or (below[-1] if below else "settings")

    def _value(self, path: KeyPath) -> Any:
        value: Any = self.tree
        for key in path:
            value = dict(_items(value)).get(key)
        return value

    def _remove(self, path: KeyPath) -> None:
        above = self._value(path[:-1])
        if isinstance(above, dict):
            above.pop(path[-1], None)


def show(value: Any) -> str:
    """A value on one line, shortened where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."


def show_key(path: KeyPath) -> str:
    """A dotted key on one line, shortened where it is long."""
    key = ".".join(path)
    return key if key.isprintable() and len(key) <= _LONGEST_SHOWN else show(key)


def _check_version(version: Any, source: str) -> None:
    if type(version) is int and version != SCHEMA_VERSION:
        age = "a newer" if version > SCHEMA_VERSION else "an older"
        raise MimError(
            f"{source}: schema_version is {show(version)}: written by {age} version of mim; "
            f"this one reads schema_version {SCHEMA_VERSION}"
        )


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from ((str(index), inner) for index, inner in enumerate(value))


def _walk(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, inner in _items(value):
        yield (*path, key), inner
        yield from _walk(inner, (*path, key))


def _fault(path: KeyPath, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return " (not a finite number)"
    if isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        return " (does not fit 64 bits)"
    if not _is_unicode(path[-1]) or (isinstance(value, str) and not _is_unicode(value)):
        return " (not UTF-8 text)"
    return ""


def _is_choice(value: Any, setting: Setting) -> bool:
    # Literal[1] alone would take true and 1.0 for 1.
    return (value is None and setting.nullable) or any(
        type(value) is type(choice) and value == choice for choice in setting.choices
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
