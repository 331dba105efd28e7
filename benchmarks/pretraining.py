"""Pretraining at equal time on real X-rays: mim's recipe, transformers' ViTMAE, lightly's MAE, and none at all.

    OMP_NUM_THREADS=1 python benchmarks/pretraining.py --minutes 3

Every arm has the same encoder, meets the same films under the same crops and flips, and is then judged by the same
code: nearest neighbours and logistic regression on pooled features, and fine-tuning. What differs is how it was
pretrained: by mim with the recipe of configs/pretrain/xray_vit_tiny.yaml, or by a peer with the same masking, a
decoder of the same size (or, in the arms *-published, the one that it publishes) and the same optimiser, in bfloat16
too, for the minutes asked for, or as long as mim's run took where that was longer. Two arms show what mim can do
besides: mim-cnn is masked pretraining of a small ResNet in the same time, which the peers do not have, and mim-cnn-long
the same for longer. They are no part of the comparison at equal encoder. Two more, mim-light-decoder and
mim-published-decoder, are not done unless --arms names them: the same ViT on films of 96 pixels, each meeting as many
films as --films says however long that takes, behind a decoder of 2 blocks of 192 channels and behind the one that MAE
publishes.

Each arm of each seed is one JSON file under --output; what is there is not done again, so that a run that was
interrupted goes on, and two processes can share the work: give each its own --seeds or --data, then start the script
once more for the table. Films are sought in MIM_SHARED_DATA, else in ../shared/data.
"""

import argparse
import json
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pretraining_films import BENCHMARKS, Trial, find_shared_data, read_trials, with_labels
from pretraining_peers import PEERS, train_peer
from pretraining_probes import finetune, probe
from pretraining_report import report
from torch import Tensor

from mim.config import FinetuneConfig, PretrainConfig, door, load_config
from mim.data import PreparedDataset
from mim.data.augment import train_transform
from mim.data.loader import FilmDataset
from mim.errors import MimError
from mim.files import write_atomically
from mim.models import Encoder, create_encoder, load_encoder_weights
from mim.stages.common import TrainBatches, configured_encoder, open_films, resolve_input, start_logging
from mim.stages.pretrain import pretrain
from mim.stages.pretrain_films import choose_films
from mim.training import make_fabric

VIT = Path("configs/pretrain/xray_vit_tiny.yaml")
CNN = Path("configs/pretrain/xray_resnet10.yaml")
FINETUNING = Path("configs/finetune/xray_few_labels.yaml")
ARMS = {  # and the file that describes the encoder; mim comes first: its time is given to the peers
    "mim": VIT,
    "mim-cnn": CNN,
    "mim-cnn-long": CNN,
    "vitmae": VIT,
    "lightly": VIT,
    "vitmae-published": VIT,
    "lightly-published": VIT,
    "scratch": VIT,
    "scratch-cnn": CNN,
    "imagenet": VIT,
    "mim-light-decoder": VIT,
    "mim-published-decoder": VIT,
}
SMALL = "input.image_size=[96,96]"  # the published decoder behind larger films would take hours
DECODERS = {  # what is compared at equal films
    "mim-light-decoder": (SMALL, "decoder.width=192", "decoder.depth=2", "decoder.heads=6"),
    "mim-published-decoder": (SMALL, "decoder.width=512", "decoder.depth=8", "decoder.heads=16"),
}
CALIBRATION_STEPS = 20
MACHINE = (
    "training.accelerator=cpu",
    "training.workers=0",
    "training.precision=bf16-mixed",
    "training.checkpoint_every=1000",
    "tracking.wandb=off",
    "tracking.tensorboard=false",
)
ENDLESS = 10**9  # steps
PEER_RATE = 1.5e-3  # that of our own recipe

logger = logging.getLogger("mim")


def main() -> None:
    """Does what is missing, then prints the table and writes it as JSON."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--data", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    line.add_argument("--arms", nargs="+", choices=ARMS, default=[arm for arm in ARMS if arm not in DECODERS])
    line.add_argument("--seeds", nargs="+", type=int, choices=(0, 1, 2), default=[0, 1, 2])
    line.add_argument("--minutes", type=float, default=3.0, help="of pretraining, each arm and seed")
    line.add_argument("--long-minutes", type=float, default=10.0, help="of pretraining in the arm mim-cnn-long")
    line.add_argument("--films", type=int, default=10_000, help="that each arm mim-*-decoder meets in pretraining")
    line.add_argument("--finetune-epochs", type=int, help="else 50 (chest) and 16 (panoramic): about 300 steps")
    line.add_argument("--labels", type=int, help="films with a label; else 200 (chest) and all (panoramic)")
    line.add_argument("--output", type=Path, default=Path("runs/pretraining"))
    options = line.parse_args()
    root = find_shared_data()
    start_logging()
    warnings.simplefilter("ignore", FutureWarning)
    for name in options.data:
        benchmark = with_labels(BENCHMARKS[name], options.labels)
        folder = options.output / name
        films = open_films(configuration(VIT, root / benchmark.folder, (), options.output, folder / "none", 0).data)
        for trial in read_trials(benchmark, root / benchmark.folder, films, options.seeds, folder):
            for arm in (arm for arm in ARMS if arm in options.arms):
                run_arm(arm, trial, films, options)
    report(options.output)


def run_arm(arm: str, trial: Trial, films: PreparedDataset, options: argparse.Namespace) -> None:
    """Pretrains, probes and fine-tunes one arm under one seed, unless that is done already."""
    data = trial.source.name
    result = options.output / data / trial.name / f"{arm}.json"
    if result.is_file():
        return
    if arm == "imagenet" and (failed := sorted(options.output.glob("*/seed-*/imagenet.json"))):
        known = json.loads(failed[0].read_text())
        if "absent" in known:  # asking the network again takes a minute
            write_atomically(result, json.dumps(known) + "\n")
            return
    logger.info("%s, %s, %s", data, trial.name, arm)
    place = result.parent / arm
    settings = (*trial.settings, *DECODERS.get(arm, ()))
    config = configuration(ARMS[arm], trial.source, settings, options.output, place, trial.seed, trial.exclude)
    encoder, learnt = pretrained_encoder(arm, config, films, options)
    if encoder is None:
        write_atomically(result, json.dumps({"arm": arm, "absent": learnt["absent"]}) + "\n")
        return
    meets = resolve_input(config.input)
    scores = probe(encoder, films, trial, meets.mean, meets.std)
    tuning = tuning_configuration(arm, trial, place, options.finetune_epochs)
    scores["finetuned"], seconds = finetune(encoder, films, trial, tuning, place / "finetuned", meets.mean, meets.std)
    content = {
        "arm": arm,
        "data": data,
        "trial": trial.name,
        "seed": trial.seed,
        "question": with_labels(BENCHMARKS[data], options.labels).question,
        "train_labels": len(trial.train.label),
        **learnt,
        "finetune_seconds": seconds,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "label": trial.test.label,
        "patient": trial.test.patient,
        "scores": {name: values.tolist() for name, values in scores.items()},
    }
    write_atomically(result, json.dumps(content) + "\n")


def configuration(
    recipe: Path,
    source: Path,
    settings: tuple[str, ...],
    output: Path,
    place: Path,
    seed: int,
    exclude: Path | None = None,
) -> PretrainConfig:
    """The recipe for some films."""
    given = [
        f"data.path={source}",
        f"data.cache={output / 'prepared'}",
        f"data.exclude={exclude or 'none'}",
        f"output={place / 'pretrained'}",
        f"seed={seed}",
        "watch.looks=0",
    ]
    return load_config(PretrainConfig, recipe, [*given, *MACHINE, *settings])


def tuning_configuration(arm: str, trial: Trial, place: Path, epochs: int | None) -> FinetuneConfig:
    """How an arm is fine-tuned: as all others are."""
    settings = [f"output={place / 'finetuned'}", f"data.path={trial.source}", f"seed={trial.seed}", *trial.tuning]
    settings += [*MACHINE, f"training.epochs={epochs}"] if epochs else MACHINE
    # layer decay protects what was pretrained; fresh weights need none
    settings += ["optimizer.layer_decay=1.0"] if arm.startswith("scratch") else []
    return load_config(FinetuneConfig, FINETUNING, settings)


def pretrained_encoder(
    arm: str, config: PretrainConfig, films: PreparedDataset, options: argparse.Namespace
) -> tuple[Encoder | None, dict[str, Any]]:
    """The encoder of an arm with what it learnt, and what learning it took."""
    meets = resolve_input(config.input)
    torch.manual_seed(config.seed)
    if arm in DECODERS:
        return for_steps(config, max(1, round(options.films / config.training.batch_size)))
    if arm.startswith("mim"):
        minutes = options.long_minutes if arm.endswith("long") else options.minutes
        return by_recipe(config, minutes * 60)
    encoder = configured_encoder(config.encoder, meets.image_size)
    if arm.startswith("scratch"):
        return encoder, {"pretrain_seconds": 0.0, "pretrain_films": 0}
    if arm == "imagenet":
        try:  # timm's own network of this name, of the depth that its weights have
            return create_encoder(config.encoder.name, meets.image_size, pretrained=True), {"pretrain_seconds": 0.0}
        except MimError as error:
            logger.warning("%s", error)
            return None, {"absent": "no weights: they need a network, or timm's filled cache"}
    seconds = options.minutes * 60
    for ours in (Path(str(config.output)).parents[1] / f"{name}.json" for name in ("mim", "mim-cnn")):
        if ours.is_file():  # steps are counted beforehand, so that ours may have taken longer than was asked for
            seconds = max(seconds, json.loads(ours.read_text())["pretrain_seconds"])
    peer = PEERS[arm](encoder)
    steps, loss = train_peer(peer, peer_batches(config, films), seconds=seconds, lr=PEER_RATE)
    encoder.backbone.load_state_dict(peer.encoder_state())
    learnt = {"pretrain_seconds": seconds, "pretrain_films": steps * config.training.batch_size, "loss": loss}
    return encoder, learnt


def by_recipe(config: PretrainConfig, seconds: float) -> tuple[Encoder, dict[str, Any]]:
    """Pretrains as train.py does, with as many steps as fit the time by a short run of its own."""
    place = Path(str(config.output))
    plan = place.with_name("steps.json")
    if not plan.is_file():
        brief = shortened(config, CALIBRATION_STEPS, place.with_name("calibration"))
        rate = json.loads((pretrain(brief) / "finished.json").read_text())["images_per_second"]
        steps = max(1, round(seconds * rate / config.training.batch_size))
        write_atomically(plan, json.dumps({"steps": steps, "images_per_second": rate}) + "\n")
    return for_steps(config, json.loads(plan.read_text())["steps"])


def for_steps(config: PretrainConfig, steps: int) -> tuple[Encoder, dict[str, Any]]:
    """Pretrains as train.py does, for so many steps."""
    run = pretrain(shortened(config, steps, Path(str(config.output))))
    finished = json.loads((run / "finished.json").read_text())
    encoder = configured_encoder(config.encoder, resolve_input(config.input).image_size)
    load_encoder_weights(encoder, run)
    return encoder, {
        "pretrain_seconds": finished["seconds"],
        "pretrain_films": finished["steps"] * config.training.batch_size,
    }


def shortened(config: PretrainConfig, steps: int, place: Path) -> PretrainConfig:
    """The same settings for so many steps, in a folder."""
    training = config.training.model_copy(update={"max_steps": steps, "epochs": 1_000_000})
    return config.model_copy(update={"training": training, "output": str(place)})


def peer_batches(config: PretrainConfig, films: PreparedDataset) -> Iterator[Tensor]:
    """The images that mim's run meets, in their order, normalised; nothing is done for masks, which peers make."""
    meets = resolve_input(config.input)
    transform = train_transform(config.augment, meets.image_size)
    dataset = FilmDataset(films, choose_films(config, films), transform, config.seed, integers=True)
    batches = TrainBatches(dataset, config, make_fabric(config.training), ENDLESS)
    for batch in batches(0):
        yield (batch["image"] - meets.mean) / meets.std


if __name__ == "__main__":
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    sys.exit(door(main))
