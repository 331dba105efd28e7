"""Removes parts of films, in each way of hiding that the weights of a run can be used with."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mim.config import MissingnessConfig
from mim.data.seed import derive_seed
from mim.evaluation import Section
from mim.evaluation.missingness import MissingnessResult, Removal, missingness_block
from mim.evaluation.removal import Floats, Integers, part_means, patch_parts, removed_at, superpixel_parts, to_cells
from mim.stages.evaluation_context import EvaluationContext
from mim.stages.hidings import Hiding, available, free_cell, looks_at_tokens, own_hiding, patch_side, with_hiding
from mim.stages.some_films import SomeFilms, called_positive_from, choose_rows, take_films
from mim.tasks import MaskedClassifier


@dataclass(frozen=True)
class Plan:
    """In which order the parts of a film go.

    Attributes:
        parts: (H, W), the number of each pixel's part.
        order: (parts,), the first to go first.
    """

    parts: Integers
    order: Integers


def missingness_section(context: EvaluationContext) -> Section | None:
    """Accuracy, entropy and unchanged predictions against the share removed, by each way of hiding."""
    config = context.config.missingness
    rows = choose_rows(context, config.films, "missingness")
    if not rows:
        return None
    films = take_films(context, rows)
    threshold = called_positive_from(context)
    can, left_out = available(context.task, config.hiding)
    plans = make_plans(context.task, films, config, context.config.seed)
    removals = []
    work = [(unit, hiding) for unit in config.unit for hiding in can]
    for unit, name in tqdm(work, desc="missing parts", unit="way of hiding", leave=False, disable=None):
        cell = patch_side(context.task, config.patch) if unit == "patch" else free_cell(context.task, name)
        hiding = with_hiding(context.task, name, cell)
        if hiding is None:  # of a CNN whose strides do not fit such cells
            left_out.append(f"{name} of {unit}s")
            continue
        for order in config.order:
            plan = plans[unit, order]
            removals.append(remove(hiding, unit, order, films, plan, config.removed, context.config.batch_size))
    words = unit_words(context.task, config)
    result = MissingnessResult(removals, films.label, threshold, own_hiding(context.task), left_out, words)
    return missingness_block(result, films.resampling) if removals else None


def unit_words(task: MaskedClassifier, config: MissingnessConfig) -> str:
    """What patches and superpixels are for this network."""
    side = patch_side(task, config.patch)
    patches = f"Patches have {side} x {side} pixels; superpixels (SLIC), about {config.superpixels} a film, "
    if looks_at_tokens(task):
        return patches + f"are rounded to the network's cells of {task.encoder.patch_size} pixels."
    return patches + "are hidden to the pixel (blur: to cells of about 4 pixels, since it is as wide as a cell)."


def make_plans(
    task: MaskedClassifier, films: SomeFilms, config: MissingnessConfig, seed: int
) -> dict[tuple[str, str], list[Plan]]:
    """Divides each film into parts and puts these in order, for each unit and order: the same for all hidings."""
    salience = pixel_salience(task, films.image)
    height, width = films.image.shape[-2:]
    plans: dict[tuple[str, str], list[Plan]] = {}
    for unit in config.unit:
        for place, row in enumerate(films.rows):
            if unit == "patch":
                parts = patch_parts(height, width, patch_side(task, config.patch))
            else:
                parts = superpixel_parts(films.image[place].mean(dim=0).cpu().numpy(), config.superpixels)
            scores = part_means(parts, salience[place])
            for order in config.order:
                plans.setdefault((unit, order), []).append(Plan(parts, order_parts(scores, order, seed, row)))
    return plans


def order_parts(scores: Floats, order: str, seed: int, row: int) -> Integers:
    """Numbers of the parts, the first to be removed first; the random order is a function of seed and film."""
    if order == "random":
        return np.random.default_rng(derive_seed(seed, "missingness", row)).permutation(len(scores))
    return np.argsort(-scores if order == "salient_first" else scores, kind="stable")


def pixel_salience(task: MaskedClassifier, image: Tensor) -> Floats:
    """Size of the gradient of the called class's log-odds at each pixel, the whole film being seen: (N, H, W)."""
    maps = []
    for one in torch.split(image, 1):  # one film at a time: a batch would keep every layer's activations
        pixels = one.clone().requires_grad_()
        logits = task.classify(pixels, None)
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), pixels)
        maps.append(gradient.abs().mean(dim=1))  # the called class only turns its sign
    return torch.cat(maps).double().cpu().numpy()


def remove(
    hiding: Hiding,
    unit: str,
    order: str,
    films: SomeFilms,
    plans: list[Plan],
    shares: tuple[float, ...],
    batch_size: int,
) -> Removal:
    """Removes more and more of each film and scores what is left."""
    removed = np.array(sorted({0.0, *shares}))
    grid = hiding.task.encoder.grid()
    scores = []
    for share in removed:
        hidden = np.stack([to_cells(removed_at(plan.parts, plan.order, share), grid) for plan in plans])
        visible = torch.from_numpy(~hidden).to(films.image.device)
        scores.append(score_visible(hiding.task, films.image, visible, batch_size))
    return Removal(hiding.name, unit, order, removed, np.stack(scores))


@torch.inference_mode()
def score_visible(task: MaskedClassifier, image: Tensor, visible: Tensor | None, batch_size: int) -> Floats:
    """Probability of the second class, (N,), where the encoder sees these cells alone; None = all of them."""
    parts = [
        task.classify(pixels, None if cells is None else cells).double().softmax(dim=1)[:, 1]
        for pixels, cells in _batches(image, visible, batch_size)
    ]
    return torch.cat(parts).cpu().numpy()


def _batches(image: Tensor, visible: Tensor | None, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(image), size):
        part = slice(start, start + size)
        yield image[part], None if visible is None else visible[part]
