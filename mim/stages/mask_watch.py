"""What is watched of a masker that learns, at the end of each epoch."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mim.config import FinetuneConfig, MaskerConfig
from mim.data.loader import Batched, evaluation_loader
from mim.masking import Mask, PatchMasker
from mim.masking.collapse import describe_collapse, mask_figures
from mim.models.features import at_resolution
from mim.stages.common import logger
from mim.training.validation import EpochEnd


def describe_scores(step: int, scores: Tensor, masker: MaskerConfig, ready: int) -> dict[str, float]:
    """Figures of how a masker decides, from (N, gh, gw) log-odds; warns of one that has collapsed.

    Args:
        step: steps done.
        scores: of the validation films.
        masker: its settings.
        ready: step from which it should decide.
    """
    figures = mask_figures(scores)
    advice = describe_collapse(figures, masker.keep, len(scores)) if step >= ready else None
    if advice is not None:
        logger.warning("step %d: %s", step, advice)
    return figures.as_figures("val/mask_")


class MaskWatch:
    """Asks the masker of a task about validation samples, without the network behind it.

    Args:
        dataset: the samples: films, or studies of films, of which those that are there count.
        config: batch size and masker are read.
        ready: step from which the masker should decide.
    """

    def __init__(self, dataset: Batched, config: FinetuneConfig, ready: int) -> None:
        self.dataset = dataset
        self.batch_size = config.training.batch_size
        self.masker = config.masker
        self.ready = ready

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Gives the share of cells that is visible, mask figures, and where lesions are known the share that is shown.

        The last is of their pixels.
        """
        masker = next(part for part in module.modules() if isinstance(part, PatchMasker))
        device = next(masker.parameters()).device
        scores, kept = [], []
        shown, sought = 0.0, 0.0  # pixels of lesions
        for batch in evaluation_loader(self.dataset, batch_size=self.batch_size, workers=0):
            films = {name: batch[name] for name in ("image", "lesion") if name in batch}
            if "present" in batch:
                films = {name: value[batch["present"]] for name, value in films.items()}
            mask: Mask = masker({"image": films["image"].to(device)})
            assert mask.scores is not None
            scores.append(mask.scores.float().cpu())
            kept.append(mask.visible.float().mean(dim=(1, 2)).cpu())
            if "lesion" in films:
                pixels = films["lesion"].any(dim=1, keepdim=True)
                visible = at_resolution(mask.visible.float(), (pixels.shape[2], pixels.shape[3])).cpu()
                shown, sought = shown + float((visible * pixels).sum()), sought + float(pixels.sum())
        figures = {"val/keep": float(torch.cat(kept).mean())}
        if sought:
            figures["val/lesion_shown"] = shown / sought
        return figures | describe_scores(step, torch.cat(scores), self.masker, self.ready)


def watch_masks(config: FinetuneConfig, dataset: Batched, ready: int) -> EpochEnd | None:
    """What watches the masker of a run; None where it does not learn."""
    return MaskWatch(dataset, config, ready) if config.masker.kind == "learned" else None


def both(first: EpochEnd, second: EpochEnd) -> EpochEnd:
    """Figures of two together; of one that both give, the second's."""

    def measure(step: int, epoch: int, module: nn.Module) -> Mapping[str, float]:
        return {**first(step, epoch, module), **second(step, epoch, module)}

    return measure
