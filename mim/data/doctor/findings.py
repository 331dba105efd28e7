"""What the doctor has to say, and how it is shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["stop", "look", "fine"]

_HEADINGS: dict[Level, str] = {
    "stop": "STOP: mend this before you train",
    "look": "LOOK: decide whether this is as you mean it",
    "fine": "FINE",
}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: "stop": results would be wrong, or a run stops; "look": somebody must decide; "fine".
        name: What was looked at, a fixed word.
        text: What was found.
        advice: What to do; empty where there is nothing to do.
        items: Files or rows it is about.
    """

    level: Level
    name: str
    text: str
    advice: str = ""
    items: tuple[str, ...] = ()


def to_text(title: str, findings: Sequence[Finding]) -> str:
    """Findings as plain text, the most urgent first; of long lists the beginning."""
    lines = [title]
    for level, heading in _HEADINGS.items():
        chosen = [finding for finding in findings if finding.level == level]
        if chosen:
            lines += ["", f"{heading} ({len(chosen)})"]
        for finding in chosen:
            lines.append(f"  {finding.name}: {finding.text}")
            if finding.items:
                more = f", ... ({len(finding.items)} in all)" if len(finding.items) > _SHOWN else ""
                lines.append(f"    {', '.join(finding.items[:_SHOWN])}{more}")
            if finding.advice:
                lines.append(f"    -> {finding.advice}")
    return "\n".join(lines) + "\n"


def to_json(findings: Sequence[Finding], films: int) -> dict[str, Any]:
    """Findings with whole lists, for a program."""
    return {"films": films, "findings": [asdict(finding) for finding in findings]}
