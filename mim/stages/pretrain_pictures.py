"""Pictures of what a model under pretraining rebuilds."""

from torch import Tensor, nn
from torch.utils.data import default_collate

from mim.config import PretrainConfig
from mim.data import PreparedDataset
from mim.evaluation import Reconstruction, reconstruction_picture
from mim.stages.common import writing
from mim.stages.pretrain_films import make_dataset
from mim.tasks import MaskedImageModel
from mim.training import Plan, RunFolder

PICTURED_FILMS = 4


class ReconstructionPictures:
    """Draws, every few epochs, what the model makes of some films, always the same under the same masks."""

    def __init__(
        self,
        config: PretrainConfig,
        task: MaskedImageModel,
        films: PreparedDataset,
        indices: list[int],
        folder: RunFolder,
        plan: Plan,
    ) -> None:
        self.every = config.picture_every
        self.folder = folder.pictures
        self.last_step = plan.total_steps
        dataset = make_dataset(config, task, films, indices[:PICTURED_FILMS], training=False)
        self.batch: dict[str, Tensor] = default_collate([dataset[0, place] for place in range(len(dataset))])

    def __call__(self, step: int, epoch: int, module: nn.Module) -> dict[str, float]:
        """Draws a sheet if it is time for one; gives no figures."""
        if epoch % self.every and step != self.last_step:
            return {}
        assert isinstance(module, MaskedImageModel)
        rebuilt = reconstruct(module, self.batch)
        if not rebuilt:
            return {}
        sheet = reconstruction_picture(rebuilt)
        path = self.folder / f"epoch-{epoch:05d}.png"
        with writing(path):
            path.write_bytes(sheet)
        return {}


def reconstruct(task: MaskedImageModel, batch: dict[str, Tensor]) -> list[Reconstruction]:
    """Rebuilds the films of a batch (on the CPU) on the task's device; none where no target is made of pixels."""
    device = next(task.parameters()).device
    rebuilt = task.reconstruct({name: batch[name].to(device) for name in ("image", "visible")})
    if rebuilt is None:
        return []
    rows = zip(batch["image"], batch["visible"], rebuilt.float().cpu(), strict=True)
    return [Reconstruction(image[0].numpy(), visible.numpy(), restored[0].numpy()) for image, visible, restored in rows]
