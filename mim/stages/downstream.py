"""The training of a task on labelled samples, whatever they are."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mim.config import FinetuneConfig, dump_config
from mim.data import Splits, save_splits
from mim.data.loader import Batched
from mim.stages.classifier import TaskDescription
from mim.stages.common import TrainBatches, finish, logger, say_finished, steps_per_epoch, writing
from mim.stages.made_for import MadeFor
from mim.stages.mask_watch import both, watch_masks
from mim.stages.masker import masker_ready
from mim.stages.score_source import save_source
from mim.stages.tuning import count_learning
from mim.training import Monitor, Plan, make_fabric, on_rank_zero, open_run, train_task
from mim.training.validation import EpochEnd


@dataclass(frozen=True, eq=False)
class Downstream:
    """Everything that a kind of task brings to its training.

    Attributes:
        task: what is trained; with `encoder`, `mean` and `std`.
        description: goes into task.json.
        splits: who is in which split; goes into splits.csv.
        said: what there is to train on and to measure, in a line.
        samples: what is trained on.
        fingerprint: hashes that a run which goes on must find again.
        validation: gives figures at the end of an epoch.
        monitor: which of them says what weights are the best.
        made_for: the films that are trained on, and how they were prepared; goes into films.json.
        watched: validation samples on which a masker that learns is watched at the end of an epoch.
    """

    task: Any
    description: TaskDescription
    splits: Splits
    said: str
    samples: Batched
    fingerprint: Mapping[str, Any]
    validation: EpochEnd
    monitor: Monitor
    made_for: MadeFor | None = None
    watched: Batched | None = None


def train_downstream(config: FinetuneConfig, work: Downstream) -> Path:
    """Trains as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run.

    Raises:
        MimError: bad settings, or files that cannot be written, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    # layers that timm builds and this task never asks, such as a classifier's, have no gradient
    fabric = make_fabric(config.training, find_unused_parameters=True)
    with open_run(fabric, Path(str(config.output)), dump_config(config)) as folder:
        if (summary := folder.read_finished()) is not None:
            on_rank_zero(fabric, lambda: say_finished(folder, summary))
            return folder.path

        def begin() -> None:
            with writing(folder.path):
                save_splits(folder.path / "splits.csv", work.splits)
                work.description.save(folder.path)
                if work.made_for is not None:
                    work.made_for.save(folder.path)
                save_source(config, folder.path)
            logger.info("%s", work.said)
            logger.info("%s", count_learning(config, work.task))

        per_epoch = steps_per_epoch(config, len(work.samples), fabric.world_size)
        plan = Plan.from_config(config.training, per_epoch)
        ready = masker_ready(config, plan)
        watch = None if work.watched is None else watch_masks(config, work.watched, ready)
        outcome = train_task(
            fabric,
            work.task,
            TrainBatches(work.samples, config, fabric, plan.total_steps),
            config=config,
            folder=folder,
            steps_per_epoch=per_epoch,
            fingerprint=dict(work.fingerprint),
            on_epoch_end=work.validation if watch is None else both(watch, work.validation),
            monitor=replace(work.monitor, since=max(ready, work.monitor.since)),
            on_begin=begin,
        )
        on_rank_zero(fabric, lambda: finish(folder, work.task, outcome, f"next: python evaluate.py {folder.path}"))
        return folder.path
