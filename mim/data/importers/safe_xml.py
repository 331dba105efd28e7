"""XML from strangers: no document type, hence no entities, neither internal nor external."""

from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_DEEPEST = 50


def parse_xml(text: str) -> Element:
    """Parse a document without a document type.

    Entities can only be declared in one, so neither do entities expand, nor is another file or address ever read.

    Raises:
        ValueError: It is not well-formed, has a document type, or is nested absurdly deep.
    """
    builder = TreeBuilder()
    depth = 0

    def refuse(*_: Any) -> None:
        raise ValueError("a document type (DOCTYPE), which is not read")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} elements within each other")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(text.encode(), True)
    except expat.ExpatError as error:
        raise ValueError(f"not well-formed XML, line {error.lineno}") from None
    return builder.close()
