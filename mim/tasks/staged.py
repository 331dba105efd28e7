"""What tasks behind a masker that learns share of training in stages: what is met, what is learnt from, what rests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from mim.masking.gates import budget_loss
from mim.masking.ideal import lesion_loss
from mim.masking.learned import PatchMasker
from mim.masking.mask import Mask
from mim.masking.patterns import random_visible_batch
from mim.models.encoder import Encoder
from mim.tasks.look import seen
from mim.tasks.mask_training import MaskTraining, Rebuilding, Stage

Parts = Mapping[str, tuple[Tensor, float]]  # of a loss by name, each with its weight


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a network meets in one step, and what the masker learns from beside the task.

    Attributes:
        stage: of the step.
        met: consecutive parts of the films, each with the mask that it is seen behind; empty where the network is not
            asked.
        random: films, the first ones, that meet random masks.
        weight: of the task's loss.
        parts: of the masker's loss beside the task.
        figures: `visible`, what the masker (in the first stage: chance) decided, and `keep`, the share of it.
    """

    stage: Stage
    met: tuple[tuple[slice, Mask], ...]
    random: int
    weight: float
    parts: Parts
    figures: dict[str, Tensor]


def draw_lesson(
    batch: dict[str, Tensor],
    masker: PatchMasker,
    encoder: Encoder,
    recipe: MaskTraining,
    progress: float | None,
    rebuilding: Rebuilding | None = None,
    films: Tensor | None = None,
) -> Lesson:
    """Decides what the network meets in one step of `MaskTraining`.

    Args:
        batch: `image` (N, C, H, W) with pixels in [0, 1]; `lesion` (N, 1, H, W) bool where the masker learns from it.
        masker: that learns.
        encoder: behind it.
        recipe: stages and weights.
        progress: share of the training that is done; None = masker and network learn together, as in the last stage.
        rebuilding: gives the error of rebuilding what a mask hides; needed where the recipe has a weight for it.
        films: (B,) films of each sample, so that a sample meets one kind of masks; None = each film is a sample.

    Raises:
        ValueError: the batch lacks lesions, or there is no pretrained model, and the masker is to learn from it.
    """
    image = batch["image"]
    stage: Stage = "joint" if progress is None else recipe.stage(progress)
    if stage == "network":
        chance = Mask(random_visible(recipe, encoder, image))
        figures = {"visible": chance.visible, "keep": chance.visible.float().mean()}
        return Lesson(stage, ((slice(None), chance),), len(image), 1.0, {}, figures)
    mask = masker(batch)
    parts = mask_losses(batch, masker, mask, recipe, progress, rebuilding)
    figures = {"visible": mask.visible, "keep": seen(mask).float().mean()}
    if stage == "masker" and not recipe.task:
        return Lesson(stage, (), 0, 0.0, parts, figures)
    # the network hears nothing of the task but through what it sees
    shown = mask if recipe.task else Mask(mask.visible, mask.gate.detach() if masker.gate == "soft" else None)
    count = round_at_random(recipe.random_share * len(image if films is None else films)) if stage == "joint" else 0
    if films is not None:
        count = int(films[:count].sum())
    met = []
    if count:
        met.append((slice(0, count), Mask(random_visible(recipe, encoder, image[:count]))))
    if count < len(image):
        met.append((slice(count, None), part_of(shown, count)))
    # with nothing else to learn from, the network needs all of it
    return Lesson(stage, tuple(met), count, recipe.task if stage == "masker" else 1.0, parts, figures)


def mask_losses(
    batch: dict[str, Tensor],
    masker: PatchMasker,
    mask: Mask,
    recipe: MaskTraining,
    progress: float | None,
    rebuilding: Rebuilding | None,
) -> Parts:
    """What a masker learns from beside the task.

    Raises:
        ValueError: see `draw_lesson`.
    """
    assert mask.scores is not None
    weight = recipe.budget_weight(1.0 if progress is None else progress)
    parts = {"budget": (budget_loss(mask.scores, masker.keep), weight)}
    if recipe.supervised:
        if "lesion" not in batch:
            raise ValueError("the masker is to learn from lesions, and the batch has none; set data.boxes")
        parts["supervised"] = (lesion_loss(mask.scores, batch["lesion"]), recipe.supervised)
    if recipe.reconstruction:
        if rebuilding is None:
            raise ValueError("the masker is to learn from what can be rebuilt, and there is no pretrained model")
        parts["reconstruction"] = (rebuilding(batch["image"], mask), recipe.reconstruction)
    return parts


def random_visible(recipe: MaskTraining, encoder: Encoder, image: Tensor) -> Tensor:
    """Random masks (N, gh, gw) of one density, which is drawn as well."""
    low, high = recipe.random_keep
    keep = low + (high - low) * torch.rand(())
    return random_visible_batch(len(image), encoder.grid(), keep, image.device)


def staged_plan(
    recipe: MaskTraining, network: Iterable[str], masker: str
) -> dict[str, tuple[float, tuple[tuple[float, float], ...]]]:
    """What `learning_plan` of a task says: of parts by name a factor on the learning rate, and when they learn."""
    plan = {name: (1.0, recipe.spans("network")) for name in network}
    return {**plan, masker: (recipe.lr_scale, recipe.spans("masker"))}


class Rest:
    """Lets parts of a task rest while its masker learns: no weight of theirs moves, and no statistic of a norm."""

    def __init__(self) -> None:
        self._held: list[nn.Parameter] = []

    def __call__(self, parts: Iterable[nn.Module], resting: bool, *, answering: Iterable[nn.Module] = ()) -> None:
        """Puts parts to rest, or wakes them.

        Args:
            parts: that rest in evaluation mode.
            resting: whether they do.
            answering: more parts, which give a loss, or a gradient on a GPU, in training mode alone: of these
                everything rests, but norms and dropout alone are in evaluation mode.
        """
        quiet, answering = tuple(parts), tuple(answering)
        for part in (*quiet, *answering):
            part.train(not resting)
        if resting:
            for part in answering:
                answer_in_training(part)
        if resting and not self._held:
            parameters = [parameter for part in (*quiet, *answering) for parameter in part.parameters()]
            self._held = [parameter for parameter in parameters if parameter.requires_grad]
            for parameter in self._held:
                parameter.requires_grad_(False)
        elif not resting and self._held:
            for parameter in self._held:
                parameter.requires_grad_(True)
            self._held = []


def answer_in_training(part: nn.Module) -> None:
    """Puts a module into training mode, and whatever in it keeps statistics or draws at random into evaluation mode."""
    part.train()
    for module in part.modules():
        if isinstance(module, _NormBase | _DropoutNd):
            module.eval()


def summed(parts: Parts) -> dict[str, Tensor]:
    """`loss`, the weighted sum of parts, and each of them by name, without its weight."""
    loss = torch.stack([part * weight for part, weight in parts.values()]).sum()
    return {"loss": loss, **{f"loss_{name}": part for name, (part, _) in parts.items()}}


def part_of(mask: Mask, first: int) -> Mask:
    """The mask of the images from one on."""
    return Mask(mask.visible[first:], None if mask.gate is None else mask.gate[first:])


def round_at_random(value: float) -> int:
    """Rounds so that the mean is the value itself: half a film is one film in every second batch."""
    whole = int(value)
    return whole if value == whole else whole + int(torch.rand(()).item() < value - whole)
