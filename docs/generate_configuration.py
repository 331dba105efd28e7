"""Writes docs/reference/configuration.md from the schema: `python docs/generate_configuration.py`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mim.config import Block, Config, EvaluateConfig, FinetuneConfig, PretrainConfig, Setting, list_blocks
from mim.config.select_features import SelectFeaturesConfig
from mim.config.yaml_text import write_yaml

PAGE = Path(__file__).parent / "reference" / "configuration.md"
DOORS: dict[str, type[Config]] = {
    "train.py": PretrainConfig,
    "finetune.py": FinetuneConfig,
    "evaluate.py": EvaluateConfig,
    "mim.stages.select_features": SelectFeaturesConfig,
}
LEAD = """\
# Settings

This page is generated from `mim/config` by `python docs/generate_configuration.py`; a test holds the two
together. `python train.py --help` prints the same list in the terminal.

A setting is `key=value` on the command line, or a line of a YAML file with each part of its dotted key indented below
the one before. The last word wins: the defaults below, then the YAML file, then the command line. Values are YAML:
`[192, 256]` is a list, `null` is nothing. An unknown key, a value of another type and a number out of range stop the
script before anything is read. `--print-config` prints what the settings come to, as YAML, and stops.
"""


def page() -> str:
    """The whole page: the settings of each script, then the blocks, those that scripts share alike only once."""
    tops = {door: list_blocks(schema)[0] for door, schema in DOORS.items()}
    parts = [LEAD]
    for door, top in tops.items():
        blocks = ", ".join(f"[`{block.key}`](#{block.key})" for block in list_blocks(DOORS[door])[1:])
        parts += [f"## {door}\n", f"{top.title}\n", _table(top.settings)]
        parts += [f"Blocks: {blocks}.\n"] if blocks else []
    parts += ["## Blocks\n", *_shared_blocks()]
    return "\n".join(parts)


def _shared_blocks() -> Iterator[str]:
    owners: dict[str, dict[str, Block]] = {}
    for door, schema in DOORS.items():
        for block in list_blocks(schema)[1:]:
            owners.setdefault(block.key, {})[door] = block
    for key, blocks in owners.items():
        yield f"### {key}\n"
        first = next(iter(blocks.values()))
        if all(block.settings == first.settings for block in blocks.values()):
            yield from _block(blocks)
        else:
            for door, block in blocks.items():
                yield from _block({door: block})


def _block(blocks: dict[str, Block]) -> Iterator[str]:
    """One table, for the scripts that share it."""
    first = next(iter(blocks.values()))
    yield f"{first.title} For {' and '.join(f'`{door}`' for door in blocks)}.\n"
    for door, block in blocks.items():
        if block.default_is_null:
            yield (
                f"In `{door}` the whole block is null by default ({block.meaning}); setting one key of it sets "
                "the others to these defaults.\n"
            )
    yield _table(first.settings)


def _table(settings: tuple[Setting, ...]) -> str:
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for setting in settings:
        default = write_yaml(setting.default, one_line=True).strip()
        cells = (f"`{setting.key}`", setting.wanted, f"`{default}`", setting.meaning)
        lines.append(f"| {' | '.join(_escape(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _escape(cell: str) -> str:
    """Text that Markdown takes neither for the end of a cell nor for a tag; in code only the former can happen."""
    escaped = cell.replace("|", r"\|")
    return escaped if cell.startswith("`") else escaped.replace("<", "&lt;")


def main() -> None:
    """Writes the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
