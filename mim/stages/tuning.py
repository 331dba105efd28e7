"""What of an encoder learns in a fine-tuning, whatever its task."""

from typing import Any

from mim.config import FinetuneConfig
from mim.errors import MimError
from mim.models import Encoder
from mim.models.lora import LowRank
from mim.models.tuning import Tuning, tune
from mim.models.tuning import check_tuning as check_encoder

_SETTING = {"last_blocks": "tuned_blocks", "lora": "tuning=lora"}


def check_tuning(config: FinetuneConfig, encoder: Encoder) -> None:
    """Refuses to hold fresh weights still, and an encoder that cannot be tuned as asked; before any film is read.

    Raises:
        MimError: naming the setting.
    """
    fresh = config.encoder is None or not (config.encoder.pretrained or config.encoder.weights)
    if config.tuning != "full" and fresh and (config.init is None or not config.init_weights):
        raise MimError(
            f"tuning={config.tuning} would leave fresh weights as they are: give init=<run>, or encoder.weights"
        )
    try:
        check_encoder(encoder, _tuning(config))
    except ValueError as error:
        raise MimError(f"{_SETTING[config.tuning]}: {error}") from error


def tune_encoder(config: FinetuneConfig, task: Any) -> None:
    """Lets as much of a task's encoder learn as the settings say: the last thing that is done to build a task.

    The rest stays as it is, in evaluation mode. A run that is rebuilt needs it too, as low-rank updates have weights.

    Args:
        config: `tuning`, `tuned_blocks` and `lora` are read.
        task: with an `encoder`, on the CPU.

    Raises:
        MimError: the encoder cannot be tuned so.
    """
    try:
        tune(task.encoder, _tuning(config))
    except ValueError as error:
        raise MimError(f"{_SETTING[config.tuning]}: {error}") from error


def count_learning(config: FinetuneConfig, task: Any) -> str:
    """How many parameters of a task learn, and how many of its encoder do."""
    parts = {"the task": task, "the encoder": task.encoder}
    counts = []
    for name, part in parts.items():
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
        learning = sum(size for size, learns in sizes if learns)
        counts.append(f"{learning:,} of the {sum(size for size, _ in sizes):,} parameters of {name}")
    return f"tuning={config.tuning}: {counts[0]} learn, {counts[1]}"


def _tuning(config: FinetuneConfig) -> Tuning:
    low_rank = LowRank(config.lora.rank, config.lora.alpha, config.lora.layers, config.lora.norms)
    return Tuning(config.tuning, config.tuned_blocks, low_rank)
