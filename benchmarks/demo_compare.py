"""Pretrained against from scratch: the demo's network, the demo's few labels, three seeds.

    python benchmarks/demo_compare.py

For each seed the demo's pretraining and fine-tuning are run as their YAML files say but for longer, and that
fine-tuning again with fresh weights. Both are scored on the same test patients, whom neither has met. The difference of
AUROC is given with an interval over patients and seeds, and beside it the share of lesions that the masker let the
classifier see. Finished runs are kept, so a second start goes on where the first stopped.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from mim.config import (
    EvaluateConfig,
    FaithfulnessConfig,
    FinetuneConfig,
    PretrainConfig,
    TrainingConfig,
    door,
    load_config,
)
from mim.data.phantom import PhantomSettings, write_phantom
from mim.data.processes import available_cores
from mim.errors import MimError
from mim.evaluation import Difference, Predictions, difference_over_seeds
from mim.stages.classifier import load_classifier
from mim.stages.common import start_logging
from mim.stages.evaluate import evaluate, open_finished, score_films
from mim.stages.finetune import finetune, known_lesions, labelled_films, make_dataset
from mim.stages.pretrain import pretrain
from mim.training import make_fabric

ARMS = ("scratch", "pretrained")


def main() -> None:
    """Runs what is missing, then prints the comparison and writes it as JSON."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--output", type=Path, default=Path("runs/demo-compare"))
    line.add_argument("--phantom", type=Path, default=Path("data/phantom-compare"))
    line.add_argument("--unlabelled", type=int, default=800, help="films to pretrain on, as in the demo")
    line.add_argument("--labelled", type=int, default=800, help="films with labels; most of them only to test on")
    line.add_argument("--train-limit", type=int, default=200, help="labelled films to train on, as in the demo")
    line.add_argument("--pretrain-epochs", type=int, default=72, help="more than the demo, which has to be quick")
    line.add_argument("--finetune-epochs", type=int, default=50, help="more than the demo, for both arms")
    line.add_argument("--seeds", type=int, default=3)
    line.add_argument("--override", action="append", default=[], help="key=value for pretraining and fine-tuning alike")
    options = line.parse_args()
    if options.seeds < 3:
        raise MimError(f"--seeds {options.seeds}: fewer than three seeds say nothing about chance")
    start_logging()
    write_phantom(
        options.phantom,
        PhantomSettings(),
        unlabelled=options.unlabelled,
        labelled=options.labelled,
        seed=1,
        workers=available_cores(),
    )
    began = time.monotonic()
    runs = {seed: {arm: train(options, seed, arm) for arm in ARMS} for seed in range(options.seeds)}
    tables = {seed: {arm: score(run) for arm, run in arms.items()} for seed, arms in runs.items()}
    first = tables[0]["scratch"]
    for arms in tables.values():
        for table in arms.values():
            assert table.image_id == first.image_id, "the runs were scored on different films"
    pairs = [(tables[seed]["scratch"].score, tables[seed]["pretrained"].score) for seed in tables]
    difference = difference_over_seeds(first.label, first.patient_id, pairs)
    shown = {arm: [share_of_lesions_shown(runs[seed][arm]) for seed in runs] for arm in ARMS}
    report(options, tables, difference, shown, time.monotonic() - began)


def train(options: argparse.Namespace, seed: int, arm: str) -> Path:
    """Trains one arm under one seed, pretraining first; what is finished is not done again."""
    folder = options.output / f"seed-{seed}"
    shared = [f"seed={seed}", "tracking.wandb=off", *options.override]
    before = pretrain(
        load_config(
            PretrainConfig,
            Path("configs/pretrain/demo.yaml"),
            [
                f"output={folder / 'pretrain'}",
                f"data.path={options.phantom / 'unlabelled'}",
                f"training.epochs={options.pretrain_epochs}",
                *shared,
            ],
        )
    )
    # layer decay protects what was pretrained; fresh weights need none
    own = [] if arm == "pretrained" else ["init_weights=false", "optimizer.layer_decay=1.0"]
    return finetune(
        load_config(
            FinetuneConfig,
            Path("configs/finetune/demo.yaml"),
            [
                f"output={folder / arm}",
                f"init={before}",
                f"data.path={options.phantom / 'labelled'}",
                f"data.train_limit={options.train_limit}",
                f"training.epochs={options.finetune_epochs}",
                *own,
                *shared,
            ],
        )
    )


def score(run: Path) -> Predictions:
    """Scores of the test films."""
    config = EvaluateConfig(run=str(run), faithfulness=FaithfulnessConfig(enabled=False))
    return Predictions.load(evaluate(config) / "predictions.csv").of("test")


def share_of_lesions_shown(run: Path) -> float:
    """Share of the lesions of the test films whose centre lies in a cell that the masker shows."""
    config = EvaluateConfig(run=str(run))
    _, finetuned, description = open_finished(config)
    films, splits = labelled_films(finetuned)
    test = splits.test
    dataset = make_dataset(finetuned, films, test, description.encoder.image_size, training=False)
    fabric = make_fabric(TrainingConfig())
    task = fabric.to_device(load_classifier(run, finetuned, description))
    visible = score_films(task, dataset, fabric, config.batch_size).visible  # (N, gh, gw)
    annotations = known_lesions(finetuned.data, films)
    assert annotations is not None
    rows, columns = visible.shape[1:]
    shown = [
        visible[number, int((top + bottom) / 2 * rows), int((left + right) / 2 * columns)]
        for number, film in enumerate(test)
        for left, top, right, bottom in (lesion.box for lesion in annotations.of(film.index))
    ]
    return float(np.mean(shown))


def report(
    options: argparse.Namespace,
    tables: dict[int, dict[str, Predictions]],
    difference: Difference,
    shown: dict[str, list[float]],
    seconds: float,
) -> None:
    """Prints the comparison and writes compare.json."""
    aurocs = {}
    for seed, arms in tables.items():
        alone = difference_over_seeds(
            arms["scratch"].label, arms["scratch"].patient_id, [(arms["scratch"].score, arms["pretrained"].score)]
        )
        aurocs[seed] = (alone.auroc_a, alone.auroc_b)
        print(f"seed {seed}: from scratch {alone.auroc_a:.3f}, pretrained {alone.auroc_b:.3f}")
    mean = np.array(list(aurocs.values())).mean(axis=0)
    films = tables[0]["scratch"]
    print(f"mean: from scratch {mean[0]:.3f}, pretrained {mean[1]:.3f}")
    print(
        f"difference {difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f}; "
        f"{len(films)} test films of {len(set(films.patient_id))} patients, {len(tables)} seeds)"
    )
    keep = float(np.mean([arms["pretrained"].keep_rate.mean() for arms in tables.values()]))
    for arm, shares in shown.items():
        print(
            f"{arm}: lesions shown by the masker {', '.join(f'{share:.3f}' for share in shares)} (of cells {keep:.3f})"
        )
    content = {
        "auroc": aurocs,
        "lesions_shown": shown,
        "cells_shown": keep,
        "difference": [difference.value, difference.low, difference.high],
        "test_films": len(films),
        "train_limit": options.train_limit,
        "seconds": seconds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }
    (options.output / "compare.json").write_text(json.dumps(content, indent=2) + "\n")
    print(f"{options.output / 'compare.json'}")


if __name__ == "__main__":
    sys.exit(door(main))
