"""The results of a long prediction while they grow: a journal, so that what was cut off goes on."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mim.errors import MimError
from mim.files import write_atomically

RESULTS = "predictions.json"
JOURNAL = ".predictions.jsonl"

Entry = dict[str, Any]  # name, sha256, films, skipped, and of the first file of a study `studies`: what is known


def to_text(content: Mapping[str, Any]) -> str:
    """JSON with a line for each film and each other top-level key, so that long results can be read and compared."""
    lines = []
    for key, value in content.items():
        several = isinstance(value, list) and value and isinstance(value[0], dict)
        items = ",\n  ".join(json.dumps(item, allow_nan=False) for item in value) if several else ""
        text = f"[\n  {items}\n ]" if several else json.dumps(value, allow_nan=False)
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


class Results:
    """What is known of files, by name.

    Args:
        folder: where predictions.json goes; None = results are kept in memory alone.
        model: what answers (`describe_model`); results of anything else are not mixed with its own.
        overwrite: forget what is in the folder.

    Raises:
        MimError: the folder holds results of another model, or of other settings, or cannot be read.
    """

    def __init__(self, folder: Path | None, model: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self._folder, self._model = folder, json.loads(json.dumps(model))
        self._entries: dict[str, Entry] = {}
        self._journal: BinaryIO | None = None
        if folder is None:
            return
        if not overwrite:
            self._take(_entries_of(folder / RESULTS, self._check))
            self._take(self._from_journal(folder / JOURNAL))
        folder.mkdir(parents=True, exist_ok=True)
        # begun anew, as its last line may be torn
        lines = [{"model": self._model}, *(self._entries.values() if self._entries else ())]
        write_atomically(folder / JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))
        self._journal = (folder / JOURNAL).open("ab")

    def done(self, name: str, sha256: str, allowed: Iterable[str]) -> bool:
        """Whether there are results of a file: of the same bytes, and none of it refused that would now be allowed."""
        entry = self._entries.get(name)
        if entry is None or entry["sha256"] != sha256 or not entry["films"]:
            return False
        return not {item["reason"] for item in entry["skipped"]} & set(allowed)

    def study_of(self, name: str) -> list[str] | None:
        """The files of the study that a file is the first of; None where it is not known as such."""
        studies = self._entries.get(name, {}).get("studies", ())
        return list(studies[0]["files"]) if studies else None

    def knows(self, name: str) -> bool:
        """Whether there is anything of a file of this name."""
        return name in self._entries

    def add(self, entry: Entry) -> None:
        """Takes what is known of a file, in place of what was known."""
        self._take([entry])
        if self._journal is not None:
            self._journal.write(json.dumps(entry).encode() + b"\n")
            self._journal.flush()

    def entries(self, first: Iterable[str]) -> list[Entry]:
        """All of them: those of some names first, in their order."""
        order = dict.fromkeys((*first, *self._entries))
        return [self._entries[name] for name in order if name in self._entries]

    def finish(self, content: Mapping[str, Any]) -> None:
        """Writes predictions.json and removes the journal."""
        if self._folder is not None:
            write_atomically(self._folder / RESULTS, to_text(content))
            self.close()
            (self._folder / JOURNAL).unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the journal; what is in it is taken up by the next call."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._entries[entry["name"]] = entry

    def _check(self, path: Path, model: Any) -> None:
        if model == self._model:
            return
        differs = [key for key in self._model if not isinstance(model, dict) or model.get(key) != self._model[key]]
        raise MimError(
            f"{path}: holds results of another model or of other settings ({', '.join(differs)}); give another "
            "--output, or --overwrite"
        )

    def _from_journal(self, path: Path) -> list[Entry]:
        if not path.is_file():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line break was cut off
        try:
            first, *rest = [json.loads(line) for line in lines] or [{"model": None}]
            self._check(path, first["model"])
            return [_checked(entry) for entry in rest]
        except (KeyError, TypeError, ValueError) as error:
            raise MimError(f"{path}: cannot be understood ({type(error).__name__}); give --overwrite") from error


def _entries_of(path: Path, check: Any) -> list[Entry]:
    """Entries of predictions.json, gathered by file."""
    if not path.is_file():
        return []
    try:
        content = json.loads(path.read_text())
        check(path, content["model"])
        found: dict[str, Entry] = {}
        for kind in ("films", "skipped"):
            for item in content[kind]:
                own = found.setdefault(
                    item["file"], {"name": item["file"], "sha256": item["sha256"], "films": [], "skipped": []}
                )
                own[kind].append(item)
        for study in content.get("studies", ()):
            found[study["files"][0]].setdefault("studies", []).append(study)
        return [_checked(entry) for entry in found.values()]
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise MimError(f"{path}: cannot be understood ({type(error).__name__}); give --overwrite") from error


def _checked(entry: Any) -> Entry:
    if not (isinstance(entry["films"], list) and isinstance(entry["skipped"], list)):
        raise TypeError("films and skipped must be lists")
    known = {key: entry[key] for key in ("films", "skipped", "studies") if key in entry}
    return {"name": str(entry["name"]), "sha256": str(entry["sha256"]), **known}
