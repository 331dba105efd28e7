"""Dotted keys of a schema: what stands at one, and which right one a wrong one was meant to be."""

from difflib import SequenceMatcher

from mim.config.base import Config
from mim.config.fields import Block, Setting, list_blocks

_NEAR = 0.6

KeyPath = tuple[str, ...]


class Keys:
    """All dotted keys of a schema.

    Args:
        schema: Class of a configuration.
    """

    def __init__(self, schema: type[Config]) -> None:
        blocks = list_blocks(schema)
        items: list[Block | Setting] = [*blocks, *(setting for block in blocks for setting in block.settings)]
        self._items: dict[KeyPath, Block | Setting] = {
            tuple(item.key.split(".")) if item.key else (): item for item in items
        }

    def find(self, path: KeyPath) -> Block | Setting | None:
        """What stands at a path of keys: a block, a setting, or the free setting that the path leads into."""
        owner_path, owner = self.owner(path)
        leads_into = isinstance(owner, Setting) and owner.free
        return owner if owner_path == path or leads_into else None

    def owner(self, path: KeyPath) -> tuple[KeyPath, Block | Setting]:
        """The block or setting that a path leads to or into, and its own path."""
        while path not in self._items:
            path = path[:-1]
        return path, self._items[path]

    def nearest(self, unknown: str) -> str | None:
        """The dotted key that a wrong one was most likely meant to be, or None if none comes near.

        First the keys of its own block are looked at, by their last component and then by the words of their
        descriptions, then all keys in the same way, and last whole keys: two keys of one block are alike by its name.
        """
        _, above = self.owner(tuple(unknown.split(".")))
        if isinstance(above, Setting):
            return above.key
        scores = {item.key: _likeness(unknown, item.key) for item in self._items.values() if item is not above}
        block = unknown.rpartition(".")[0]
        own = [key for key in scores if block and key.startswith(f"{block}.")]
        near = (
            [key for key in own if scores[key][1] >= _NEAR]
            or self._described(unknown, own)
            or [key for key in scores if scores[key][1] >= _NEAR]
            or self._described(unknown, list(scores))
            or [key for key in scores if scores[key][0] >= _NEAR]
        )
        return max(near, key=lambda key: sum(scores[key]), default=None)

    def _described(self, unknown: str, keys: list[str]) -> list[str]:
        """The first of some settings whose description holds the words of a key."""
        words = unknown.rpartition(".")[2].replace("_", " ").replace("-", " ").strip()
        settings = [item for item in self._items.values() if isinstance(item, Setting) and item.key in keys]
        return [setting.key for setting in settings if len(words) > 2 and words in setting.meaning][:1]


def _likeness(unknown: str, key: str) -> tuple[float, float]:
    whole = SequenceMatcher(None, unknown, key).ratio()
    last = SequenceMatcher(None, unknown.rpartition(".")[2], key.rpartition(".")[2]).ratio()
    return whole, last
