"""The classifier of a run with other ways of hiding cells from it: the same weights, another encoder around them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mim.errors import MimError
from mim.models import EncoderSpec, build_encoder
from mim.models.fills import FILLS
from mim.tasks import MaskedClassifier

BLUR_CELL = 4
"""Side in pixels of a cell that is blurred over where parts have free outlines: the blur is as wide as a cell."""


@dataclass(frozen=True)
class Hiding:
    """A way of hiding that the weights of a run can be used with.

    Attributes:
        name: `drop`, `token`, `sparse` or `layer`, or what pixels are filled with.
        task: the classifier; it has no masker.
    """

    name: str
    task: MaskedClassifier


def own_hiding(task: MaskedClassifier) -> str:
    """The name of the way of hiding that a run was trained with."""
    spec = task.encoder.spec
    return spec.fill or spec.hidden


def looks_at_tokens(task: MaskedClassifier) -> bool:
    """Whether the cells of the encoder are its tokens, so that they cannot be made smaller."""
    return hasattr(task.encoder.backbone, "patch_embed")


def patch_side(task: MaskedClassifier, wanted: int) -> int:
    """Side of a patch in pixels, as near to what is wanted as whole cells and the image allow."""
    if looks_at_tokens(task):
        cell = task.encoder.patch_size
        return cell * max(1, round(wanted / cell))
    return wanted if all(side % wanted == 0 for side in task.encoder.image_size) else task.encoder.patch_size


def with_hiding(task: MaskedClassifier, name: str, cell: int | None = None) -> Hiding | None:
    """Builds the classifier of a run around an encoder that hides in another way, with the same weights.

    Args:
        task: of the run.
        name: `drop`, `token`, `sparse`, `layer`, `grey`, `black`, `mean` or `blur`.
        cell: side of a cell in pixels, for a network whose cells are not tokens; None = the run's own.

    Returns:
        None where the network cannot be hidden so, or has learnt no mask token.
    """
    spec = other_spec(task.encoder.spec, name)
    if cell is not None and not looks_at_tokens(task):
        spec = replace(spec, patch_size=cell)
    try:
        encoder = build_encoder(spec)
    except MimError:
        return None  # the family cannot be hidden so: `build_encoder` raises nothing else of a spec that was built once
    learnt = task.encoder.state_dict()
    own = encoder.state_dict()
    if own.keys() - learnt.keys():
        return None  # a mask token, which this run did not train
    encoder.load_state_dict({key: learnt[key] for key in own})
    other = MaskedClassifier(encoder, task.num_classes, mean=task.mean, std=task.std, labels=task.labels)
    other.head.load_state_dict(task.head.state_dict())
    other = other.to(next(task.parameters()).device).eval()
    return Hiding(name, other.requires_grad_(False))


def other_spec(spec: EncoderSpec, name: str) -> EncoderSpec:
    """The spec with another way of hiding."""
    if name in FILLS:
        return replace(spec, hidden="fill", fill=name)
    return replace(spec, hidden=name, fill=None)


def available(task: MaskedClassifier, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divides ways of hiding into those that a run's network can do, its own first, and those that it cannot."""
    can = [name for name in names if with_hiding(task, name) is not None]
    own = own_hiding(task)
    can.sort(key=lambda name: name != own)
    return can, [name for name in names if name not in can]


def free_cell(task: MaskedClassifier, name: str) -> int:
    """Side in pixels of the cells by which parts of free outline, such as superpixels, are hidden."""
    if looks_at_tokens(task):
        return task.encoder.patch_size
    if name != "blur":
        return 1
    return math.gcd(BLUR_CELL, *task.encoder.image_size)
