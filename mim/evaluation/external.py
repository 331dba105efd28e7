"""What a reader must know of a test set from elsewhere: how large it is, what was left out of it, what is not known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "patient_trained_on": "of patients who were trained on",
        "pixels_trained_on": "with the same pixels as a film that was trained on",
        "patient_pretrained_on": "of patients who were met in pretraining",
        "pixels_pretrained_on": "with the same pixels as a film that was met in pretraining",
    }
)
"""Why films are left out, in the order in which it is asked: a film counts for the first that holds. Films that chose
weights and threshold (the validation) count as trained on."""


@dataclass(frozen=True)
class ExternalTest:
    """A test set that does not come from where the run's films do. Counts alone, no paths and no names.

    Attributes:
        films: Films that are measured.
        patients: Whose they are.
        left_out: Labelled films that are not measured, by the keys of `REASONS`.
        other_split: Labelled films of splits that were not asked for.
        unlabelled: Films without a label.
        missing: Rows of the table of labels whose film is not there or cannot be read.
        unreadable: Files of the folder that could not be read.
        differing: Measured films that are not such as the run was made for, by what they differ in; a film may differ
            in several things.
        validation: What the threshold was chosen on: the run's own validation `films`, or the `table` of what it made
            of them when it was evaluated before, where the films are not at hand.
        unknown: Sentences on what cannot be told.
        notes: Further sentences.
    """

    films: int
    patients: int
    left_out: Mapping[str, int]
    other_split: int = 0
    unlabelled: int = 0
    missing: int = 0
    unreadable: int = 0
    differing: Mapping[str, int] = field(default_factory=dict)
    validation: Literal["films", "table"] = "films"
    unknown: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def first_lines(self) -> list[str]:
        """Sentences for the head of the report."""
        chosen = "the run's own validation films"
        if self.validation == "table":
            chosen += ", as an earlier evaluation scored them (the films themselves are not at hand)"
        lines = [
            f"This is an external test set: {_counted(self.films, 'film')} of {_counted(self.patients, 'patient')}. "
            f"The threshold, and all else that is chosen, is chosen on {chosen}."
        ]
        if gone := self.left_out_in_words:
            lines.append(f"Left out of it: {gone}.")
        lines += self.unknown
        if self.differing:
            parts = ", ".join(f"{name}: {count}" for name, count in self.differing.items())
            lines.append(
                f"Some of its films are not such as the run was made for (films by what they differ in: {parts}); they "
                "are measured all the same."
            )
        return [*lines, *self.notes]

    @property
    def left_out_in_words(self) -> str:
        """How many films were left out and why; empty where none were."""
        return in_words(self.left_out)

    def describe(self) -> str:
        """One line for the head of the report."""
        other = {
            "left out by their split": self.other_split,
            "without a label": self.unlabelled,
            "named by the labels and not there": self.missing,
            "files that could not be read": self.unreadable,
        }
        rest = "; ".join(f"{count} {what}" for what, count in other.items() if count)
        return (
            f"external: {_counted(self.films, 'film')} of {_counted(self.patients, 'patient')}; left out: "
            f"{self.left_out_in_words or 'none'}{f'; {rest}' if rest else ''}"
        )


def in_words(left_out: Mapping[str, int]) -> str:
    """How many films were left out and why, from the keys of `REASONS`; empty where none were."""
    return ", ".join(f"{_counted(count, 'film')} {REASONS[name]}" for name, count in left_out.items() if count)


def facts_of_external(external: ExternalTest | None, near_copies: Mapping[str, int | None]) -> dict[str, str]:
    """What the model card says of the test set, by the keys of the items; nothing where it is the run's own.

    Args:
        external: The test set; None = it is the run's own.
        near_copies: Test films that are near copies of a film that was learnt from, by place; None = not known.
    """
    if external is None:
        return {}
    looked = ", ".join(f"{place}: {'not known' if count is None else count}" for place, count in near_copies.items())
    return {
        "internal": "",
        "external": " ".join(external.first_lines),
        "data": "Training and validation films are those that the run's table of labels names; the test films come "
        "from elsewhere, with a table of their own.",
        "partition": "The test films are all labelled films of an external test set. Training and validation films are "
        "those of the run.",
        "apart": f"Films of the external test set that are left out: {external.left_out_in_words or 'none'}."
        + "".join(f" {line}" for line in external.unknown),
        "leakage": f"Near copies among the films that are measured: {looked or 'not looked for'}.",
    }


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
