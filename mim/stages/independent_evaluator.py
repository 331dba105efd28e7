"""A network that never met the run's mask in training, and looks through it all the same."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mim.errors import MimError
from mim.stages.cell_rankings import Batch
from mim.stages.classifier import load_classifier
from mim.stages.evaluation_context import EvaluationContext, positive_score
from mim.stages.finished_run import read_finished
from mim.tasks import MaskedClassifier

INDEPENDENT = ("none", "random")
"""Kinds of masker whose masks depend on nothing in the film."""


@dataclass(frozen=True)
class IndependentEvaluator:
    """The network, and what masks it was trained behind."""

    task: MaskedClassifier
    masker: str

    def score(self, batch: Batch, visible: Tensor | None) -> NDArray[np.float64]:
        """Probability of the second class, (B,), where it sees these cells alone; None = all of them."""
        return positive_score(self.task, batch, visible)


def load_evaluator(context: EvaluationContext) -> IndependentEvaluator | None:
    """Loads the run that `faithfulness.evaluator` names; None where it names none, or where there is no mask to judge.

    Raises:
        MimError: it is the run itself, trained behind masks of its own, on another split, or looks at another grid.
    """
    named = context.config.faithfulness.evaluator
    if named is None or context.task.masker is None:
        return None
    run = Path(named)
    said = f"faithfulness.evaluator={named}"
    if run.resolve() == context.run.resolve():
        raise MimError(f"{said}: is the run that is evaluated, which is not independent of its mask; name another run")
    finetuned, description = read_finished(run)
    if finetuned.masker.kind not in INDEPENDENT:
        raise MimError(
            f"{said}: was trained behind a {finetuned.masker.kind} mask of its own; name a run with masker.kind=none"
        )
    mine = context.description
    if (description.split_hash, description.classes) != (mine.split_hash, mine.classes):
        raise MimError(
            f"{said}: was trained on another split or target, so it may know the test films; train it on the same data"
        )
    task = load_classifier(run, finetuned, description)
    if (description.encoder.image_size, task.encoder.grid()) != (mine.encoder.image_size, context.task.encoder.grid()):
        raise MimError(
            f"{said}: sees {task.encoder.grid()} cells of films of {description.encoder.image_size} pixels; the run "
            f"{context.task.encoder.grid()} of {mine.encoder.image_size}: train it with the same input.image_size and "
            "patch size"
        )
    return IndependentEvaluator(context.fabric.to_device(task), finetuned.masker.kind)
