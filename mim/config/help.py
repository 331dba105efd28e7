"""The text behind --help: every setting with its type, range, default and meaning."""

import shutil
import textwrap

from mim.config.base import Config
from mim.config.fields import Block, Setting, list_blocks
from mim.config.yaml_text import write_yaml

_NARROWEST, _WIDEST = 72, 120


def help_text(schema: type[Config]) -> str:
    """List every dotted key of a schema, block by block, wrapped to the width of the terminal."""
    return "\n\n".join(_block_text(block) for block in list_blocks(schema) if block.settings) + "\n"


def wrap(text: str, indent: str = "", further: str = "") -> str:
    """Wrap one paragraph to the width of the terminal, between 72 and 120 columns.

    Args:
        text: The paragraph.
        indent: What each line begins with.
        further: What each line but the first begins with besides.
    """
    return textwrap.fill(
        text,
        width=min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST),
        initial_indent=indent,
        subsequent_indent=indent + further,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _block_text(block: Block) -> str:
    title = f"{block.key}: {block.title}" if block.key else block.title
    if block.default_is_null:
        title += f" Default null ({block.meaning}); setting one key below it sets the others to these defaults."
    return "\n".join([wrap(title, further="  "), *(_setting_text(setting) for setting in block.settings)])


def _setting_text(setting: Setting) -> str:
    default = write_yaml(setting.default, one_line=True)
    head = wrap(f"{setting.key}  {setting.wanted}; default {default}", indent="  ", further="    ")
    return f"{head}\n{wrap(setting.meaning, indent='      ')}" if setting.meaning else head
