"""Pretraining: hide cells of unlabelled films, rebuild them, keep the encoder."""

from pathlib import Path

from mim.config import PretrainConfig, dump_config
from mim.data import save_seen
from mim.stages.common import (
    TrainBatches,
    content_hash,
    finish,
    logger,
    open_films,
    say_finished,
    steps_per_epoch,
    writing,
)
from mim.stages.pretrain_films import choose_films, make_dataset
from mim.stages.pretrain_model import build_task
from mim.stages.pretrain_probe import check_probe
from mim.stages.pretrain_watch import Watch
from mim.stages.prove_loading import prove_encoder_loads
from mim.training import Plan, make_fabric, on_rank_zero, open_run, train_task


def pretrain(config: PretrainConfig) -> Path:
    """Trains a masked image model as configured, or goes on where a run in the same folder stopped.

    Returns:
        The folder of the run, with encoder.safetensors and encoder.json in it.

    Raises:
        MimError: bad settings, data or files, in one line.
        Interrupted: the run was asked to stop and saved itself.
    """
    check_probe(config)
    task = build_task(config)
    prove_encoder_loads(task)
    films = open_films(config.data)
    indices = choose_films(config, films)
    # what pooling and classification need has no gradient here
    fabric = make_fabric(config.training, find_unused_parameters=True)
    with open_run(fabric, Path(str(config.output)), dump_config(config)) as folder:
        if (summary := folder.read_finished()) is not None:
            on_rank_zero(fabric, lambda: say_finished(folder, summary))
            return folder.path
        dataset = make_dataset(config, task, films, indices, training=True)
        per_epoch = steps_per_epoch(config, len(indices), fabric.world_size)
        logger.info("%d films, %d steps an epoch", len(indices), per_epoch)
        if not task.draws:
            logger.info("no reconstructions are drawn: pixels are not among the targets")
        plan = Plan.from_config(config.training, per_epoch)

        def begin() -> None:
            with writing(folder.path / "seen.csv"):
                save_seen(folder.path / "seen.csv", films, indices)

        outcome = train_task(
            fabric,
            task,
            TrainBatches(dataset, config, fabric, plan.total_steps),
            config=config,
            folder=folder,
            steps_per_epoch=per_epoch,
            fingerprint={"films": content_hash(films, indices)},
            looks=Watch(config, task, films, indices, folder, plan).looks,
            on_begin=begin,
        )

        say = (f"encoder: {folder.path / 'encoder.safetensors'}", f"use it: init={folder.path}")
        on_rank_zero(fabric, lambda: finish(folder, task, outcome, *say))
        return folder.path
