"""Explains one answer of a classifier: a score for each cell, from perturbations by the classifier's own hiding."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import IntegratedGradients, Lime, Occlusion
from captum.attr._core.lime import get_exp_kernel_similarity_function
from torch import Tensor

from mim.config import ExplanationsConfig
from mim.data.seed import derive_seed
from mim.evaluation.removal import cell_parts, superpixel_parts
from mim.models.rollout import attention_rollout, has_rollout
from mim.tasks import MaskedClassifier

KERNEL_WIDTH = 0.25
"""Of LIME's kernel over the cosine distance of masks, as its authors take it for images."""


@dataclass(frozen=True)
class Answer:
    """What is to be explained: one film, what the network saw of it, and how the draws are made.

    Attributes:
        task: the classifier, in evaluation mode.
        image: (1, C, H, W) in [0, 1].
        visible: (1, gh, gw) bool, what the masker showed.
        seed: of this film.
        batch_size: masks scored at a time.
    """

    task: MaskedClassifier
    image: Tensor
    visible: Tensor
    seed: int
    batch_size: int

    def log_odds(self, gate: Tensor, image: Tensor | None = None) -> Tensor:
        """Log-odds of the second class behind masks: (n, gh, gw) bool or gate -> (n,); None = of this film."""
        parts = []
        for cells in torch.split(gate, self.batch_size):
            logits = self.task.classify((self.image if image is None else image).expand(len(cells), -1, -1, -1), cells)
            parts.append(logits[:, 1] - logits[:, 0])
        return torch.cat(parts).double()

    @torch.no_grad()
    def behind(self, cells: Tensor) -> Tensor:
        """Log-odds where of the visible cells only those above one half are left: (n, gh, gw) -> (n,)."""
        return self.log_odds(self.visible & (cells > 0.5))

    def weighed(self, cells: Tensor) -> Tensor:
        """Log-odds where the visible cells are weighed by a gate, with gradient: (n, gh, gw) -> (n,).

        A closed gate keeps a trace of what is behind it, so hidden pixels are overwritten before.
        """
        shown = self.task.encoder.upsample(self.visible, self.task.encoder.image_size)
        return self.log_odds(self.visible * cells, torch.where(shown, self.image, self.task.mean))

    def all_cells(self) -> Tensor:
        """(1, gh, gw) of ones: what is perturbed."""
        return self.visible.new_ones(self.visible.shape, dtype=torch.float32)


def occlusion(answer: Answer, config: ExplanationsConfig) -> Tensor:
    """What the log-odds lose when a window of cells is hidden, each cell in the mean over the windows that hold it."""
    rows, columns = answer.visible.shape[1:]
    window = (min(config.window, rows), min(config.window, columns))
    attributed: Tensor = Occlusion(answer.behind).attribute(
        answer.all_cells(), sliding_window_shapes=window, baselines=0, perturbations_per_eval=answer.batch_size
    )
    return attributed


def lime(answer: Answer, config: ExplanationsConfig) -> Tensor:
    """Ridge regression of the log-odds on which superpixels are visible (Ribeiro et al., LIME, KDD 2016).

    Superpixels are rounded to cells, so that they can be hidden as the network hides.
    """
    pixels = answer.image[0].mean(dim=0).cpu().numpy()
    grid = (answer.visible.shape[1], answer.visible.shape[2])
    parts = cell_parts(superpixel_parts(pixels, config.superpixels), grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(answer.seed)
        explainer = Lime(
            answer.behind,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=get_exp_kernel_similarity_function("cosine", KERNEL_WIDTH),
        )
        attributed: Tensor = explainer.attribute(
            answer.all_cells(),
            baselines=0,
            feature_mask=torch.from_numpy(parts)[None].to(answer.visible.device),
            n_samples=config.samples,
            perturbations_per_eval=answer.batch_size,
        )
    return attributed


def integrated_gradients(answer: Answer, config: ExplanationsConfig) -> Tensor:
    """Gradient of the log-odds by each cell's gate, along the way from nothing visible to all that the network saw.

    Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017. The way leads through gates, by which cells
    are weighed, and not through darker pixels: that is the way of hiding itself.
    """
    ones = answer.all_cells()
    attributed: Tensor = IntegratedGradients(answer.weighed).attribute(
        ones, baselines=torch.zeros_like(ones), n_steps=config.steps, internal_batch_size=answer.batch_size
    )
    return attributed


def rollout(answer: Answer, config: ExplanationsConfig) -> Tensor:
    """Attention rollout over the visible cells. It knows no class: it is the same whatever is asked."""
    image = (answer.image - answer.task.mean) / answer.task.std
    return attention_rollout(answer.task.encoder, image, answer.visible)


@torch.no_grad()
def masker_scores(answer: Answer, config: ExplanationsConfig) -> Tensor:
    """What the masker decided by. It knows no class either."""
    assert answer.task.masker is not None
    scores = answer.task.masker({"image": answer.image}).scores
    assert isinstance(scores, Tensor)
    return scores


Explainer = Callable[[Answer, ExplanationsConfig], Tensor]
EXPLAINERS: Mapping[str, Explainer] = MappingProxyType(
    {
        "masker": masker_scores,
        "occlusion": occlusion,
        "lime": lime,
        "integrated_gradients": integrated_gradients,
        "attention_rollout": rollout,
    }
)
KNOWS_NO_CLASS = ("masker", "attention_rollout")


def can_explain(answer: Answer, name: str) -> bool:
    """Whether the classifier of an answer can be explained in this way."""
    if name == "attention_rollout":
        return has_rollout(answer.task.encoder)
    if name == "masker":
        return _has_cell_scores(answer)
    return True


@torch.no_grad()
def _has_cell_scores(answer: Answer) -> bool:
    if answer.task.masker is None:
        return False
    scores = answer.task.masker({"image": answer.image}).scores
    return isinstance(scores, Tensor) and scores.shape == answer.visible.shape


def explain_positive(name: str, answer: Answer, config: ExplanationsConfig) -> np.ndarray:
    """Scores each cell by what it does for the second class, or, of explanations that know no class, by its weight.

    Returns:
        (gh, gw) float64, NaN at cells that the network did not see.
    """
    scores = EXPLAINERS[name](answer, config).detach().double().cpu().numpy()[0]
    return np.where(answer.visible[0].cpu().numpy(), scores, np.nan)


def film_seed(seed: int, row: int) -> int:
    """Seed of what is drawn for a film."""
    return derive_seed(seed, "explanations", row)
