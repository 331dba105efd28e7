"""A finished run of fine-tuning, and the pretraining run that it started from."""

from pathlib import Path

from mim.config import FinetuneConfig, PretrainConfig, load_config
from mim.errors import MimError
from mim.stages.classifier import TaskDescription
from mim.stages.pretrain_model import load_pretrained_task
from mim.tasks import MaskedImageModel


def read_finished(run: Path) -> tuple[FinetuneConfig, TaskDescription]:
    """Reads the settings and the description of a finished run.

    Raises:
        MimError: it is no run, no run of fine-tuning, or not finished.
    """
    if not run.is_dir():
        raise MimError(f"{run}: there is no such run")
    if not (run / "config.yaml").is_file():
        raise MimError(f"{run}: is not a run: it has no config.yaml")
    description = TaskDescription.load(run)
    if not (run / "finished.json").is_file():
        raise MimError(f"{run}: is not finished; start the command that began it again, and it goes on")
    return load_config(FinetuneConfig, run / "config.yaml", []), description


def load_init(finetuned: FinetuneConfig) -> tuple[PretrainConfig, MaskedImageModel] | None:
    """Loads the pretraining run that a run started from, with its decoder; None where it started from none.

    Raises:
        MimError: it is no longer at hand.
    """
    if finetuned.init is None or not finetuned.init_weights:
        return None
    run = Path(finetuned.init)
    pretrained = load_config(PretrainConfig, run / "config.yaml", [])
    return pretrained, load_pretrained_task(run, pretrained).eval()
