"""Teeth on panoramics from few labelled films: detectors from a pretrained encoder, and from fresh weights.

    python benchmarks/few_films.py

Masked pretraining of a ResNet-18 on all films but those of the test patients, without labels; then the sweep
(`python -m mim.stages.sweep`) of the detector of configs/finetune/detect_teeth.yaml over seeds, each on other labelled
films, from that encoder and from fresh weights, for the same number of steps. It prints what the sweep prints: AP50 and
the difference, with intervals over patients and seeds. Finished runs are kept, so a second start goes on where the
first stopped. Films are sought in MIM_SHARED_DATA, else in ../shared/data.
"""

import argparse
import os
import sys
from pathlib import Path

from mim.config import FinetuneConfig, PretrainConfig, door, load_config
from mim.errors import MimError
from mim.stages.common import start_logging
from mim.stages.pretrain import pretrain
from mim.stages.sweep import sweep
from mim.stages.sweep_plan import SCRATCH, SweepRequest

PRETRAINING = Path("configs/pretrain/xray_resnet10.yaml")
FINETUNING = Path("configs/finetune/detect_teeth.yaml")
NETWORK = ("encoder.name=resnet18", "input.image_size=[192,384]")


def main() -> None:
    """Pretrains, then sweeps."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--output", type=Path, default=Path("runs/few-films"))
    line.add_argument("--data", type=Path, default=None, help="folder with labels.csv and teeth.coco.json")
    line.add_argument("--films", type=int, default=50, help="labelled films to train on")
    line.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    line.add_argument("--pretrain-epochs", type=int, default=100)
    line.add_argument("--finetune-epochs", type=int, default=60)
    line.add_argument("--pretraining", action="append", default=[], help="key=value for pretraining")
    line.add_argument("--finetuning", action="append", default=[], help="key=value for fine-tuning, of both")
    options = line.parse_args()
    films = options.data or Path(os.environ.get("MIM_SHARED_DATA", "../shared/data")) / "panoramic"
    if not (films / "teeth.coco.json").is_file():
        raise MimError(f"{films}: has no teeth.coco.json; give --data <panoramics with boxes of teeth>")
    start_logging()
    shared = ["tracking.wandb=off", f"data.path={films}", "data.long_side=512"]
    before = [f"output={options.output / 'pretrained'}", f"training.epochs={options.pretrain_epochs}"]
    settings = [*shared, *NETWORK, *before, *options.pretraining]
    encoder = pretrain(load_config(PretrainConfig, PRETRAINING, settings))
    settings = [
        *shared,
        "data.labels=labels.csv",
        "data.boxes=teeth.coco.json",
        f"data.train_limit={options.films}",
        f"training.epochs={options.finetune_epochs}",
        *options.finetuning,
    ]
    config = load_config(FinetuneConfig, FINETUNING, settings)
    starts = (SCRATCH, str(encoder))
    sweep(SweepRequest(config, (1.0,), tuple(options.seeds), starts, options.output / "sweep"))


if __name__ == "__main__":
    sys.exit(door(main))
