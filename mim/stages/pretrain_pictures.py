"""Pictures of what a model under pretraining rebuilds."""

import numpy as np
from torch import Tensor
from torch.utils.data import default_collate

from mim.config import PretrainConfig
from mim.data import PreparedDataset
from mim.evaluation import Reconstruction, reconstruction_picture
from mim.stages.common import logger, writing
from mim.stages.pretrain_films import make_dataset
from mim.tasks import MaskedImageModel
from mim.training import RunFolder

PICTURED_FILMS = 4


class ReconstructionPictures:
    """Draws what the model makes of some films, always the same under the same masks.

    Args:
        config: `watch.pictures` says how many films; 0 draws nothing.
        task: what is trained.
        films: the films.
        indices: which of them are trained on.
        folder: the run's.
    """

    def __init__(
        self,
        config: PretrainConfig,
        task: MaskedImageModel,
        films: PreparedDataset,
        indices: list[int],
        folder: RunFolder,
    ) -> None:
        self.folder = folder.pictures
        self.batch: dict[str, Tensor] | None = None
        if chosen := indices[: config.watch.pictures]:
            dataset = make_dataset(config, task, films, chosen, training=False)
            self.batch = default_collate([dataset[0, place] for place in range(len(dataset))])

    def draw(self, step: int, module: MaskedImageModel) -> None:
        """Draws the sheet of a step, if there is something to draw."""
        if self.batch is None:
            return
        rebuilt = reconstruct(module, self.batch)
        if not rebuilt:
            return
        if not all(np.isfinite(row.rebuilt).all() for row in rebuilt):
            logger.warning("no picture of step %d: what the model rebuilds is not finite", step)
            return
        sheet = reconstruction_picture(rebuilt)
        path = self.folder / f"step-{step:08d}.png"
        with writing(path):
            path.write_bytes(sheet)


def reconstruct(task: MaskedImageModel, batch: dict[str, Tensor]) -> list[Reconstruction]:
    """Rebuilds the films of a batch (on the CPU) on the task's device; none where no target is made of pixels."""
    device = next(task.parameters()).device
    rebuilt = task.reconstruct({name: batch[name].to(device) for name in ("image", "visible")})
    if rebuilt is None:
        return []
    rows = zip(batch["image"], batch["visible"], rebuilt.float().cpu(), strict=True)
    return [Reconstruction(image[0].numpy(), visible.numpy(), restored[0].numpy()) for image, visible, restored in rows]
