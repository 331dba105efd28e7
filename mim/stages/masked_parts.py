"""What stands behind and in front of each other in a run: encoder and masker, built again from its folder."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mim.config import FinetuneConfig
from mim.models import Encoder, build_encoder
from mim.stages.classifier import TaskDescription
from mim.stages.common import NetworkInput
from mim.stages.masker import build_masker, rebuilding_error
from mim.stages.score_source import source_of_run
from mim.tasks import RebuildingError


@dataclass(frozen=True, eq=False)
class MaskedParts:
    """What a task is built around, for weights that have yet to be loaded.

    Attributes:
        encoder: of the run.
        meets: how pixels are normalised.
        masker: in front of it, or None.
        rebuilding: what teaches the masker by rebuilding, in training.
    """

    encoder: Encoder
    meets: NetworkInput
    masker: nn.Module | None
    rebuilding: RebuildingError | None

    @classmethod
    def of_run(cls, run: Path, config: FinetuneConfig, description: TaskDescription, *, learns: bool) -> "MaskedParts":
        """Builds them as they were trained.

        Args:
            run: its folder.
            config: its settings.
            description: what it needs besides.
            learns: whether it goes on learning; to go on measuring, what taught the masker need not be at hand.

        Raises:
            MimError: what the masker needs of a pretrained model is missing.
        """
        encoder = build_encoder(description.encoder)
        meets = NetworkInput(description.encoder.image_size, description.mean, description.std)
        source = source_of_run(config, encoder, meets, run)
        masker = build_masker(config.masker, encoder, description.masker_encoder, source)
        return cls(encoder, meets, masker, rebuilding_error(config, encoder) if learns else None)
