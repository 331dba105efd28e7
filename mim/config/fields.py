"""The schema seen as a flat list of dotted keys, each with its type in plain words."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from mim.config.base import Config

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
_SCALARS = {str: "text", bool: "true or false", int: "integer", float: "number"}


@dataclass(frozen=True)
class Setting:
    """One dotted key of a schema that takes a value.

    Attributes:
        key: Dotted key, such as `optimizer.lr`.
        kind: Type in plain words, such as `two integers` or `text or null`.
        limits: Range in plain words, such as `at least 1`; empty where there is none.
        default: Value where nothing is said.
        meaning: Description from the schema.
        is_text: Whether any text is taken.
        is_list: Whether a list is taken.
        nullable: Whether null is taken.
        free: Whether any keys may stand below it.
        choices: The only values taken; empty where there is no such list.
    """

    key: str
    kind: str
    limits: str
    default: Any
    meaning: str
    is_text: bool
    is_list: bool
    nullable: bool
    free: bool
    choices: tuple[Any, ...]

    @property
    def wanted(self) -> str:
        """Type and range in plain words."""
        return f"{self.kind}, {self.limits}" if self.limits else self.kind


@dataclass(frozen=True)
class Block:
    """A group of settings: a nested block, or with an empty key the top of the schema.

    Attributes:
        key: Dotted key of the block; empty for the top.
        title: First line of the docstring of the block's class.
        meaning: Description of the field that holds the block; often empty.
        nullable: Whether null is taken in its place.
        default_is_null: Whether it is null where nothing is said.
        settings: What stands directly in it.
    """

    key: str
    title: str
    meaning: str
    nullable: bool
    default_is_null: bool
    settings: tuple[Setting, ...]


def list_blocks(schema: type[Config]) -> tuple[Block, ...]:
    """All blocks of a schema, the top first, then in the order of the schema."""
    return tuple(_blocks(schema, "", FieldInfo(annotation=schema)))


def list_settings(schema: type[Config]) -> tuple[Setting, ...]:
    """All settings of a schema, those of blocks which are null by default included."""
    return tuple(setting for block in list_blocks(schema) for setting in block.settings)


def _blocks(schema: type[Config], key: str, field: FieldInfo) -> Iterator[Block]:
    settings = []
    inner = []
    for name, child in schema.model_fields.items():
        child_key = f"{key}.{name}" if key else name
        child_schema = _block_class(child.annotation)
        if child_schema is None:
            settings.append(_setting(child_key, child))
        else:
            inner.append((child_schema, child_key, child))
    title = (schema.__doc__ or "").strip().partition("\n")[0]
    nullable = type(None) in get_args(field.annotation)
    yield Block(key, title, field.description or "", nullable, field.default is None, tuple(settings))
    for child_schema, child_key, child in inner:
        yield from _blocks(child_schema, child_key, child)


def _setting(key: str, field: FieldInfo) -> Setting:
    annotation, limits = _unwrap(field.annotation, field.metadata)
    members, nullable = _members(annotation)
    kind, inner_limits = _words(annotation)
    closed = all(get_origin(member) is Literal for member in members)
    choices = tuple(choice for member in members for choice in get_args(member)) if closed else ()
    return Setting(
        key=key,
        kind=kind,
        limits=limits or inner_limits,
        default=field.get_default(call_default_factory=True),
        meaning=field.description or "",
        is_text=str in members and not {int, float} & set(members),
        is_list=any(get_origin(member) is tuple for member in members),
        nullable=nullable,
        free=any(get_origin(member) is dict for member in members),
        choices=choices,
    )


def _block_class(annotation: Any) -> type[Config] | None:
    members, _ = _members(_unwrap(annotation, [])[0])
    return next((m for m in members if isinstance(m, type) and issubclass(m, Config)), None)


def _unwrap(annotation: Any, metadata: list[Any]) -> tuple[Any, str]:
    """The type without its constraints, and these in plain words."""
    constraints = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *extras = get_args(annotation)
        for extra in extras:
            constraints.extend(extra.metadata if isinstance(extra, FieldInfo) else [extra])
    return annotation, _limits(constraints)


def _members(annotation: Any) -> tuple[tuple[Any, ...], bool]:
    """The alternatives of a union but None, and whether None is one of them."""
    if get_origin(annotation) not in (Union, types.UnionType):
        return (annotation,), False
    members = get_args(annotation)
    return tuple(_unwrap(m, [])[0] for m in members if m is not type(None)), type(None) in members


def _words(annotation: Any) -> tuple[str, str]:
    """A type in plain words, and the range that its parts must keep to."""
    if get_origin(annotation) in (Union, types.UnionType):
        return _union_words(get_args(annotation))
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return (f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]), ""
    if get_origin(annotation) is tuple:
        return _tuple_words(get_args(annotation))
    if get_origin(annotation) is dict:
        return "block of any keys", ""
    return _SCALARS.get(annotation, getattr(annotation, "__name__", str(annotation))), ""


def _union_words(members: tuple[Any, ...]) -> tuple[str, str]:
    words, ranges = [], []
    for member in members:
        if member is type(None):
            continue
        plain, outer = _unwrap(member, [])
        kind, inner = _words(plain)
        words.append(kind)
        ranges.append(outer or inner)
    if type(None) not in members:
        return " or ".join(words), " or ".join(filter(None, ranges))
    comma = "," if "," in words[-1] else ""
    return " or ".join(words) + f"{comma} or null", " or ".join(filter(None, ranges))


def _tuple_words(items: tuple[Any, ...]) -> tuple[str, str]:
    unwrapped = [_unwrap(item, []) for item in items if item is not Ellipsis]
    kinds = list(dict.fromkeys(_words(plain)[0] for plain, _ in unwrapped))
    limits = list(dict.fromkeys(limit for _, limit in unwrapped))
    each = f"each {limits[0]}" if len(limits) == 1 and limits[0] else ""
    if len(kinds) > 1:
        return "list of " + ", ".join(kinds), each
    if Ellipsis in items:
        chosen = kinds[0].startswith("one of ")
        return f"list, each {kinds[0]}" if chosen else f"list of {kinds[0]}s", each
    count = _NUMBERS[len(items)] if len(items) < len(_NUMBERS) else str(len(items))
    return f"{count} {kinds[0]}" + ("" if len(items) == 1 else "s"), each


def _limits(constraints: list[Any]) -> str:
    """Constraints in the sense of annotated-types, in plain words."""
    bound = {name: getattr(c, name) for c in constraints for name in ("ge", "gt", "le", "lt") if hasattr(c, name)}
    if "ge" in bound and "le" in bound:
        return f"from {bound['ge']} to {bound['le']}"
    low = f"at least {bound['ge']}" if "ge" in bound else f"above {bound['gt']}" if "gt" in bound else ""
    high = f"at most {bound['le']}" if "le" in bound else f"below {bound['lt']}" if "lt" in bound else ""
    return " and ".join(filter(None, (low, high)))
