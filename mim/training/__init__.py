"""Training: the loop that drives any task, its folder, its checkpoints and its figures."""

from mim.training.distributed import make_fabric, on_rank_zero
from mim.training.looks import Looks, log_spaced
from mim.training.loop import Outcome, train_task
from mim.training.optimizer import build_optimizer, learning_rate
from mim.training.plan import Plan
from mim.training.run_folder import RunFolder, open_run
from mim.training.weights import Best, Monitor, load_weights, save_weights

__all__ = [
    "Best",
    "Looks",
    "Monitor",
    "Outcome",
    "Plan",
    "RunFolder",
    "build_optimizer",
    "learning_rate",
    "load_weights",
    "log_spaced",
    "make_fabric",
    "on_rank_zero",
    "open_run",
    "save_weights",
    "train_task",
]
