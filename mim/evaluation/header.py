"""What a set of figures belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mim.evaluation.external import ExternalTest


@dataclass(frozen=True)
class Header:
    """Provenance of an evaluation, for the head of the report and for `metrics.json`. Hashes, never paths or names.

    Attributes:
        target: Label column whose 1 is the positive class.
        data: Hash of the data.
        split: Hash of the split.
        checkpoint: Hash of the weights.
        version: Version of mim.
        seed: Seed the model was trained with.
        image_size: Height and width in pixels of what the network met.
        trained_on: Films of the training: `films`, `patients`, `positives`; empty = not known.
        lesions: Marked lesions of the `val` and `test` films; empty = none are known.
        near_copies: Test films that are near copies of a film of `pretraining` or `training`; None = not known.
        external: The test set, where it does not come from where the run's films do; None = it does.
        more: Further lines, title to text, such as the backbone and the masker.
    """

    target: str
    data: str
    split: str
    checkpoint: str
    version: str
    seed: int
    image_size: tuple[int, int]
    trained_on: Mapping[str, int] = field(default_factory=dict)
    lesions: Mapping[str, int] = field(default_factory=dict)
    near_copies: Mapping[str, int | None] = field(default_factory=dict)
    external: ExternalTest | None = None
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def lesions_in_words(self) -> str:
        """How many lesions are marked; empty where none are known."""
        if not self.lesions:
            return ""
        said = f"{self.lesions.get('test', 0)} lesions are marked on the test films"
        return f"{said} and {self.lesions['val']} on the validation films." if "val" in self.lesions else f"{said}."

    def identity(self) -> list[tuple[str, str]]:
        """Give what tells this evaluation from others, as titles and texts."""
        height, width = self.image_size
        return [
            *([] if self.external is None else [("Test set", self.external.describe())]),
            ("Data, hash", self.data),
            ("Split, hash", self.split),
            ("Checkpoint, hash", self.checkpoint),
            ("Version of mim", self.version),
            ("Seed of the training", str(self.seed)),
            ("Resolution", f"{height} x {width} pixels (height x width)"),
            *self.more.items(),
        ]

    def marked(self) -> list[tuple[str, str]]:
        """Give how many lesions readers marked, as titles and texts; nothing where none are known."""
        if not self.lesions:
            return []
        named = {"test": "test", "val": "validation"}
        parts = [f"{count} on the {named[split]} films" for split, count in self.lesions.items()]
        return [("Marked lesions", ", ".join(parts))]

    def copies(self) -> list[tuple[str, str]]:
        """Give how many test films are near copies of others, as titles and texts; nothing where not looked for."""
        if not self.near_copies:
            return []
        parts = [f"{'not known' if count is None else count} in {place}" for place, count in self.near_copies.items()]
        listed = " (near_copies.csv lists them)" if any(self.near_copies.values()) else ""
        return [("Near copies of test films", f"{', '.join(parts)}{listed}")]
